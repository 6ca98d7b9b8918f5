"""New Spark jobs for members that start again where their old ones cannot take them.

A member whose task lives on starts again in it; when the task has ended, with its executor perhaps,
Spark's own retries are not waited for: the driver submits another job. What is to be done is
decided here (``orders``); ``Resubmitter`` does it, on a thread of its own.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from coordinator.core.errors import TfleaseError
from coordinator.core.model import MemberId, MemberPhase, MemberView, RunPhase, RunView
from coordinator.core.restarts import avoided_hosts
from coordinator.spark.gateway import Gateway
from coordinator.spark.jobs import MemberJobs, Submitted

_log = logging.getLogger("tflease")

MAX_SUBMISSIONS = 3
"""Jobs for a member after one restart: if none of them got its slot, something is broken."""

_PATIENCE = 5.0
"""Seconds that a member is missing before what is not certain is taken as a fact: that no task of
a shared job is left for it, or that its task stands by on a host that is avoided."""

_INTERVAL = 1.0


@dataclass(frozen=True, slots=True)
class Orders:
    """``submit``: members that need another job; ``given_up``: those whose jobs were all in vain,
    and what came of the last one."""

    submit: tuple[MemberId, ...] = ()
    given_up: Mapping[MemberId, str] = field(default_factory=dict)


def awaited(run: RunView) -> list[MemberView]:
    """Members that are to come back after a restart."""
    if not run.restart_count or run.phase not in (RunPhase.FORMING, RunPhase.RUNNING):
        return []
    # While it forms, also a slot whose holder was never proven gone is for others.
    is_forming = run.phase is RunPhase.FORMING
    free = (MemberPhase.EXPECTED, MemberPhase.FENCED) if is_forming else (MemberPhase.EXPECTED,)
    return [member for member in run.members if member.phase in free]


def orders(
    run: RunView,
    jobs: Mapping[MemberId, Submitted],
    active: Mapping[MemberId, int],
    now: float,
) -> Orders:
    """``jobs``: by awaited member. ``active``: how many tasks of its latest job run, where Spark
    says so. ``now``: Unix seconds."""
    submit: list[MemberId] = []
    given_up: dict[MemberId, str] = {}
    for member in awaited(run):
        job = jobs[member.id]
        if job.is_over and job.count >= MAX_SUBMISSIONS:
            given_up[member.id] = job.why
        elif job.is_over or (job.count == 0 and _is_stuck(run, member, job, active, now)):
            submit.append(member.id)
    return Orders(tuple(submit), given_up)


def _is_stuck(
    run: RunView,
    member: MemberView,
    job: Submitted,
    active: Mapping[MemberId, int],
    now: float,
) -> bool:
    """Whether the job goes on, but will probably not bring this member. When it does so after all,
    its task stands by."""
    if member.id not in active or now - member.phase_at < _PATIENCE:
        return False
    others = sum(each.phase.is_live for each in run.members if each.id in job.shared)
    if active[member.id] > others:  # one of them is the member's
        return _is_avoided(run, member, now)
    return len(job.shared) > 1


def _is_avoided(run: RunView, member: MemberView, now: float) -> bool:
    """It was on a host that has failed repeatedly, while others are known: there a task stands by
    until the others have come."""
    if run.phase is not RunPhase.FORMING:
        return False
    avoided = avoided_hosts(run.restarts, now)
    known = {each.executor.hostname for each in run.members if each.executor is not None}
    here = member.executor.hostname if member.executor is not None else ""
    return here in avoided and bool(known - avoided)


class Resubmitter:
    """Follows a run and submits jobs by ``orders``: ``submit(member, restarts)``. ``give_up(member,
    why, restarts)`` is told who cannot be brought back. ``picture``: of the run as it was told
    last, ``ask``: as it is now; raises TfleaseError.

    Its thread must be one of the gateway's, made where the user called: what it submits belongs to
    the user's cell, and is cancelled with it.
    """

    def __init__(
        self,
        gateway: Gateway,
        jobs: MemberJobs,
        picture: Callable[[], RunView],
        ask: Callable[[], RunView],
        submit: Callable[[MemberId, int], None],
        give_up: Callable[[MemberId, str, int], None],
    ) -> None:
        self._jobs = jobs
        self._picture = picture
        self._ask = ask
        self._submit = submit
        self._give_up = give_up
        self._told: set[tuple[MemberId, int]] = set()
        self._news = threading.Event()
        self._closed = threading.Event()
        self._thread = gateway.thread(self._follow)
        self._thread.daemon = True
        self._thread.name = "tflease-resubmission"

    def start(self) -> None:
        """On the thread of the user's call."""
        self._thread.start()

    def look(self) -> None:
        """The run has changed, or a job has ended."""
        self._news.set()

    def close(self, timeout: float) -> None:
        """Nothing is submitted any more."""
        self._closed.set()
        self._news.set()
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout)

    def _follow(self) -> None:
        while not self._closed.is_set():
            self._news.wait(_INTERVAL)
            self._news.clear()
            run = self._picture()
            if run.phase.is_terminal:
                return
            if run.restart_count:
                self._keep_only_holders(run)
            if awaited(run) and not self._closed.is_set():
                self._look_quietly(run)

    def _look_quietly(self, run: RunView) -> None:
        """The next look may go better; without any the run would only wait for its deadline."""
        try:
            self._look(run)
        except TfleaseError:
            pass  # the watch tells when the coordinator is gone
        except Exception as error:  # no thread to be had, Spark's own trouble
            _log.warning("cannot submit a job for a member that is to start again: %s", error)

    def _keep_only_holders(self, run: RunView) -> None:
        for member in run.members:
            if member.phase is MemberPhase.RUNNING and member.incarnation is not None:
                self._jobs.keep_only(member.id, member.incarnation)

    def _look(self, known: RunView) -> None:
        restarts = known.restart_count
        jobs = {each.id: self._jobs.submitted(each.id, restarts) for each in awaited(known)}
        active = {
            member: count
            for member, job in jobs.items()
            if not job.is_over and (count := self._jobs.active_tasks(member)) is not None
        }
        if orders(known, jobs, active, time.time()) == Orders():
            return
        # The picture may be of before a job had its member, and lost it again.
        run = self._ask()
        if run.restart_count == restarts and jobs.keys() >= {each.id for each in awaited(run)}:
            self._obey(orders(run, jobs, active, time.time()), restarts)

    def _obey(self, given: Orders, restarts: int) -> None:
        for member in given.submit:
            self._submit(member, restarts)
        for member, why in given.given_up.items():
            if (member, restarts) not in self._told:
                self._told.add((member, restarts))
                self._give_up(member, why, restarts)
