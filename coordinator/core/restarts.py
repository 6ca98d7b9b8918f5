"""What a run has spent of its restarts, and whether there is one for this failure.

Pure bookkeeping: ``run_restart`` asks, and does what follows.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import ClassVar

from coordinator.core.durable import Ledger, Tracked
from coordinator.core.durable_values import codec
from coordinator.core.member import Member
from coordinator.core.model import Cause, Failure, MemberId, Restart, RunId
from coordinator.core.policy import Action, RestartPolicy

SAVED_AT = "checkpoint/saved_at"
"""The metric by which a member tells of its newest complete checkpoint: Unix time."""

KEPT_RESTARTS = 50
"""So many of the latest are told and remembered."""

KEPT_SUMMARY = 1_000
"""Characters of why, of each: every picture of the run, and the journal, has all of them."""

_KEPT_WHY = 200
"""Characters of why a restart was called off."""

AVOIDED_AFTER = 2
"""Failures of a host, in a row of restarts, after which others are preferred."""

AVOID_WINDOW = 600.0
AVOID_SECONDS = 60.0
"""For so long after its last failure: a host that stays the only one is taken again then."""


class Restarts(Tracked):
    """Mutable state. ``count``: of all, never less than before; ``undone``: those of them that
    another one has replaced, or that did not take place; ``in_a_row``: since the last progress.
    ``best_step``, ``best_saved``: the furthest that was known at the last restart. ``news``: not
    told yet."""

    DURABLE: ClassVar = {
        "count": codec(int),
        "undone": codec(int),
        "in_a_row": codec(int),
        "best_step": codec(int),
        "best_saved": codec(float),
        "latest": codec(tuple[Restart, ...]),
    }

    def __init__(self, run_id: RunId, policy: RestartPolicy, ledger: Ledger | None = None) -> None:
        self.track(ledger, "restarts", run_id)
        self._policy = policy
        self.count = 0
        self.undone = 0
        self.in_a_row = 0
        self.best_step = 0
        self.best_saved = 0.0
        self.latest: tuple[Restart, ...] = ()
        self.news: list[Restart] = []

    @property
    def is_enabled(self) -> bool:
        """Whether anything is ever restarted."""
        return self._policy.is_enabled

    def may_answer(self, cause: Cause, members: Collection[Member]) -> bool:
        """Whether a failure of this cause would be answered with a restart now."""
        if self._policy.action(cause) is Action.FAIL:
            return False
        return self.has_left(members)

    def has_left(self, members: Collection[Member]) -> bool:
        """Whether there is one for whatever cause."""
        return self._spent(members) < self._policy.max_restarts

    def may_restart_alone(self, cause: Cause) -> bool:
        """Whether the policy has nothing against it; the rest is the run's business. Who has lost
        a peer never does: the peer may be one whose end takes all others with it."""
        is_own = cause is not Cause.PEER_LOST
        return is_own and self._policy.alone and self._policy.action(cause) is Action.RESTART

    def _spent(self, members: Collection[Member]) -> int:
        if not self._policy.progress_refills:
            return self.count - self.undone
        return 0 if self._is_further(members) else self.in_a_row

    def _is_further(self, members: Collection[Member]) -> bool:
        """Where steps are told they alone count: a program that saves, and never restores, has a
        newer checkpoint in each generation and gets nowhere."""
        step, saved = _furthest(members)
        if step or self.best_step:
            return step > self.best_step
        return saved > self.best_saved

    def spend(
        self,
        failure: Failure,
        members: Collection[Member],
        generation: int,
        now: float,
        *,
        alone: bool = False,
    ) -> float:
        """One restart more. Returns the seconds before it."""
        step, saved = _furthest(members)
        if self._is_further(members):
            self.in_a_row = 0
        self.best_step, self.best_saved = max(step, self.best_step), max(saved, self.best_saved)
        delay = self._policy.delay(self.in_a_row)
        self.in_a_row += 1
        self.count += 1
        blamed = next((each for each in members if each.id == failure.member), None)
        executor = blamed.executor if blamed is not None else None
        entry = Restart(
            at=now,
            generation=generation,
            cause=failure.cause,
            summary=_clipped(failure.summary),
            member=failure.member,
            host=executor.hostname if executor is not None else "",
            step=step,
            alone=alone,
        )
        self.latest = (*self.latest, entry)[-KEPT_RESTARTS:]
        self.news.append(entry)
        return delay

    def pause(self, member: MemberId, now: float) -> float:
        """Seconds until a member that was restarted alone may come; for a gang the run waits."""
        for last in reversed(self.latest):
            if not last.alone:
                break
            if last.member == member:
                return last.at + self._policy.delay(self.in_a_row - 1) - now
        return 0.0

    def undo(self, member: MemberId) -> Restart | None:
        """The latest restart of this member alone did not work out: another will be in its place,
        so that one failure costs one restart. None: nobody knows of it any more."""
        mine = [each for each in self.latest if each.alone and each.member == member]
        if not mine:
            return None
        last = mine[-1]
        self.latest = tuple(each for each in self.latest if each is not last)
        self.undone += 1
        self.in_a_row = max(0, self.in_a_row - 1)
        return last

    def call_off(self, why: str) -> None:
        """The latest restart was decided, and does not take place: the history says so."""
        last = self.latest[-1]
        note = f" (this restart was called off: {' '.join(why.split())[:_KEPT_WHY]})"
        summary = f"{_clipped(last.summary, KEPT_SUMMARY - len(note))}{note}"
        self.latest = (*self.latest[:-1], replace(last, summary=summary))
        self.undone += 1
        self.in_a_row = max(0, self.in_a_row - 1)

    def take_news(self) -> list[Restart]:
        """Restarts since the last time."""
        news, self.news = self.news, []
        return news

    def story(self, failure: Failure, members: Collection[Member]) -> Failure:
        """The last failure of a run that was restarted before, with all of that."""
        before = tuple(map(_line, self.latest))
        failure = replace(failure, others=(*failure.others, *before))
        count = self.count - self.undone
        if not count:
            return failure
        times = f"{count} restart{'s' * (count != 1)}"
        without = f", {self.in_a_row} in a row without a new step or checkpoint"
        lacks_progress = self.in_a_row >= 1 and not self._is_further(members)
        summary = f"{failure.summary} (after {times}{without * lacks_progress})"
        return replace(failure, summary=summary)

    def avoided(self, now: float) -> frozenset[str]:
        """Hosts that had better not be taken, if there is another."""
        return avoided_hosts(self.latest, now)


def avoided_hosts(restarts: Iterable[Restart], now: float) -> frozenset[str]:
    """Hosts that have failed repeatedly of late, for a while."""
    failed: dict[str, list[float]] = {}
    for each in restarts:
        if each.host and each.cause is not Cause.PEER_LOST and now - each.at <= AVOID_WINDOW:
            failed.setdefault(each.host, []).append(each.at)
    return frozenset(
        host
        for host, times in failed.items()
        if len(times) >= AVOIDED_AFTER and now < max(times) + AVOID_SECONDS
    )


def with_newest_save(member: Member, metrics: Mapping[str, float]) -> Mapping[str, float]:
    """A member's metrics: what it has saved stays saved, also when it tells of other things."""
    saved = member.metrics.get(SAVED_AT)
    if saved is None or metrics.get(SAVED_AT, saved) > saved:
        return dict(metrics)
    return {**metrics, SAVED_AT: saved}


def _furthest(members: Iterable[Member]) -> tuple[int, float]:
    every = [(member.step, member.metrics.get(SAVED_AT, 0.0)) for member in members]
    return max(step for step, _ in every), max(saved for _, saved in every)


def _clipped(text: str, most: int = KEPT_SUMMARY) -> str:
    return text if len(text) <= most else f"{text[: most - 3]}..."


def _line(restart: Restart) -> str:
    what = "restarted alone" if restart.alone else "restarted"
    return f"generation {restart.generation}, {what} at step {restart.step}: {restart.summary}"
