"""GPUs through crashes, pauses, lost, late and reordered messages: no double grant, no grant of a
GPU that is not proven free (O10, O11, G2), and nobody waits for ever.

TFLEASE_HISTORIES=10000 looks at so many histories, other ones each time.
"""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st

from coordinator.core import events
from coordinator.core.model import (
    Cause,
    ExitReport,
    MemberPhase,
    Roles,
    RunId,
    RunPhase,
    RunSpec,
)
from tests.property.gpu_daemon import Daemon
from tests.property.gpu_world import FENCE_TIMEOUT, Agent, User

HISTORIES = int(os.environ.get("TFLEASE_HISTORIES", "0"))
ASIDE = "put aside by an operator"
FAIR = 600
"""Seconds within which everything must have come right, once nothing goes wrong any more."""


class History(Daemon):
    """One coordinator, two hosts with two GPUs each, some runs, and whatever happens to them."""

    # -- what happens ----------------------------------------------------------------------

    def one(self, agents: list[Agent]) -> Agent | None:
        return self.choose.choice(agents) if agents else None

    def a_run_comes(self) -> None:
        if len(self.runs) >= 5:
            return
        run_id = RunId(f"run{len(self.runs)}")
        workers, count = self.choose.choice([(1, 1), (2, 1), (2, 2), (1, 2), (2, 1)])
        first = self.choose.randrange(2)
        apart = count == 2 or self.choose.random() < 0.5
        self.runs[run_id] = [self.hosts[(first + n * apart) % 2] for n in range(workers)]
        spec = RunSpec(
            Roles(worker=workers),
            gpus=Roles(worker=count),
            reservation_timeout=5000.0,
            fence_timeout=FENCE_TIMEOUT,
        )
        self.feed(events.RunCreated(run_id, spec))
        self.write()  # its owner launches its members after it was answered
        self.members_join()

    def members_join(self) -> None:
        """Spark has a task for every slot that nobody holds."""
        for run_id, hosts in self.runs.items():
            run = self.machine.view(run_id, self.now)
            for member, host in zip(run.members, hosts, strict=True):
                vacant = member.phase in (MemberPhase.EXPECTED, MemberPhase.FENCED)
                if run.phase is RunPhase.FORMING and vacant:
                    name = f"{run_id}/{member.id}/{len(self.agents)}"
                    count = run.spec.gpus.worker
                    agent = Agent(run_id, member.id, name, host, count, lambda: self.now)
                    self.agents.append(agent)
                    agent.say(agent.reservation())
                    self.deliver(agent)
                    agent.say(events.SessionOpened(*agent.who))
                    agent.say(events.ProcessReady(*agent.who))

    def a_message_arrives(self) -> None:
        agent = self.one([agent for agent in self.agents if agent.up])
        if agent is not None:
            self.deliver(agent, self.choose.randrange(len(agent.up)))

    def a_message_is_lost(self) -> None:
        agent = self.one([agent for agent in self.agents if agent.up])
        if agent is not None:
            agent.up.pop(self.choose.randrange(len(agent.up)))

    def a_message_comes_twice(self) -> None:
        agent = self.one([agent for agent in self.agents if agent.up])
        if agent is not None:
            agent.up.append(self.choose.choice(agent.up))

    def the_worst_old_messages_arrive(self) -> None:
        """However long ago they were sent: all that call a GPU free which one of ours uses now."""
        for agent in self.agents:
            for sent_at, event in list(agent.said):
                if not isinstance(event, events.GpusInspected):
                    continue
                free = [sight.uuid for sight in event.sights if sight.is_free]
                if any(user.is_ours for uuid in free for user in self.gpu(uuid).users):
                    agent.up.append((sent_at, event))
                    self.deliver(agent, -1)

    def a_command_arrives(self) -> None:
        able = [agent for agent in self.live() if agent.down and not agent.is_paused]
        agent = self.one(able)
        if agent is not None:
            agent.obey(agent.down.pop(self.choose.randrange(len(agent.down))))

    def a_session_is_lost(self) -> None:
        agent = self.one(self.live())
        if agent is not None:
            self.reconnect(agent)

    def all_goes_well_for_a_moment(self) -> None:
        for _ in range(3):
            for agent in self.agents:
                if not agent.is_paused:
                    agent.beat()
                    agent.look()
                while agent.up:
                    self.deliver(agent)
                while agent.down and agent.is_alive and not agent.is_paused:
                    agent.obey(agent.down.pop(0))

    def somebody_beats(self) -> None:
        agent = self.one(self.live())
        if agent is not None:
            agent.beat()

    def somebody_looks(self) -> None:
        agent = self.one(self.live())
        if agent is not None:
            agent.look()

    def an_agent_freezes(self) -> None:
        agent = self.one(self.live())
        if agent is not None:
            agent.is_paused = True

    def agents_thaw(self) -> None:
        for agent in self.live():
            agent.is_paused = False
            agent.look_at_the_clock()

    def leftover(self) -> User | None:
        return User("leftover", is_ours=True) if self.choose.random() < 0.5 else None

    def an_agent_crashes(self) -> None:
        agent = self.one(self.live())
        if agent is not None:
            agent.crash(self.leftover())

    def a_member_ends(self) -> None:
        agent = self.one([agent for agent in self.live() if not agent.is_paused])
        if agent is not None:
            cause = self.choose.choice([Cause.COMPLETED, Cause.USER_EXCEPTION, Cause.PREEMPTED])
            agent.end(cause, self.leftover(), looks=self.choose.random() < 0.7)

    def a_task_returns(self) -> None:
        """Spark brings the sentinel's report, which has not looked at GPUs."""
        agent = self.one([agent for agent in self.agents if agent.report is not None])
        if agent is not None and agent.report is not None:
            report = ExitReport(agent.report.report.cause)
            self.feed(events.TaskReturned(*agent.who, report))

    def leftovers_go(self) -> None:
        for host in self.hosts:
            for gpu in host.gpus.values():
                gpu.users = {user for user in gpu.users if user.name != "leftover"}
                if isinstance(gpu.claim, User) and gpu.claim.name == "leftover":
                    gpu.claim = None

    def a_host_starts_again(self) -> None:
        host = self.choose.choice(self.hosts)
        for agent in self.live():
            if agent.host is host:
                agent.host_went()
        host.restart()

    def another_application_comes(self) -> None:
        """With a claim, or without: not everybody knows of them."""
        gpu = self.choose.choice([g for host in self.hosts for g in host.gpus.values()])
        if gpu.claim is None and not gpu.users:
            stranger = User("stranger", is_ours=False)
            gpu.users.add(stranger)
            gpu.claim = stranger if self.choose.random() < 0.5 else None

    def strangers_go(self) -> None:
        for host in self.hosts:
            for gpu in host.gpus.values():
                gpu.users = {user for user in gpu.users if user.is_ours}
                if isinstance(gpu.claim, User) and not gpu.claim.is_ours:
                    gpu.claim = None

    def somebody_stops_a_run(self) -> None:
        if self.runs and self.choose.random() < 0.4:
            self.feed(events.StopRequested(self.choose.choice(list(self.runs)), "enough"))

    def an_operator_acts(self) -> None:
        """Clears what is really free, or puts something aside."""
        for view in self.machine.book.views():
            gpu = self.gpu(view.uuid)
            is_live = self.machine.book.view(view.uuid).state.is_live  # since the one before
            if is_live or self.choose.random() < 0.5:
                continue
            if not gpu.users and gpu.claim is None:
                self.machine.book.clear(view.uuid, "I looked", self.now)
            else:
                self.machine.book.quarantine(view.uuid, ASIDE, self.now)
            self.feed(events.TimePassed())

    def time_passes(self) -> None:
        self.pass_time(self.choose.choice([0.5, 3.0, 3.0, 16.0, 61.0, 121.0, 145.0]))

    def the_coordinator_pauses(self) -> None:
        away = self.choose.choice([5.0, 50.0, 200.0])
        self.now += away
        for agent in self.live():
            agent.look_at_the_clock()
        self.feed(events.CoordinatorPaused(away))

    # -- and the end ---------------------------------------------------------------------------

    def everything_comes_right(self) -> None:
        """Nothing goes wrong any more: every gang gets its GPUs, and gives them back."""
        self.the_disk_is_fast_again()
        self.agents_thaw()
        self.leftovers_go()
        self.strangers_go()
        for agent in self.agents:
            agent.up.clear()
        for agent in self.live():
            self.reconnect(agent)
        innocent = {run_id for run_id in self.runs if self.phase(run_id) is RunPhase.FORMING}
        innocent -= {agent.who[0] for agent in self.agents if agent.report or agent.must_stop}
        innocent -= {agent.who[0] for agent in self.agents if self.is_missed(agent)}
        started_at: dict[RunId, float] = {}
        until = self.now + FAIR
        while self.now < until and not all(self.phase(run).is_terminal for run in self.runs):
            self.members_join()
            self.all_goes_well_for_a_moment()
            self.operators_clear()
            for run_id in self.runs:
                if self.phase(run_id) is RunPhase.RUNNING:
                    started_at.setdefault(run_id, self.now)
            for agent in self.live():
                if self.now - started_at.get(agent.who[0], self.now) > 5.0:
                    agent.end(Cause.COMPLETED)
            self.pass_time(1.0)
        for run_id in self.runs:
            view = self.machine.view(run_id, self.now)
            assert view.phase.is_terminal, f"{run_id} waits: {view.diagnosis}"
            if run_id in innocent:
                assert view.failure is None, f"{run_id} did not get its GPUs: {view.failure}"
        assert self.machine.book.holders() == {}, "a lease that nobody gives back"

    def is_missed(self, agent: Agent) -> bool:
        """Gone without a word: the gang may start with it, and then lose it."""
        members = self.machine.view(agent.who[0], self.now).members
        return not agent.is_alive and agent.who[2] in [each.incarnation for each in members]

    def operators_clear(self) -> None:
        """What they have put aside themselves; all else must come back without them."""
        for view in self.machine.book.views():
            gpu = self.gpu(view.uuid)
            if view.reason == ASIDE and not gpu.users and gpu.claim is None:
                self.machine.book.clear(view.uuid, "repaired", self.now)
        self.feed(events.TimePassed())


WEIGHTS = {
    History.a_run_comes: 3,
    History.members_join: 2,
    History.a_message_arrives: 8,
    History.a_command_arrives: 6,
    History.all_goes_well_for_a_moment: 6,
    History.a_message_is_lost: 1,
    History.a_message_comes_twice: 1,
    History.the_worst_old_messages_arrive: 4,
    History.a_session_is_lost: 2,
    History.somebody_beats: 3,
    History.somebody_looks: 2,
    History.an_agent_freezes: 2,
    History.agents_thaw: 2,
    History.an_agent_crashes: 1,
    History.a_member_ends: 2,
    History.a_task_returns: 1,
    History.leftovers_go: 1,
    History.a_host_starts_again: 1,
    History.another_application_comes: 1,
    History.strangers_go: 1,
    History.somebody_stops_a_run: 1,
    History.an_operator_acts: 1,
    History.time_passes: 4,
    History.the_coordinator_pauses: 1,
    History.the_disk_gets_slow: 2,
    History.the_disk_is_fast_again: 1,
    History.the_coordinator_restarts: 1,
    History.the_coordinator_is_killed: 2,
}
STEPS = [step for step, weight in WEIGHTS.items() for _ in range(weight)]


@pytest.mark.timeout(3600 if HISTORIES else 300)
@settings(
    deadline=None,
    derandomize=not HISTORIES,
    database=None,
    max_examples=HISTORIES or 200,
    suppress_health_check=list(HealthCheck),
    report_multiple_bugs=False,
    phases=[Phase.generate] if HISTORIES else [Phase.generate, Phase.shrink],
)
@given(st.integers(0, 2**32), st.lists(st.sampled_from(STEPS), min_size=20, max_size=80))
def test_no_history_ends_in_a_double_grant_or_in_waiting_for_ever(
    seed: int, steps: list[object]
) -> None:
    history = History(seed)
    history.a_run_comes()
    history.a_run_comes()
    for step in steps:
        note(step.__name__)  # type: ignore[attr-defined]
        step(history)  # type: ignore[operator]
    history.everything_comes_right()
