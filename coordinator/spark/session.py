"""One run on one coordinator, as the driver follows it: the latest picture, kept by a thread; and
the right to form one, which the runs of a Spark application take in turn."""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from coordinator.client import RunClient
from coordinator.core import diagnosis
from coordinator.core.errors import CoordinatorUnavailable, ReservationTimeout, TfleaseError
from coordinator.core.model import (
    IncarnationId,
    MemberId,
    MemberPhase,
    Proof,
    RunPhase,
    RunView,
    TaskState,
)
from coordinator.spark import following, results
from coordinator.spark.gateway import Gateway
from coordinator.spark.gpu_rivals import Rivals
from coordinator.spark.jobs import MemberJobs, MemberRow
from coordinator.spark.options import Options
from coordinator.spark.progress import ProgressLine

_log = logging.getLogger("tflease")

_SCHEDULING_INTERVAL = 1.0

_FORMING: dict[str, threading.Lock] = {}


class Forming:
    """One forming run at a time for each Spark application: two half-formed gangs would hold each
    other's slots for ever. Entering waits, visibly; raises ReservationTimeout.

    A gang that forms again after a restart does not wait for its turn: mostly its members keep
    their slots. Should it need one that a forming run holds, each of the two waits for no longer
    than its own reservation timeout, and the one that gives up frees its slots.
    """

    def __init__(self, gateway: Gateway, options: Options) -> None:
        self._lock = _FORMING.setdefault(gateway.application_id, threading.Lock())
        self._options = options
        self._is_forming = False

    def __enter__(self) -> Forming:
        self._wait()
        self._is_forming = True
        return self

    def _wait(self) -> None:
        if self._lock.acquire(blocking=False):
            return
        spec = self._options.spec
        if self._options.progress:
            ProgressLine(spec.name).say("waiting for another run of this session to form")
        if not self._lock.acquire(timeout=spec.reservation_timeout):
            raise ReservationTimeout(
                f"run {spec.name!r} could not begin within {spec.reservation_timeout:g} s: another "
                "run of this Spark session is still gathering its members"
            )

    def end(self) -> None:
        """Idempotent: on leaving at the latest."""
        if self._is_forming:
            self._is_forming = False
            self._lock.release()

    def __exit__(self, *_: object) -> None:
        self.end()


class Listener(Protocol):
    """Is told of every picture."""

    def saw(self, run: RunView) -> None:
        """In the thread that follows the run, which waits for it."""


class RunSession:
    """Follows a run. ``wait_for`` is the only thing that blocks.

    ``patience``: seconds that the coordinator may be out of reach, ``is_gone``: whether it is no
    more (``following.views``). ``rivals``: who may have the GPUs that its members' tasks wait for.
    """

    def __init__(
        self,
        client: RunClient,
        run: RunView,
        show: Callable[[RunView], object] | None,
        patience: float = 0.0,
        is_gone: Callable[[], bool] | None = None,
        rivals: Rivals | None = None,
    ) -> None:
        self._client = client
        self._patience = patience
        self._is_gone = is_gone
        self._rivals = rivals or Rivals("", {})
        self._show = show
        self._condition = threading.Condition()
        self._view = run
        self._lost: CoordinatorUnavailable | None = None
        self._jobs: MemberJobs | None = None
        self._tasks: dict[MemberId, TaskState] = {}
        self._tasks_of = 0  # so many restarts: they are about the jobs since then
        self._known_restarts = run.restart_count
        self._unproven: dict[tuple[MemberId, str], str] = {}  # by attempt, of all generations
        self._news: Callable[[], object] = lambda: None
        self._listeners: weakref.WeakSet[Listener] = weakref.WeakSet()
        self._cancelled: set[MemberId] = set()
        self._told: set[tuple[str, str]] = set()  # leftovers, by host
        self._unsent_stop: tuple[str, float | None] | None = None
        self._closed = threading.Event()
        self._threads = [
            threading.Thread(target=self._watch, name="tflease-watch", daemon=True),
            threading.Thread(target=self._report, name="tflease-scheduling", daemon=True),
        ]

    def start(self, jobs: MemberJobs, news: Callable[[], object] | None = None) -> None:
        """Begins to follow the run, and to report what Spark says of its jobs. ``news`` is called
        when the run has changed or a job has ended."""
        self._jobs = jobs
        self._news = news or self._news
        for thread in self._threads:
            thread.start()

    def tell(self, listener: Listener) -> RunView:
        """Of all pictures after this one, for as long as somebody else holds on to it: who stops to
        iterate over lines seldom says so."""
        with self._condition:
            self._listeners.add(listener)
            return self._view

    @property
    def view(self) -> RunView:
        """The latest picture."""
        with self._condition:
            return self._view

    @property
    def lost(self) -> CoordinatorUnavailable | None:
        """Set when the run is not followed any more, though it has not ended: the coordinator is
        gone."""
        with self._condition:
            return self._lost

    def wait_for(self, condition: Callable[[RunView], bool], timeout: float | None) -> bool:
        """Waits for a picture that fulfils ``condition``, or for the end of the coordinator.
        False when neither came within ``timeout`` seconds, or the run is not followed yet."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._condition:
            while not (self._lost is not None or condition(self._view)):
                left = None if deadline is None else deadline - time.monotonic()
                if self._jobs is None or (left is not None and left <= 0):
                    return False
                self._condition.wait(None if left is None else min(left, threading.TIMEOUT_MAX))
        return True

    def stop(self, reason: str, grace: float | None) -> None:
        """Asks for the end of the run; a coordinator that is out of reach is asked when it is
        back."""
        try:
            self._client.stop(self._view.run_id, reason, grace)
        except CoordinatorUnavailable:
            with self._condition:
                self._unsent_stop = reason, grace
        except TfleaseError as error:  # it has forgotten the run, which the watch tells as well
            _log.debug("stopping the run: %s", error)

    def task_returned(self, row: MemberRow) -> None:
        """A member's task has ended and brought its sentinel's proof: tells the coordinator."""
        if row.handed_over:
            self._news()  # the member lives on, and its agent tells of its end
            return
        report = row.report
        if report is None:
            self.task_failed(row.member, row.refusal or "it returned nothing")
            return
        if report.proof is not Proof.NONE and not report.survivors:
            with self._condition:
                self._unproven.pop((row.member, row.incarnation), None)
        run_id, incarnation = self._view.run_id, IncarnationId(row.incarnation)
        with suppress(TfleaseError):  # the watch tells when the coordinator is gone
            following.persistently(
                lambda: self._client.report_task_end(run_id, row.member, incarnation, report),
                self._patience,
                self._closed,
            )
        self._news()

    @property
    def unproven(self) -> list[str]:
        """What may be left of members whose slots others have taken since."""
        with self._condition:
            now = {(each.id, each.incarnation) for each in self._view.members if each.exit}
            return [text for attempt, text in self._unproven.items() if attempt not in now]

    def _note_unproven(self, view: RunView) -> None:
        """With the lock. A slot of a run that goes on is free once its holder is fenced, too, which
        no picture may show: the next generation forms in the same moment."""
        for member in view.members:
            if not member.incarnation:
                continue
            attempt, text = (member.id, member.incarnation), results.left_of(member)
            is_over = member.phase.has_ended and member.exit is not None
            if text and (is_over or member.phase is MemberPhase.LOST):
                self._unproven[attempt] = text
            elif is_over or member.phase.is_live:  # proven, or heard of again
                self._unproven.pop(attempt, None)

    def task_failed(self, member: MemberId, text: str) -> None:
        """Spark gave a member's task up: tells the coordinator, unless another job answers it."""
        view = self.view
        has_another = self._jobs is not None and not self._jobs.submitted(member).is_over
        if not has_another and not _is_answered(view, member):
            self.task_is_lost(member, text, view.restart_count)
        self._news()

    def task_is_lost(self, member: MemberId, text: str, restarts: int) -> None:
        """And there will be no other. ``restarts``: of the run, when that was so."""
        with self._condition:
            self._forget_tasks_of_before()
            if restarts == self._tasks_of:
                self._tasks[member] = TaskState(failed=True, message=text)
        self._send_scheduling()

    def task_cancelled(self, member: MemberId, text: str) -> None:
        """Somebody has cancelled the job of a member that would otherwise start again: he wants
        the end."""
        self.stop(f"the Spark job of {member} was cancelled: {text}", None)

    def _forget_tasks_of_before(self) -> None:
        """With the lock."""
        if self._tasks_of != self._view.restart_count:
            self._tasks_of = self._view.restart_count
            self._tasks.clear()

    def close(self, timeout: float) -> None:
        """Stops following. The client must be closed by its owner, after the watch has ended."""
        self._closed.set()
        for thread in self._threads:
            if thread.ident is not None and thread is not threading.current_thread():
                thread.join(timeout)
        self._rivals.forget(self._view.run_id)

    # -- threads ---------------------------------------------------------------------------

    def _watch(self) -> None:
        why = "it ended the watch"
        try:
            pictures = following.views(
                self._client, self._view.run_id, self._patience, self._closed, self._is_gone
            )
            for view in pictures:
                self._saw(view)
        except Exception as error:  # whatever it is: those who wait must not wait for ever
            why = str(error) or type(error).__name__
        with self._condition:
            if not self._view.phase.is_terminal:
                self._lost = self._no_longer_followed(why)
                self._closed.set()  # nobody is there to be told anything
            self._condition.notify_all()
        if self._lost is not None and self._jobs is not None:
            self._jobs.cancel()

    def _no_longer_followed(self, why: str) -> CoordinatorUnavailable:
        name = self._view.spec.name
        if self._closed.is_set():
            return CoordinatorUnavailable(f"run {name!r} was shut down before its end was known")
        return CoordinatorUnavailable(
            f"the coordinator of run {name!r} is gone ({why}): the run cannot go on and its jobs "
            "are cancelled"
        )

    def _saw(self, view: RunView) -> None:
        with self._condition:
            self._view = view
            self._note_unproven(view)
            for listener in self._listeners:
                listener.saw(view)
            self._condition.notify_all()
        self._rivals.saw(view)
        if not view.phase.is_terminal:
            self._send_stop_again()
        self._warn_of_leftovers(view)
        self._warn_of_restarts(view)
        self._news()
        if self._show is not None:
            self._show_quietly(view)
        if view.phase is RunPhase.STOPPING or view.phase.is_terminal:
            self._cancel_unneeded(view)

    def _warn_of_leftovers(self, view: RunView) -> None:
        """Once: it is news about the machine, not about this run (O14)."""
        for executor in (member.executor for member in view.members if member.executor):
            for text in executor.leftovers:
                if (executor.hostname, text) not in self._told:
                    self._told.add((executor.hostname, text))
                    _log.warning("%s: %s", executor, text)

    def _warn_of_restarts(self, view: RunView) -> None:
        """Each once; of very many at a time the latest."""
        new = view.restart_count - self._known_restarts
        self._known_restarts = view.restart_count
        for line in diagnosis.history(view)[-new:] if new > 0 else ():
            _log.warning("run %r: %s", view.spec.name, line)

    def _show_quietly(self, view: RunView) -> None:
        """A display that fails must not end the watch."""
        assert self._show is not None
        try:
            self._show(view)
        except BaseException as error:  # not even by sys.exit
            _log.warning("the progress display failed and is switched off: %s", error)
            self._show = None

    def _cancel_unneeded(self, view: RunView) -> None:
        """Tasks that were never scheduled must not start now and hold a slot (R2). One that runs
        but has not connected yet finds the run over, and brings the proof of its end itself."""
        for member in view.members:
            never_came = member.exit is None and member.phase is MemberPhase.STOPPED
            if never_came and member.id not in self._cancelled and self._jobs is not None:
                self._cancelled.add(member.id)
                if self._jobs.running(member.id) is not True:
                    self._jobs.cancel(member.id)

    def _report(self) -> None:
        while not self._closed.wait(_SCHEDULING_INTERVAL):
            view = self.view
            if view.phase.is_terminal:
                return
            self._send_stop_again()
            is_missing = any(each.phase is MemberPhase.EXPECTED for each in view.members)
            if view.phase is RunPhase.FORMING or (view.phase is RunPhase.RUNNING and is_missing):
                self._look(view)
                self._send_scheduling()

    def _send_stop_again(self) -> None:
        """A call may fail while the stream lives on, and a run at work changes seldom."""
        with self._condition:
            unsent, self._unsent_stop = self._unsent_stop, None
        if unsent is not None:
            self.stop(*unsent)  # which keeps it again when it fails

    def _look(self, view: RunView) -> None:
        """What Spark says of the members that have not come yet."""
        for member in view.members:
            if member.phase is not MemberPhase.EXPECTED or self._jobs is None:
                continue
            active = self._jobs.active_tasks(member.id)
            if active is None:
                continue  # Spark does not say
            # Members of large runs share jobs: those that are there account for as many tasks.
            there = self._jobs.job_of(member.id)
            running = active > sum(each.phase.is_live for each in view.members if each.id in there)
            why = "" if running else self._rivals.explain(view.run_id, member.id)
            with self._condition:
                self._forget_tasks_of_before()
                if not self._tasks.get(member.id, TaskState()).failed:
                    self._tasks[member.id] = TaskState(running=running, message=why)

    def _send_scheduling(self) -> None:
        with self._condition:
            self._forget_tasks_of_before()
            run_id, tasks, restarts = self._view.run_id, dict(self._tasks), self._tasks_of
        if self._jobs is not None:
            slots = self._jobs.gateway.slots()
            with suppress(TfleaseError):  # the watch tells when the coordinator is gone
                self._client.report_scheduling(run_id, slots, tasks, restarts)


def _is_answered(run: RunView, member: MemberId) -> bool:
    """Whether the end of a task is no news to the coordinator: once a run has been restarted, only
    that of a member at work is. Others are brought back by another job (``resubmission``)."""
    if not run.restart_count and run.phase is not RunPhase.RESTARTING:
        return False
    phase = next(each.phase for each in run.members if each.id == member)
    return run.phase is not RunPhase.RUNNING or not phase.is_live
