"""What a chief copies next from its checkpoint directory to the store of `model_dir`. PURE.

Rules:
- Complete checkpoints, in the order in which they were written: the store's own times then tell
  which is the latest. In a hurry (the member is to stop) the newest one alone.
- The notes ("checkpoint", by which TensorFlow finds the latest) when no checkpoint waits: so they
  never name one that is not there.
- What is gone from the directory is removed, if it was copied from here; but never the newest one
  that the store has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LocalCheckpoint:
    """A complete one, as it was found. Names are relative to the directory."""

    prefix: str
    files: tuple[str, ...]
    """The index is the last."""
    version: tuple[int, ...]
    """Another one when it was written again."""
    written_at: int

    @property
    def age(self) -> tuple[int, int, str]:
        """Sorts by the moment; of the same moment "ckpt-9" comes before "ckpt-10"."""
        return self.written_at, len(self.prefix), self.prefix


@dataclass(frozen=True, slots=True)
class Upload:
    """Copy this checkpoint. `remove_first`: the index of an older one of the same name, which would
    make half a copy look complete."""

    checkpoint: LocalCheckpoint
    remove_first: str | None = None


@dataclass(frozen=True, slots=True)
class WriteNote:
    """Copy this small file, which has this text."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Remove:
    """Remove this checkpoint of ours from the store; `files` in this order: the index first."""

    prefix: str
    files: tuple[str, ...]


Action = Upload | WriteNote | Remove


class Uploads:
    """What the store has of ours, as far as this process copied it."""

    def __init__(self) -> None:
        self._stored: dict[str, LocalCheckpoint] = {}
        self._begun: dict[str, LocalCheckpoint] = {}  # half copied, perhaps
        self._notes: dict[str, str] = {}

    @property
    def newest(self) -> LocalCheckpoint | None:
        """The newest one that the store has."""
        return max(tuple(self._stored.values()), key=lambda each: each.age, default=None)

    def waiting(
        self, found: Sequence[LocalCheckpoint], *, hurry: bool = False
    ) -> list[LocalCheckpoint]:
        """Those to be copied, the next one first."""
        missing = [each for each in found if not self._has(each)]
        missing.sort(key=lambda each: each.age)
        if not hurry:
            return missing
        newest = self.newest
        return [each for each in missing[-1:] if newest is None or each.age > newest.age]

    def next(
        self,
        found: Sequence[LocalCheckpoint],
        notes: Mapping[str, str],
        *,
        hurry: bool = False,
    ) -> Action | None:
        """`found`: the complete checkpoints of the directory; `notes`: the notes' texts by name.
        None: the store has it all. Changes nothing."""
        waiting = self.waiting(found, hurry=hurry)
        if waiting:
            first = waiting[0]
            has_older = first.prefix in self._stored or first.prefix in self._begun
            return Upload(first, f"{first.prefix}.index" if has_older else None)
        if self._stored:
            for name, text in notes.items():
                if self._notes.get(name) != text:
                    return WriteNote(name, text)
        present, newest = {each.prefix for each in found}, self.newest
        for each in (*self._begun.values(), *self._stored.values()):
            if each.prefix not in present and each != newest:
                return Remove(each.prefix, each.files[::-1])
        return None

    def begin(self, action: Action) -> None:
        """From now on the store may have a part of it."""
        if isinstance(action, Upload):
            self._begun[action.checkpoint.prefix] = action.checkpoint
            if action.remove_first is not None:
                self._stored.pop(action.checkpoint.prefix, None)

    def done(self, action: Action) -> None:
        """It is; or, of a Remove, it cannot be done and is not tried again."""
        match action:
            case Upload(checkpoint):
                self._begun.pop(checkpoint.prefix, None)
                self._stored[checkpoint.prefix] = checkpoint
            case WriteNote(name, text):
                self._notes[name] = text
            case Remove(prefix):
                self._begun.pop(prefix, None)
                self._stored.pop(prefix, None)

    def _has(self, each: LocalCheckpoint) -> bool:
        stored = self._stored.get(each.prefix)
        return stored is not None and stored.version == each.version
