"""What the driver and the process that evaluates on its machine leave each other in a directory of
their own. PURE.

The driver writes PLAN and WORK before the start, and FINISH when the training is over. The process
appends to RESULTS, a JSON object a line: an `Entry`; what it prints goes to OUTPUT.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field

PLAN = "plan.json"
WORK = "work.pickle"
"""The pickled pair (fn, args)."""
FINISH = "finish"
"""Appears when no new checkpoint comes any more."""
RESULTS = "results.jsonl"
OUTPUT = "output"
PINNED = "pinned"
"""The directory of the checkpoint that is being evaluated."""

BEGAN, DONE, FAILED = "began", "done", "failed"
WAITS = "waits"
"""The last look brought nothing; the text says why, and what comes of it."""
ENDED = "ended"
"""All is evaluated; the process has nothing more to say."""


@dataclass(frozen=True, slots=True)
class EvaluationPlan:
    """`every`: seconds between two looks. `events`: the directory of the event files; None: none
    are wanted. `sys_path`: the driver's, so that its modules are found."""

    model_dir: str
    every: float
    events: str | None
    sys_path: tuple[str, ...] = ()

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> EvaluationPlan:
        values = json.loads(text)
        return cls(**{**values, "sys_path": tuple(values["sys_path"])})


@dataclass(frozen=True, slots=True)
class Entry:
    """`event`: one of the words above. `path`: of the checkpoint, where it was saved; "" if it is
    about none. `text`: what went wrong, of a failure with the traceback."""

    event: str
    path: str = ""
    step: int = -1
    seconds: float = 0.0
    metrics: Mapping[str, float] = field(default_factory=dict)
    text: str = ""

    def to_line(self) -> str:
        return json.dumps(asdict(self)) + "\n"


def entries(text: str) -> Iterable[Entry]:
    """Those that were written to their end."""
    whole, _, _ = text.rpartition("\n")
    return [Entry(**json.loads(line)) for line in whole.splitlines()]
