"""The chronicle's part about the book of GPUs: who has had which, and what was wrong with it."""

from __future__ import annotations

import re
from typing import Protocol

from coordinator import event_kinds as kinds
from coordinator.core import effects

_GPU = re.compile(r"\bGPU (\S+)")
_KINDS = (
    ("is not proven free", kinds.GPU_UNPROVEN),
    ("has not renewed its lease", kinds.GPU_LAPSED),
    ("was found free", kinds.GPU_PROVEN),
    ("started again since", kinds.GPU_PROVEN),
    ("is quarantined", kinds.GPU_QUARANTINED),
    ("was put aside by an operator", kinds.GPU_QUARANTINED),
    ("was cleared by an operator", kinds.GPU_CLEARED),
    ("is in use by", kinds.GPU_OCCUPIED),
)
"""The book's own words. They stand before any word of a user or an operator, so that the one that
is found first counts; a test holds them against the book."""


class Tell(Protocol):
    """Writes one event."""

    def __call__(self, kind: str, text: str, run_id: str = "", subject: str = "") -> None: ...


class GpuChronicle:
    """Stateless: every word comes with its effect."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell

    def leased(self, effect: effects.GpuLeased) -> None:
        """Somebody has it, who is told so now."""
        who = f"{effect.who} of {effect.holder}"
        text = f"GPU {effect.uuid} on {effect.hostname} is granted to {who}, lease {effect.token}"
        self._tell(kinds.GPU_GRANTED, text, effect.run_id or "", effect.uuid)

    def freed(self, effect: effects.GpuFreed) -> None:
        """Its holder has given it back, proven free; or somebody else has proven it."""
        text = f"GPU {effect.uuid} on {effect.hostname} is free again, lease {effect.token} is over"
        self._tell(kinds.GPU_RELEASED, text, effect.run_id or "", effect.uuid)

    def noted(self, run_id: str, text: str) -> None:
        """A sentence of the book."""
        kind, uuid = kind_of(text)
        self._tell(kind, text, run_id, uuid)


def kind_of(sentence: str) -> tuple[str, str]:
    """The kind of a sentence of the book, and the GPU that it tells of; empty: of none."""
    gpu = _GPU.search(sentence)
    if gpu is None:
        return kinds.GPU_NOTED, ""
    found = [(sentence.find(words), kind) for words, kind in _KINDS if words in sentence]
    return min(found)[1] if found else kinds.GPU_NOTED, gpu[1]
