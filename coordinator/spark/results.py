"""What comes out of a run: a ``RunResult``, or an exception whose text is the whole story."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import cloudpickle

from coordinator.core import completion, diagnosis
from coordinator.core.errors import (
    ReleaseUnproven,
    ReservationTimeout,
    RunCancelled,
    TfleaseError,
    TrainingFailed,
)
from coordinator.core.model import (
    Cause,
    Failure,
    MemberPhase,
    MemberView,
    Proof,
    Restart,
    RunPhase,
    RunView,
)
from coordinator.spark import views
from coordinator.spark.jobs import MemberJobs

_log = logging.getLogger("tflease")

_MAX_OTHERS = 10

_HANDED_OVER = (
    'what main_fun returns does not come back with anchor="executor": its Spark task, which would '
    "bring it, ended when the gang was formed"
)


@dataclass(frozen=True, slots=True)
class RunResult:
    """A run that went well.

    ``returned``: what each member's ``main_fun`` returned, by member ("chief:0"); members whose
    process had to be stopped, because others decide the end of the run, are missing, and with
    ``anchor="executor"`` all are. ``seconds``: from the creation of the run to its end.
    ``missing``: why, by member. ``restarts``: the latest 50 that it took, and ``generations`` how
    often all members have started together.
    """

    run_id: str
    name: str
    returned: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    missing: Mapping[str, str] = field(default_factory=dict)
    restarts: tuple[Restart, ...] = ()
    generations: int = 1

    def __getitem__(self, member: str) -> Any:
        """``result["worker:0"]``. Raises KeyError, which says why it is not there."""
        try:
            return self.returned[member]
        except KeyError:
            why = self.missing.get(member, "the run has no such member")
            raise KeyError(f"{member}: {why}") from None

    def _repr_html_(self) -> str:
        """For notebooks."""
        return views.result(
            self.name,
            self.seconds,
            self.returned,
            self.missing,
            self.restarts,
            self.generations,
        )


def collect(run: RunView, jobs: MemberJobs, seconds: float) -> RunResult:
    """Unpickles what the members returned. The bytes come from the user's own function on the
    user's own executors, through Spark. What does not get here is warned of, and missing: the
    training went well all the same."""
    returned: dict[str, Any] = {}
    missing: dict[str, str] = {}
    for member in run.members:
        name, row = str(member.id), jobs.row(member.id, member.incarnation)
        completed = member.exit is not None and member.exit.cause is Cause.COMPLETED
        if row is not None and row.handed_over:
            missing[name] = _HANDED_OVER
        elif row is not None and row.result is not None:
            try:
                returned[name] = cloudpickle.loads(row.result)
            except Exception as error:  # anything at all: it is the user's class that is loaded
                why = f"cannot be unpickled here: {type(error).__name__}: {error}"
                missing[name] = f"what it returned {why}"
                _log.warning("what %s returned %s", name, why)
        elif not completed:
            missing[name] = "its main_fun had not returned when the run was complete"
        elif row is None:
            # Spark may end a decommissioned executor before it has what its last task returned.
            is_lost = jobs.submitted(member.id).is_over and jobs.row(member.id) is not None
            why = jobs.failure(member.id) or (
                "Spark has lost it with its executor, and has run the task once more"
                if is_lost
                else "its Spark task has not ended yet"
            )
            missing[name] = f"what it returned has not come back: {why}"
            _log.warning("what %s returned has not come back: %s", name, why)
        else:
            returned[name] = None
            if member.exit is not None and member.exit.message:
                _log.warning("%s: %s", name, member.exit.message)
    return RunResult(
        str(run.run_id),
        run.spec.name,
        returned,
        seconds,
        missing,
        run.restarts,
        run.generation,
    )


def error_of(run: RunView) -> TfleaseError | None:
    """Why a settled run did not go well; None when it did."""
    if run.failure is not None:
        text = story(run, run.failure)
        timed_out = run.failure.cause is Cause.GANG_INCOMPLETE
        return (ReservationTimeout if timed_out else TrainingFailed)(text, run.failure)
    stopping = run.settled and run.phase is RunPhase.STOPPING and not _is_complete(run)
    if run.phase is RunPhase.CANCELLED or stopping:
        return RunCancelled(f"run {run.spec.name!r} was stopped: {run.stop_reason}")
    return None


def _is_complete(run: RunView) -> bool:
    """Whether it is only being tidied up: the members that count have finished."""
    causes = {member.id: member.exit.cause if member.exit else None for member in run.members}
    return completion.is_complete(run.spec, causes)


def story(run: RunView, failure: Failure) -> str:
    """The first cause with its traceback and log, then the others."""
    lines = [f"run {run.spec.name!r} failed: {failure.summary}"]
    if failure.exit is not None:
        lines += _section("Traceback on the executor", failure.exit.traceback)
        trace, log = failure.exit.traceback.strip(), failure.exit.log_tail
        log = log.replace(trace, "(the traceback above)") if trace else log
        lines += _section(f"Last lines of the log of {failure.member}", log)
    # The coordinator puts the restarts after the other members.
    count = len(run.restarts)
    others = failure.others[: len(failure.others) - count]
    lines += _section("Other members", _shortened(others))
    before = diagnosis.history(run)[-_MAX_OTHERS:]
    more = run.restart_count - len(before)
    lines += _section("Restarts before", "\n".join([*[f"{more} more, and"] * (more > 0), *before]))
    where = [
        f"{member.id}: {member.executor.directory} on {member.executor}"
        for member in run.members
        if member.executor is not None and member.id == failure.member
    ]
    lines += _section("Its files", "\n".join(where))
    return "\n".join(lines)


def _shortened(lines: Sequence[str]) -> str:
    more = len(lines) - _MAX_OTHERS
    return "\n".join([*lines[:_MAX_OTHERS], *([f"... and {more} more"] if more > 0 else [])])


def _section(title: str, text: str) -> Iterable[str]:
    return [f"\n--- {title} ---", text.rstrip()] if text.strip() else []


def left_of(member: MemberView) -> str:
    """What of a member may be left; "" when it is proven gone, or never began."""
    where = f"{member.id} on {member.executor}"
    if member.phase in (MemberPhase.LOST, MemberPhase.FENCED):
        return f"{where}: its agent is not heard of any more"
    if member.phase.is_live:
        return f"{where}: it was {member.phase.value} when last heard of"
    if member.exit is not None and member.incarnation is not None:
        if member.exit.survivors:
            return f"{where}: could not be killed: {', '.join(member.exit.survivors)}"
        if member.exit.proof is Proof.NONE:
            return f"{where}: nothing was proven ({member.exit.reason})"
    return ""


def check_released(run: RunView, before: Iterable[str] = (), *, is_idle: bool = True) -> None:
    """Raises ReleaseUnproven when something of an ended run may be left. ``before``: what may be
    of earlier generations; ``is_idle``: Spark lists no task of it."""
    left: list[str] = []
    if not is_idle:
        left.append(f"Spark still lists an active task of the run (tag tflease-{run.run_id})")
    left += [*before, *filter(None, map(left_of, run.members))]
    if left:
        raise ReleaseUnproven(
            "something of the run may be left: " + "; ".join(left), {"left": "; ".join(left)}
        )
