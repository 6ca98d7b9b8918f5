"""Whatever the policy, and whatever fails: a run ends, within its budget, with a named cause.

HYPOTHESIS_PROFILE=thorough looks much longer, and elsewhere each time.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.core import events
from coordinator.core.completion import STOP_STAGES
from coordinator.core.effects import Effect, Restarted
from coordinator.core.errors import RunOver
from coordinator.core.model import Cause, Endpoint, MemberPhase, Roles, RunPhase
from coordinator.core.policy import Action, RestartPolicy
from tests.coordinator.core.scene import Scene

FAILURES = [
    cause
    for cause in Cause
    if cause.is_failure and cause not in (Cause.TASK_FAILED, Cause.GANG_INCOMPLETE)
]
PS = Roles(chief=1, worker=1, ps=1)

policies = st.builds(
    RestartPolicy,
    max_restarts=st.integers(1, 4),
    on=st.dictionaries(st.sampled_from(FAILURES), st.sampled_from(list(Action)), max_size=4),
    backoff=st.sampled_from([0.0, 1.0, 5.0]),
    max_backoff=st.just(10.0),
    progress_refills=st.booleans(),
    alone=st.booleans(),
)
blow = st.fixed_dictionaries(
    {
        "who": st.integers(0, 2),
        "cause": st.sampled_from([*FAILURES, *[Cause.KILLED_BY_SIGNAL] * 8]),
        "victim": st.booleans(),  # who complains before the culprit is seen
        "silent": st.booleans(),  # instead: nothing is heard of it any more
        "early": st.booleans(),  # before the gang has started
        "step": st.integers(0, 3),  # that the generation has got to
        "elsewhere": st.booleans(),  # where a worker comes back
        "restart": st.booleans(),  # of the coordinator, in the middle of it
    }
)


class Account:
    """What a budget is, told again: restarts since the last progress, or all of them."""

    def __init__(self, policy: RestartPolicy) -> None:
        self.policy = policy
        self.spent = self.best = self.reached = 0
        self.alone: list[str] = []

    def book(self, effects: Iterable[Effect]) -> None:
        for each in effects:
            if isinstance(each, Restarted):
                self._book(each)

    def _book(self, effect: Restarted) -> None:
        restart = effect.restart
        if "comes back at" in restart.summary and str(restart.member) in self.alone:
            self.spent -= 1  # the same failure
        if self.policy.progress_refills and self.reached > self.best:
            self.spent = 0
        self.best = max(self.best, self.reached)
        assert self.policy.action(restart.cause) is not Action.FAIL
        assert self.spent < self.policy.max_restarts, "more than its budget"
        self.spent += 1
        if restart.alone:
            self.alone.append(str(restart.member))

    @property
    def is_spent(self) -> bool:
        refilled = self.policy.progress_refills and self.reached > self.best
        return not refilled and self.spent >= self.policy.max_restarts


class Story(Scene):
    """A run whose members come back by themselves, and fail as they are told."""

    def __init__(self, roles: Roles, policy: RestartPolicy) -> None:
        spec = {"restart": policy, "reservation_timeout": 100.0, "fence_timeout": 20.0}
        super().__init__(roles, liveness_ttl=5.0, beat_interval=1.0, **spec)
        self.account = Account(policy)

    def handle(self, event: events.Event) -> tuple[Effect, ...]:
        done = self.machine.handle(event, self.now)
        self.machine.check_invariants()
        return done

    def note(self, effects: Iterable[Effect]) -> None:
        self.account.book(effects)

    def gather(self, *, but: str = "", elsewhere: bool = False) -> None:
        """Whoever is awaited comes and gets ready, and enters when the gang has started."""
        for member in self.view.members:
            name = str(member.id)
            if self.member(name).phase is MemberPhase.EXPECTED:
                self.another_attempt(name)
                known = member.endpoint if self.phase is RunPhase.RUNNING else None
                if known is not None and elsewhere:
                    known = Endpoint("10.0.0.9", known.port)
                try:
                    self.note(self.reserve(name, endpoint=known))
                except RunOver:
                    return
            if self.member(name).phase is MemberPhase.RESERVED and name != but:
                self.note(self.ready(name))
        for name in map(str, self.slots):
            if self.member(name).phase is MemberPhase.STARTING:
                self.enter(name)

    def settle(self) -> None:
        """All that are told to leave do, stage by stage, and the pause passes."""
        for _ in STOP_STAGES:
            for member in self.view.members:
                stopping = self.phase in (RunPhase.RESTARTING, RunPhase.STOPPING)
                if stopping and self.member(member.id).phase.is_live:
                    self.note(self.end(member.id, Cause.STOPPED))
        self.let_time_pass(RunPhase.RESTARTING, RunPhase.STOPPING)

    def let_time_pass(self, *phases: RunPhase) -> None:
        """As long as it is in one of them."""
        while self.phase in phases:
            deadline = self.machine.next_deadline()
            assert self.now < deadline < float("inf"), "it would spin, or wait for ever"
            self.now = deadline
            self.note(self.handle(events.TimePassed()))

    def hit(self, blow: dict) -> None:
        names = [str(each) for each in self.slots]
        who = names[blow["who"] % len(names)]
        self.gather(but=who if blow["early"] else "", elsewhere=blow["elsewhere"])
        if self.phase is RunPhase.RUNNING and self.member(names[0]).phase is MemberPhase.RUNNING:
            self.step(names[0], blow["step"])
            self.account.reached = max(self.account.reached, blow["step"])
        if self.phase is RunPhase.RUNNING and blow["victim"] and len(names) > 1:
            other = names[(blow["who"] + 1) % len(names)]
            if self.member(other).phase.is_live:
                self.note(self.end(other, Cause.PEER_LOST))
        if self.member(who).phase.is_live and not self.member(who).phase.has_ended:
            if blow["silent"]:
                beating = {name for name in names if name != who}
                self.note(self.wait(6.0, beating=beating & self.live()))
            else:
                self.note(self.end(who, blow["cause"]))
        if blow["restart"]:
            self.disk.write(self.machine)
            self.machine = self.disk.start(self.now)
        self.settle()

    def live(self) -> set[str]:
        return {str(each.id) for each in self.view.members if each.phase.is_live}


IS_THOROUGH = os.environ.get("HYPOTHESIS_PROFILE") == "thorough"


@pytest.mark.slow
@settings(
    deadline=None,
    derandomize=not IS_THOROUGH,
    database=None,
    max_examples=3000 if IS_THOROUGH else 150,
)
@given(
    roles=st.sampled_from([Roles(worker=1), Roles(worker=3), PS]),
    policy=policies,
    blows=st.lists(blow, min_size=1, max_size=8),
)
def test_a_run_ends_within_its_budget_with_a_named_cause(
    roles: Roles, policy: RestartPolicy, blows: list[dict]
) -> None:
    story = Story(roles, policy)
    for each in blows:
        if story.phase.is_terminal:
            break
        story.hit(each)
    for _ in range(policy.max_restarts + 2):  # nothing new comes of it any more
        if not story.phase.is_terminal:
            story.hit({**blows[-1], "early": False, "step": 0})
    story.let_time_pass(*(phase for phase in RunPhase if not phase.is_terminal))
    assert story.phase is RunPhase.FAILED, "it does not end"
    failure = story.view.failure
    assert failure is not None
    assert failure.member is not None or failure.cause is Cause.GANG_INCOMPLETE
    cause = failure.cause
    is_final = policy.action(cause) is Action.FAIL or cause is Cause.TASK_FAILED
    assert is_final or story.account.is_spent, f"{failure.summary}: a restart was left"
    undone = sum("comes back at" in each.summary for each in story.view.restarts)
    assert len(story.view.restarts) + undone == story.view.restart_count


def test_a_budget_that_refills_ends_when_the_progress_does() -> None:
    policy = RestartPolicy(2, backoff=0.0)
    story = Story(Roles(worker=2), policy)
    hit = dict.fromkeys(("victim", "silent", "early", "elsewhere", "restart"), False)
    for step in (1, 2, 3, 4, 5, 5, 5, 5):
        story.hit({**hit, "who": 1, "cause": Cause.KILLED_BY_SIGNAL, "step": step})
    assert story.phase is RunPhase.FAILED
    assert story.view.restart_count == 6
