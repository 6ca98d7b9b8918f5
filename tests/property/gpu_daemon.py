"""A coordinator that keeps what it decides on a disk, in a world of hosts and agents
(``gpu_world``): what it tells them and when, and how it is started again."""

from __future__ import annotations

import random
from collections.abc import Callable

from coordinator.core import effects, events
from coordinator.core.errors import TfleaseError
from coordinator.core.machine import Machine
from coordinator.core.model import RunId, RunPhase
from tests.property.gpu_world import Agent, Gpu, Host
from tests.property.restarts import Disk, restarted


class Daemon:
    """Judges each grant by what is really on the hosts."""

    def __init__(self, seed: int) -> None:
        self.choose = random.Random(seed)
        self.machine = Machine("book", durable=True)
        self.disk = Disk()
        self.is_disk_slow = False
        self.unsaid: list[Callable[[], None]] = []  # until what it rests on is on the disk
        self.now = 0.0
        self.hosts = [Host("x", 2), Host("y", 2)]
        self.agents: list[Agent] = []
        self.runs: dict[RunId, list[Host]] = {}
        self.grants = 0
        self.last = {uuid: 0 for host in self.hosts for uuid in host.gpus}
        self.written_last = self.last

    # -- the coordinator -------------------------------------------------------------------

    def feed(self, event: events.Event) -> bool:
        """Whether it was accepted."""
        try:
            done = self.machine.handle(event, self.now)
        except TfleaseError:
            return False
        finally:
            self.machine.check_invariants()
            self.judge()
        for effect in done:
            if isinstance(effect, effects.Command):
                self.say(lambda command=effect: self.send(command))  # type: ignore[misc]
        return True

    def send(self, command: effects.Command) -> None:
        for agent in self.agents:
            if agent.who[2] == command.incarnation and not agent.is_gone:
                agent.down.append(command)

    def say(self, word: Callable[[], None]) -> None:
        """Nothing leaves the coordinator before what it rests on is on the disk."""
        self.unsaid.append(word)
        if not self.is_disk_slow:
            self.write()

    def write(self) -> None:
        self.disk.write(self.machine)
        self.written_last = dict(self.last)
        words, self.unsaid = self.unsaid, []
        for word in words:
            word()

    def judge(self) -> None:
        """A token that is new is a grant: at that moment nothing of ours may be there."""
        for view in self.machine.book.views():
            if view.token is None or view.token.number == self.last[view.uuid]:
                continue
            assert view.token.number > self.last[view.uuid], "a token that is not younger"
            self.last[view.uuid] = view.token.number
            self.grants += 1
            gpu = self.gpu(view.uuid)
            users = [user.name for user in gpu.users if user.is_ours]
            assert not users, f"{view.uuid} was granted to {view.who}, and {users} use it"

    def gpu(self, uuid: str) -> Gpu:
        return next(host.gpus[uuid] for host in self.hosts if uuid in host.gpus)

    def deliver(self, agent: Agent, index: int = 0) -> None:
        sent_at, event = agent.up.pop(index)
        if not self.feed(event):
            self.say(lambda: self.refuse(agent))
        elif isinstance(event, events.Heard):  # also while the disk is slow
            agent.acknowledged_at = max(agent.acknowledged_at, sent_at)
        else:
            self.say(lambda: self.acknowledge(agent, sent_at, event))

    def acknowledge(self, agent: Agent, sent_at: float, event: events.Event) -> None:
        agent.acknowledged_at = max(agent.acknowledged_at, sent_at)
        if isinstance(event, events.ReservationRequested):
            agent.is_admitted = True

    def refuse(self, agent: Agent) -> None:
        """Any refusal ends the session, and the agent stops."""
        agent.must_stop = True
        agent.look_at_the_clock()

    def reconnect(self, agent: Agent) -> None:
        agent.down.clear()
        agent.up.clear()
        if agent.report is not None:
            agent.say(agent.report)
            return
        agent.say(events.SessionOpened(*agent.who))
        agent.say(events.ProcessReady(*agent.who))
        if agent.generation:
            agent.say(events.MainEntered(*agent.who, agent.generation))

    def live(self) -> list[Agent]:
        return [agent for agent in self.agents if agent.is_alive]

    def the_disk_gets_slow(self) -> None:
        self.is_disk_slow = True

    def the_disk_is_fast_again(self) -> None:
        self.is_disk_slow = False
        self.write()

    def the_coordinator_restarts(self) -> None:
        """In good order: all is written and said before. Its machine is the same afterwards."""
        self.write()
        self.is_away()
        self.machine = restarted(self.machine, self.disk, self.now)
        self.comes_back()

    def the_coordinator_is_killed(self) -> None:
        """What it had not written has never been: nobody was told."""
        self.unsaid.clear()
        self.last = dict(self.written_last)
        self.is_away()
        self.machine = self.disk.start(self.now)
        self.comes_back()

    def is_away(self) -> None:
        self.now += self.choose.choice([0.5, 5.0, 50.0, 200.0])
        for agent in self.live():
            agent.look_at_the_clock()

    def comes_back(self) -> None:
        self.is_disk_slow = False
        self.judge()
        for agent in self.live():
            if agent.is_admitted or agent.is_gone:
                self.reconnect(agent)
            else:  # it has had no answer, and asks again
                agent.up.clear()
                agent.say(agent.reservation())
                self.deliver(agent)
                self.reconnect(agent)

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        for agent in self.live():
            agent.look_at_the_clock()
        for _ in range(4):
            self.feed(events.TimePassed())
            if self.machine.next_deadline() > self.now:
                return
        raise AssertionError("the deadline does not move: the engine would spin")

    def phase(self, run_id: RunId) -> RunPhase:
        return self.machine.phase(run_id)
