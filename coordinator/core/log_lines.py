"""One attempt's log as lines, from pieces that are read one after the other.

Nothing is skipped silently: where bytes are missing, a notice says so (E4).
"""

from __future__ import annotations

from dataclasses import dataclass

from coordinator.core.log_values import LogChunk

MAX_LINE_BYTES = 64 * 1024
"""A longer line comes in pieces: a progress bar that never ends its line must not pile up."""

RECENT_BYTES = 16 * 1024
"""So much of what was read is kept, to find where the tail of a report goes on: twice as much as
such a tail holds."""


@dataclass(frozen=True, slots=True)
class Notice:
    """A sentence about the log, which is not a line of it."""

    text: str


class LogLines:
    """Of one attempt ("incarnation") of a member. ``position``: from where to read on."""

    def __init__(self, position: int | None = 0) -> None:
        """``position`` None: from the end of the log as it is when it is first read."""
        self.position = position
        self._partial = b""
        self._recent = b""
        self._has_read = False
        self._began_at = position

    def take(self, chunk: LogChunk) -> list[str | Notice]:
        """The lines that ``chunk`` completes. Its ``offset`` must be known."""
        found: list[str | Notice] = []
        if chunk.offset is None:
            raise ValueError("a piece without an offset: it is the tail of an ended log")
        missing = 0 if self.position is None else chunk.offset - self.position
        if missing > 0:
            found += [*self.flush(), Notice(f"{missing:,} bytes of the log are gone: {_GONE}")]
        elif missing < 0:
            found += [
                *self.flush(),
                Notice("the log has become shorter, and is read on"),
            ]
        self.position = chunk.offset + len(chunk.data)
        if missing or self._began_at is None:
            self._recent, self._began_at = b"", chunk.offset
        return found + self._lines(chunk.data)

    def end(self, tail: str) -> list[str | Notice]:
        """What is left when ``tail``, the last whole lines, is all that can be had any more."""
        rest = self._rest(tail.encode())
        found: list[str | Notice] = []
        if rest is None:
            found += [*self.flush(), Notice(_PERHAPS if self._has_read else _TAIL_ONLY)]
            rest = tail.encode()
        return found + self._lines(rest) + self.flush()

    def _rest(self, tail: bytes) -> bytes | None:
        """What of it was not read yet; None: something may be missing in between."""
        if not tail or not self._has_read:
            return None if tail and self.position == 0 else tail
        seen = self._recent.decode(errors="replace").encode()  # as in the tail
        if seen.rstrip().endswith(tail):
            return b""
        start = 0
        while shown := seen[start:].lstrip():  # from the first line that it may begin with
            if tail.startswith(shown):
                return tail[len(shown) :]
            start = seen.find(b"\n", start) + 1 or len(seen)
        return self._rest_after(tail, seen)

    def _rest_after(self, tail: bytes, seen: bytes) -> bytes | None:
        """Where reading began inside the tail: after the first place where it fits, because a line
        that comes twice is better than one that never comes."""
        if self._began_at == 0 or not seen.strip():
            return None
        before, found, after = (tail + b"\n").partition(seen)
        if not found and tail.endswith(seen.rstrip()):
            return b""
        return after.removesuffix(b"\n") if found and before[-1:] in (b"", b"\n") else None

    def _lines(self, data: bytes) -> list[str | Notice]:
        self._has_read = self._has_read or bool(data)
        self._recent = (self._recent + data)[-RECENT_BYTES:]
        *whole, self._partial = (self._partial + data).split(b"\n")
        if len(self._partial) > MAX_LINE_BYTES:
            whole.append(self._partial)
            self._partial = b""
        return [_text(line) for line in whole]

    def flush(self) -> list[str | Notice]:
        partial, self._partial = self._partial, b""
        return [_text(partial)] if partial else []


_GONE = "its file is bounded, and they were printed faster than they were read"
_PERHAPS = (
    "lines may be missing here: the member ended before they were read, and what follows is the "
    "end of its log, which came with its report"
)
_TAIL_ONLY = (
    "the member ended before its log was read: what follows came with its report, which has the "
    "last 8 KiB of the log at most"
)


def _text(line: bytes) -> str:
    return line.decode(errors="replace").removesuffix("\r")
