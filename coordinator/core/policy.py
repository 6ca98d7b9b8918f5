"""What becomes of a failure: by its cause, and within a budget.

Values only; what has been spent is in ``restarts``.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType

from coordinator.core.causes import Cause
from coordinator.core.errors import InvalidRun


class Action(enum.Enum):
    """The answer to a failure."""

    FAIL = "fail"
    """The run fails."""
    RESTART = "restart"
    """As little as will do: a worker under parameter servers alone, otherwise the gang."""
    RESTART_GANG = "restart gang"
    """All members, in any case."""


DEFAULT_ACTIONS: Mapping[Cause, Action] = {
    Cause.KILLED_BY_SIGNAL: Action.RESTART,
    Cause.OUT_OF_MEMORY: Action.RESTART,
    Cause.LOST_CONTACT: Action.RESTART,
    Cause.PREEMPTED: Action.RESTART,
    Cause.AGENT_LOST: Action.RESTART,
    Cause.PEER_LOST: Action.RESTART,
    Cause.STALLED: Action.RESTART,
    Cause.GPU_LOST: Action.RESTART,
}
"""What happens to a program from outside may be over next time; all other causes, the program's
own exceptions first, would only come again. PEER_LOST decides where nobody failed by himself."""

_NEVER_AGAIN = frozenset({Cause.COMPLETED, Cause.STOPPED, Cause.GANG_INCOMPLETE})
"""Of these no policy can make a restart, so none may name them."""

Answers = Mapping[Cause, Action] | Mapping[str, str] | Mapping[str, Action] | Mapping[Cause, str]
"""Actions by causes, either as such or by their values: ``{"user exception": "restart"}``."""

_NO_ANSWERS: Mapping[Cause, Action] = MappingProxyType({})


MAX_RESTARTS = 10_000
MAX_BACKOFF = 3600.0  # seconds


@dataclass(frozen=True, slots=True, init=False)
class RestartPolicy:
    """How often, and after what, a run that has failed starts again from its last checkpoint.

    ``max_restarts``: without progress in between, or in all when ``progress_refills`` is false.
    Progress is a step beyond all that were reported before, or, where none are, a newer checkpoint.
    ``on``: what differs from ``DEFAULT_ACTIONS``, by cause: ``{"user exception": "restart"}``, or
    the same with ``Cause`` and ``Action``. ``backoff``: seconds before the second
    restart without progress in between, doubled with each further one, up to ``max_backoff``.
    ``alone``: whether a worker under parameter servers may be restarted alone, at its address.

    Raises InvalidRun.
    """

    max_restarts: int
    on: Mapping[Cause, Action]
    backoff: float
    max_backoff: float
    progress_refills: bool
    alone: bool

    # By hand, because ``on`` takes more than it is afterwards.
    def __init__(
        self,
        max_restarts: int = 3,
        *,
        on: Answers = _NO_ANSWERS,
        backoff: float = 1.0,
        max_backoff: float = 60.0,
        progress_refills: bool = True,
        alone: bool = True,
    ) -> None:
        given = max_restarts, _actions(on), backoff, max_backoff, progress_refills, alone
        for item, value in zip(fields(self), given, strict=True):
            object.__setattr__(self, item.name, value)
        self._check()

    def _check(self) -> None:
        count = self.max_restarts
        if isinstance(count, bool) or not isinstance(count, int) or not 0 <= count <= MAX_RESTARTS:
            raise InvalidRun(
                f"max_restarts={count!r}: must be a whole number from 0 to {MAX_RESTARTS}"
            )
        for name in ("backoff", "max_backoff"):
            seconds = getattr(self, name)
            is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
            if not is_number or not 0 <= seconds <= MAX_BACKOFF:  # nor NaN
                raise InvalidRun(f"{name}={seconds!r}: must be from 0 to {MAX_BACKOFF:g} seconds")
        for name in ("progress_refills", "alone"):
            if not isinstance(getattr(self, name), bool):
                raise InvalidRun(f"{name}={getattr(self, name)!r}: must be True or False")

    @property
    def is_enabled(self) -> bool:
        """Whether anything is ever restarted."""
        return self.max_restarts > 0

    def action(self, cause: Cause) -> Action:
        """The answer to a cause, should there be a restart left."""
        if not self.is_enabled:
            return Action.FAIL
        return self.on.get(cause, DEFAULT_ACTIONS.get(cause, Action.FAIL))

    def delay(self, in_a_row: int) -> float:
        """Seconds before a restart that comes after ``in_a_row`` others without progress."""
        if in_a_row < 1:
            return 0.0
        return min(self.backoff * 2.0 ** min(in_a_row - 1, 30), self.max_backoff)


def _actions(on: Answers) -> dict[Cause, Action]:
    if not isinstance(on, Mapping):
        raise InvalidRun(f"on={on!r}: must be a mapping from causes to actions")
    found: dict[Cause, Action] = {}
    for named, action in on.items():
        try:
            cause = Cause(named)
            found[cause] = Action(action)
        except ValueError:
            raise InvalidRun(f"on={{{named!r}: {action!r}}}: {_choices()}") from None
        if cause in _NEVER_AGAIN:
            problem = f"nothing is ever restarted after {cause.value!r}"
            raise InvalidRun(f"on={{{named!r}: {action!r}}}: {problem}; {_choices()}")
    return found


def _choices() -> str:
    causes = ", ".join(repr(each.value) for each in Cause if each not in _NEVER_AGAIN)
    actions = ", ".join(repr(each.value) for each in Action)
    return f"causes are {causes}; actions are {actions}"


NO_RESTARTS = RestartPolicy(max_restarts=0)
"""A failure is the end of the run."""
