"""Watching the run while something is done for one of its feeds on a thread of Spark's.

The thread that called `cluster.train` is free to see what the job cannot: that the run has failed,
that members want no more rows, that nothing moves, Ctrl-C. Whichever comes first, the jobs under
the train's tag are cancelled before the caller hears of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from coordinator.core.errors import FeedFailed, FeedStalled, RunCancelled, TfleaseError
from coordinator.core.model import MemberId, MemberPhase, MemberView, RunPhase, RunView
from coordinator.spark import results
from coordinator.spark.feed import consumers
from coordinator.spark.feed.control import KeeperUnreachable
from coordinator.spark.feed.counters import Counters
from coordinator.spark.feed.errand import Errand
from coordinator.spark.gateway import Gateway
from coordinator.spark.jobs import explain
from coordinator.spark.session import RunSession

T = TypeVar("T")

INTERVAL = 0.1
_PULSE_INTERVAL = 2.0
_CANCEL_INTERVAL = 0.25
_ASK_INTERVAL = 10.0
"""Seconds between two questions whether a train that some members have stopped is over: the keeper
may not have heard of them yet, or not have been reached."""

_CANCEL_TIMEOUT = 10.0
"""Seconds for cancelled jobs to end on the driver; a call to a keeper may take longer, and ends
with the keeper."""

_SETTLE_TIMEOUT = 60.0
"""Seconds for a run in trouble to say what the first cause was."""

_KEEPER_ROOM = 60.0
"""Seconds for a call to the keeper beyond its own deadline, at which it says what it waits for: its
job may wait for a slot."""

_MARGIN = 5.0

_NEWS_TIMEOUT = 5.0
"""Seconds for what a member counts to be heard of here."""

_MEMBER_TROUBLE = (
    "FeedBroken", "FeedUnreachable", " is gone", "ExecutorLost", "Executor heartbeat timed out",
)  # fmt: skip
"""Signs that a job, or a call to the keeper, failed because a member or its executor went away,
which the run knows better, and a little later."""


class FeedStopped(Exception):
    """The members want no more rows. No failure."""


class GangRestarts(Exception):
    """The gang that was fed is no more, and another one is to come. No failure."""


@dataclass(frozen=True, slots=True)
class Listeners:
    """``moved``: is told what the members count, at every look; ``has_ended``: asks the keeper
    whether the train is over when some members want no more, "" or why; ``diagnosis``: asks it
    what it waits for."""

    moved: Callable[[Counters], None] = lambda counters: None
    has_ended: Callable[[], str] = lambda: ""
    diagnosis: Callable[[], list[str]] = list


class Watch:
    """Of one train; ``feed_timeout`` in seconds. ``generation``: of the gang that it goes to."""

    def __init__(
        self,
        gateway: Gateway,
        session: RunSession,
        members: tuple[MemberId, ...],
        feed: str,
        train: int,
        tag: str,
        feed_timeout: float,
    ) -> None:
        self.listeners = Listeners()
        self._gateway = gateway
        self._session = session
        self._members = members
        self._feed = feed
        self._train = train
        self._tag = tag
        self._feed_timeout = feed_timeout
        self.generation = session.view.generation
        self._asked_of: tuple[MemberId, ...] = ()
        self._ask_again_at = 0.0
        self._seen: object = None
        self._pulse: object = None
        self._moved_at = self._pulsed_at = time.monotonic()
        self._stop_asked = ""
        self._is_ending = False

    def stop(self, reason: str) -> None:
        """From any thread: whoever watches raises FeedStopped with this reason, soon."""
        self._stop_asked = reason

    def go_on(self, train: int, tag: str, generation: int) -> None:
        """With the next generation, under another number."""
        self._train, self._tag, self.generation = train, tag, generation
        self._asked_of, self._seen = (), None

    def wait_for_gang(self) -> RunView:
        """Until a generation is at work; right away where nothing is ever restarted. However long
        that takes, it is no stall. Raises as ``during``."""

        def is_decided(run: RunView) -> bool:
            return is_in_trouble(run) or self._is_at_work(run)

        while True:
            run, lost = self._session.view, self._session.lost
            if lost is not None:
                raise lost
            if is_in_trouble(run):
                self._raise_trouble()
            self._check_stop_asked()
            if not run.spec.restart.is_enabled or self._is_at_work(run):
                return run
            self._session.wait_for(is_decided, INTERVAL)

    def _is_at_work(self, run: RunView) -> bool:
        if run.phase is not RunPhase.RUNNING:
            return False
        return all(
            each.phase is MemberPhase.RUNNING or _has_returned(each) for each in self._fed(run)
        )

    def until(self, condition: Callable[[], bool]) -> None:
        """Until something is counted. Raises as ``during``."""
        self._moved_at = time.monotonic()
        while True:
            self.check()
            if condition():
                return
            self._session.wait_for(is_in_trouble, INTERVAL)

    def end(self) -> None:
        """From here on the members are told of the end; a ``stop`` must not keep it from them."""
        self._is_ending = True

    def during(self, work: Callable[[Errand[T]], T]) -> T:
        """What ``work`` returns. Raises FeedStopped; GangRestarts; TrainingFailed, RunCancelled,
        CoordinatorUnavailable when the run is over; FeedStalled; FeedFailed when ``work`` failed by
        itself. When it returns, jobs under the tag are cancelled or have ended."""
        self._moved_at = time.monotonic()
        self.check()
        errand = Errand(self._gateway, work)
        try:
            try:
                errand.start()  # inside, because Ctrl-C may come at any time
            except Exception as error:  # PySpark asserts, without a word, that there is a context
                raise FeedFailed(
                    f"feeding {self._feed!r} failed: Spark takes no more jobs; its session has "
                    "been stopped"
                ) from error
            while not errand.wait(INTERVAL):
                self.check(_KEEPER_ROOM if errand.is_with_keeper else 0.0)
        except BaseException as error:  # Ctrl-C, too
            # Members may leave as soon as they have the last row, before we hear that they have it.
            is_at_its_end = isinstance(error, FeedStopped) and errand.is_with_keeper
            if not (is_at_its_end and errand.wait(_NEWS_TIMEOUT)):
                self._cancel(errand)
                raise
        try:
            return errand.result()
        except FeedStopped:
            self._wait_for_reason()
            raise
        except TfleaseError as error:
            self._wait_for_trouble(error)
            raise
        except Exception as error:
            self._wait_for_trouble(error)
            raise FeedFailed(
                f"feeding {self._feed!r} failed: {matters(error)}", {"feed": self._feed}
            ) from error

    def _cancel(self, errand: Errand[T]) -> None:
        """Again and again: a job may have been on its way to Spark."""
        errand.cancelled.set()
        deadline = time.monotonic() + _CANCEL_TIMEOUT
        while True:
            self._gateway.cancel(self._tag)
            errand.wait(_CANCEL_INTERVAL)
            if not errand.is_running or time.monotonic() >= deadline:
                return

    def _wait_for_trouble(self, error: BaseException) -> None:
        """A job that failed with its member says less than the run, which hears of it too."""
        text = str(error)
        if isinstance(error, KeeperUnreachable) or any(sign in text for sign in _MEMBER_TROUBLE):
            self._wait_for_reason()
        else:
            self._check_run()

    def _wait_for_reason(self) -> None:
        """Members that go away refuse rows before anybody else hears why: it may be a failure."""
        patience = self._session.view.spec.liveness_ttl + _MARGIN
        self._session.wait_for(self._is_left_by_some, patience)
        self._check_run()

    def _fed(self, run: RunView) -> list[MemberView]:
        wanted = {*self._members, consumers.keeper(run.spec.roles)}
        return [member for member in run.members if member.id in wanted]

    def has_leavers(self) -> bool:
        """Whether some of the members have stopped; waits a little for the news of it."""
        return self._session.wait_for(self._is_left_by_some, _NEWS_TIMEOUT)

    def _is_left_by_some(self, run: RunView) -> bool:
        return (
            is_in_trouble(run)
            or self._is_restarted(run)
            or any(_has_returned(member) for member in self._fed(run))
            or bool(self._counters(run).stopped())
        )

    # -- one look --------------------------------------------------------------------------------

    def check(self, room: float = 0.0) -> None:
        """Raises what ``during`` does, but for the work's own errors. ``room``: seconds beyond
        ``feed_timeout`` without any movement."""
        self._check_run()
        self._check_stop_asked()
        counters = self._counters(self._session.view)
        self.listeners.moved(counters)
        self._check_stopped(counters)
        self._check_moves(counters, room)

    def _check_stop_asked(self) -> None:
        if self._stop_asked and not self._is_ending:
            raise FeedStopped(self._stop_asked)

    def _check_run(self) -> None:
        run, lost = self._session.view, self._session.lost
        if lost is not None:
            raise lost
        if is_in_trouble(run):
            self._raise_trouble()
        if self._is_restarted(run):
            if run.generation == self.generation:  # what they had counted in the end
                self.listeners.moved(self._counters(run))
            raise GangRestarts
        if self._who_left(run):
            raise FeedStopped(self._who_left(run))

    def _is_restarted(self, run: RunView) -> bool:
        """Whether the generation that is fed has failed."""
        if not run.spec.restart.is_enabled:
            return False
        return run.phase is not RunPhase.RUNNING or run.generation != self.generation

    def _counters(self, run: RunView) -> Counters:
        return Counters.of(run, self._feed, self._train, self._members)

    def _raise_trouble(self) -> None:
        self._gateway.cancel(self._tag)  # at once: the first cause may take its time
        self._session.wait_for(lambda run: run.settled or run.phase.is_terminal, _SETTLE_TIMEOUT)
        run = self._session.view
        error = results.error_of(run) or self._session.lost
        if error is not None:
            raise error
        if run.phase is RunPhase.STOPPING and not run.settled:
            raise RunCancelled(f"run {run.spec.name!r} is being stopped: {run.stop_reason}")
        raise FeedStopped("the training is complete")

    def _who_left(self, run: RunView) -> str:
        """The end of the keeper's process ends its feeds, and so does that of all who read."""
        ended = [each.id for each in run.members if _has_returned(each)]
        keeper = consumers.keeper(run.spec.roles)
        if keeper in ended:
            return f"main_fun of {keeper} has ended"
        if set(self._members) <= set(ended):
            return "main_fun has ended on all members that are fed"
        return ""

    def _check_stopped(self, counters: Counters) -> None:
        stopped = counters.stopped()
        now = time.monotonic()
        if not stopped or (stopped == self._asked_of and now < self._ask_again_at):
            return
        if len(stopped) == len(self._members):
            raise FeedStopped(f"{', '.join(map(str, stopped))} wanted no more rows")
        self._asked_of, self._ask_again_at = stopped, now + _ASK_INTERVAL
        reason = self.listeners.has_ended()
        if reason:
            raise FeedStopped(reason)

    def _check_moves(self, counters: Counters, room: float) -> None:
        now = time.monotonic()
        if counters != self._seen:
            self._seen, self._moved_at = counters, now
        if now - self._pulsed_at >= min(_PULSE_INTERVAL, self._feed_timeout / 2):
            pulse, self._pulsed_at = self._gateway.pulse(self._tag), now
            if pulse != self._pulse:
                self._pulse, self._moved_at = pulse, now
        if now - self._moved_at > self._feed_timeout + room:
            active = self._gateway.active_tasks(self._tag)  # before they are cancelled
            self._gateway.cancel(self._tag)
            raise FeedStalled(self._stalled(active), {"feed": self._feed})

    def _stalled(self, active: int | None) -> str:
        text = [f"nothing has moved in feed {self._feed!r} for {self._feed_timeout:g} s"]
        if active == 0:
            text.append(
                "Spark runs no task that feeds: are all of its slots taken by others, or its "
                "executors gone?"
            )
        elif active:
            text.append(f"{active} of its tasks are at work in Spark")
        return "; ".join([*text, *self.listeners.diagnosis()])


def is_in_trouble(run: RunView) -> bool:
    """Whether the run has failed, is being stopped, or is over."""
    return run.failure is not None or run.phase is RunPhase.STOPPING or run.phase.is_terminal


def _has_returned(member: MemberView) -> bool:
    """One that failed has not: the run is about to say so."""
    has_ended = member.phase in (MemberPhase.EXITED, MemberPhase.STOPPED)
    return has_ended and not (member.exit is not None and member.exit.cause.is_failure)


def matters(error: BaseException) -> str:
    """The line of a job's error that matters: of a Python function that raised, what it raised."""
    text = str(error)
    _, found, trace = text.rpartition("Traceback (most recent call last):")
    if found:
        for line in trace.splitlines():
            if line.strip() and not line[0].isspace():
                return explain(RuntimeError(line))
    return explain(error)
