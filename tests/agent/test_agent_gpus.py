"""The agent's conduct with GPUs, on a host that the test plays."""

from __future__ import annotations

import asyncio
import os
import select
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace

import pytest

from coordinator.core.gpu import NO_GPUS, GpuOffer, GpuSight, LeaseToken
from coordinator.member_client import ClaimGpus, InspectGpus
from executor_agent.agent_gpus import AgentGpus, Host
from executor_agent.attendance import MustStop
from executor_agent.member_reports import Claimed, Inspected
from tests.agent.test_agent_config import CONFIG

A, B = "GPU-a", "GPU-b"
TWO = {A: LeaseToken("c", 1), B: LeaseToken("c", 2)}
FREE = (GpuSight(A, True), GpuSight(B, True))
BUSY = (GpuSight(A, True), GpuSight(B, False, holder="somebody", pids=(7,)))
DEADLINE = 20.0


class PlayedHost:
    """Answers as it was told. ``calls``: in order. While ``gate`` is not set, calls do not end."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.sights: tuple[GpuSight, ...] = FREE
        self.refused: tuple[GpuSight, ...] = ()
        self.broken: tuple[str, ...] = ()
        self.error: Exception | None = None
        self.gate = threading.Event()
        self.gate.set()
        self.given: list[int] = []

    def _call(self, name: str) -> None:
        self.calls.append(name)
        assert self.gate.wait(DEADLINE)
        if self.error is not None:
            raise self.error

    def offer(self) -> GpuOffer:
        self._call("offer")
        return GpuOffer(FREE)

    def inspect(
        self, uuids: Sequence[str], coordinator_id: str, number: int
    ) -> tuple[GpuSight, ...]:
        self._call(f"inspect {number}")
        return self.sights

    def claim(
        self, grants: Mapping[str, LeaseToken], who: str
    ) -> tuple[dict[str, int], tuple[GpuSight, ...]]:
        self._call("claim " + " ".join(str(token.number) for token in grants.values()))
        if self.refused:
            return {}, self.refused
        descriptors = {}
        for uuid in grants:
            read_end, descriptors[uuid] = os.pipe()
            self.given.append(read_end)
        return descriptors, ()

    def await_free(self, uuids: Sequence[str], timeout: float) -> tuple[GpuSight, ...]:
        self._call("await_free")
        return self.sights

    def lost(self, uuids: Sequence[str]) -> tuple[str, ...]:
        return self.broken

    def are_open(self) -> list[bool]:
        """Of what was given, in order: a pipe shows on its other end whether it was closed."""
        poller = select.poll()
        for each in self.given:
            poller.register(each, 0)
        closed = dict(poller.poll(0))
        return [each not in closed for each in self.given]

    def close(self) -> None:
        for each in self.given:
            os.close(each)


class Fixture:
    def __init__(self, count: int = 2) -> None:
        self.host = PlayedHost()
        self.opened = 0
        self.reports: list[Inspected | Claimed] = []
        self.complaints: list[str] = []
        self.gpus = AgentGpus(
            replace(CONFIG, gpus=count),
            report=self.reports.append,
            complain=self.complaints.append,
            open_host=self._open,
        )

    def _open(self) -> Host:
        self.opened += 1
        return self.host

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE):
            while not condition():  # noqa: ASYNC110 it is about files and threads, too
                await asyncio.sleep(0.002)

    async def claimed(self, grants: Mapping[str, LeaseToken] = TWO) -> None:
        self.gpus.obey(ClaimGpus(1, grants))
        await self.until(lambda: self.reports == [Claimed(1)])


@pytest.fixture
async def it() -> AsyncIterator[Fixture]:
    fixture = Fixture()
    yield fixture
    fixture.host.gate.set()
    fixture.host.error = None
    await fixture.gpus.end(DEADLINE)
    assert not any(fixture.host.are_open()), "a claim was kept by the agent"
    fixture.host.close()


async def test_a_member_that_asked_for_none_never_opens_nvml() -> None:
    fixture = Fixture(count=0)
    assert await fixture.gpus.offer() == NO_GPUS
    assert fixture.gpus.claimed() == {}
    fixture.gpus.handed_over()
    assert await fixture.gpus.end(1.0) == ()
    assert fixture.opened == 0


async def test_what_there_is_is_offered(it: Fixture) -> None:
    assert await it.gpus.offer() == GpuOffer(FREE)


async def test_a_host_that_cannot_be_looked_at_is_an_offer_of_none_that_says_why(
    it: Fixture,
) -> None:
    """G4."""
    it.host.error = OSError("no folder for claims")
    offer = await it.gpus.offer()
    assert offer.gpus == ()
    assert "no folder for claims" in offer.problem


async def test_what_is_claimed_is_held_and_said_with_beats_until_the_end(it: Fixture) -> None:
    assert it.gpus.tokens() == ()
    await it.claimed()
    assert it.gpus.tokens() == tuple(TWO.values())
    assert list(it.gpus.claimed()) == [A, B]
    it.gpus.handed_over()
    assert it.host.are_open() == [False, False], "the member's copies are the only ones"
    assert it.gpus.tokens() == tuple(TWO.values())
    assert await it.gpus.end(DEADLINE) == FREE
    assert it.gpus.tokens() == ()
    assert it.host.calls == ["claim 1 2", "await_free"]


async def test_after_the_end_the_lost_ones_are_known(it: Fixture) -> None:
    """O11; and who has left them free has lost none."""
    it.host.broken = ("GPU-b: NVML says 'GPU is lost'",)
    await it.claimed()
    it.gpus.handed_over()
    assert it.gpus.lost == ()
    it.host.sights = BUSY
    assert await it.gpus.end(DEADLINE) == BUSY
    assert it.gpus.lost == it.host.broken


async def test_a_claim_that_is_refused_is_answered_and_nothing_is_held(it: Fixture) -> None:
    it.host.refused = BUSY[1:]
    it.gpus.obey(ClaimGpus(3, TWO))
    await it.until(lambda: it.reports == [Claimed(3, BUSY[1:])])
    assert it.gpus.tokens() == ()
    with pytest.raises(MustStop, match="without the 2 GPUs of its role: 0 are claimed"):
        it.gpus.claimed()


async def test_a_folder_of_claims_that_cannot_be_written_refuses_all(it: Fixture) -> None:
    it.host.error = OSError(28, "No space left on device")
    it.gpus.obey(ClaimGpus(3, TWO))
    await it.until(lambda: bool(it.reports))
    [answer] = it.reports
    assert isinstance(answer, Claimed)
    assert [sight.uuid for sight in answer.refused] == [A, B]
    assert "No space left on device" in answer.refused[0].holder


@pytest.mark.parametrize("command", [ClaimGpus(2, {}), InspectGpus(9, "c", (A, B))])
async def test_what_is_taken_back_is_let_go_of(
    it: Fixture, command: ClaimGpus | InspectGpus
) -> None:
    """Also when the word that takes it back was overtaken by the one to look."""
    await it.claimed()
    it.gpus.obey(command)
    await it.until(lambda: it.host.are_open() == [False, False])
    assert it.gpus.tokens() == ()


async def test_what_is_taken_back_while_it_is_claimed_is_not_held_and_not_answered(
    it: Fixture,
) -> None:
    it.host.gate.clear()
    it.gpus.obey(ClaimGpus(1, TWO))
    await it.until(lambda: it.host.calls == ["claim 1 2"])
    it.gpus.obey(ClaimGpus(2, {}))
    it.gpus.obey(ClaimGpus(4, {A: LeaseToken("c", 8)}))
    it.host.gate.set()
    await it.until(lambda: it.reports == [Claimed(4)])
    assert it.gpus.tokens() == (LeaseToken("c", 8),)
    assert it.host.are_open() == [False, False, True]


async def test_what_is_said_again_while_it_is_claimed_is_claimed_once(it: Fixture) -> None:
    """A lost session: the token would be too old for a second claim."""
    it.host.gate.clear()
    it.gpus.obey(ClaimGpus(1, TWO))
    await it.until(lambda: it.host.calls == ["claim 1 2"])
    it.gpus.obey(ClaimGpus(1, dict(TWO)))
    it.host.gate.set()
    await it.until(lambda: it.reports == [Claimed(1), Claimed(1)])
    assert it.host.calls == ["claim 1 2"]
    assert it.host.are_open() == [True, True]
    it.gpus.handed_over()


async def test_two_mig_devices_for_one_member_are_refused(it: Fixture) -> None:
    """G4: CUDA would show the member one of them."""
    await it.claimed({"MIG-a": LeaseToken("c", 1), "MIG-b": LeaseToken("c", 2)})
    with pytest.raises(MustStop, match="no more than one MIG device"):
        it.gpus.claimed()
    it.gpus.handed_over()


async def test_the_same_gpus_under_another_token_are_claimed_anew(it: Fixture) -> None:
    """Its own old claim would be in the way."""
    await it.claimed()
    it.gpus.obey(ClaimGpus(2, {A: LeaseToken("c", 5), B: LeaseToken("c", 6)}))
    await it.until(lambda: it.reports == [Claimed(1), Claimed(2)])
    assert it.host.are_open() == [False, False, True, True]


async def test_a_command_that_is_said_again_is_answered_again_and_claims_nothing(
    it: Fixture,
) -> None:
    """A session was lost; before and after the start."""
    await it.claimed()
    it.gpus.obey(ClaimGpus(1, TWO))
    await it.until(lambda: it.reports == [Claimed(1)] * 2)
    it.gpus.handed_over()
    it.gpus.obey(ClaimGpus(1, TWO))
    assert it.reports == [Claimed(1)] * 3
    assert it.host.calls == ["claim 1 2"]


async def test_what_is_in_use_is_not_let_go_of_at_a_word(it: Fixture) -> None:
    await it.claimed()
    it.gpus.handed_over()
    it.gpus.obey(ClaimGpus(2, {}))
    assert it.gpus.tokens() == tuple(TWO.values())
    assert len(it.complaints) == 1


async def test_it_looks_until_all_are_free_and_says_what_has_changed(it: Fixture) -> None:
    it.host.sights = BUSY
    it.gpus.obey(InspectGpus(9, "c", (A, B)))
    await it.until(lambda: it.host.calls == ["inspect 9"] * 3)
    assert it.reports == [Inspected(9, BUSY)]
    it.host.sights = FREE
    await it.until(lambda: it.reports == [Inspected(9, BUSY), Inspected(9, FREE)])
    looked = len(it.host.calls)
    it.gpus.obey(InspectGpus(10, "c", (A,)))
    await it.until(lambda: it.reports[2:] == [Inspected(10, FREE)])
    assert it.host.calls[looked:] == ["inspect 10"]


async def test_the_latest_command_ends_the_older_look(it: Fixture) -> None:
    it.host.sights = BUSY
    it.gpus.obey(InspectGpus(9, "c", (A, B)))
    await it.until(lambda: it.reports == [Inspected(9, BUSY)])
    it.gpus.obey(ClaimGpus(1, TWO))
    await it.until(lambda: it.reports[1:] == [Claimed(1)])
    seen = it.host.calls.count("inspect 9")
    it.gpus.obey(InspectGpus(11, "c", (A, B)))
    await it.until(lambda: it.host.calls.count("inspect 11") == 2)
    assert it.host.calls.count("inspect 9") == seen


async def test_what_was_seen_before_the_word_that_ended_the_look_is_not_told(it: Fixture) -> None:
    it.host.gate.clear()
    it.gpus.obey(InspectGpus(9, "c", (A, B)))
    await it.until(lambda: it.host.calls == ["inspect 9"])
    it.gpus.obey(ClaimGpus(1, TWO))
    it.host.gate.set()
    await it.until(lambda: it.reports == [Claimed(1)])


async def test_a_look_that_fails_is_complained_of_once_and_goes_on(it: Fixture) -> None:
    it.host.error = RuntimeError("out of descriptors")
    it.gpus.obey(InspectGpus(9, "c", (A, B)))
    await it.until(lambda: len(it.host.calls) == 3)
    it.host.error = None
    await it.until(lambda: it.reports == [Inspected(9, FREE)])
    assert it.complaints == ["cannot see to the GPUs: out of descriptors; tries again"]


async def test_at_the_end_a_host_that_gives_no_answer_is_not_waited_for(it: Fixture) -> None:
    """Nobody knows whether they are free, and that is what is said."""
    await it.claimed()
    it.gpus.handed_over()
    it.host.gate.clear()
    began = time.monotonic()
    sights = await it.gpus.end(0.1)
    assert time.monotonic() - began < DEADLINE / 2
    assert [sight.uuid for sight in sights] == [A, B]
    assert not any(sight.is_free for sight in sights)
    assert "no answer within 0.1 s" in sights[0].holder
    it.host.gate.set()


async def test_at_the_end_a_look_that_fails_is_a_sight_that_says_so(it: Fixture) -> None:
    await it.claimed()
    it.host.error = OSError("gone")
    sights = await it.gpus.end(DEADLINE)
    assert not any(sight.is_free for sight in sights)
    assert "gone" in sights[0].holder


async def test_a_claim_under_way_at_the_end_leaves_nothing_behind(it: Fixture) -> None:
    it.host.gate.clear()
    it.gpus.obey(ClaimGpus(1, TWO))
    await it.until(lambda: it.host.calls == ["claim 1 2"])
    ending = asyncio.create_task(it.gpus.end(DEADLINE))
    await asyncio.sleep(0)
    it.host.gate.set()
    assert await ending == ()
    assert it.reports == []
    assert not any(it.host.are_open())
    it.gpus.obey(ClaimGpus(2, TWO))
    assert it.reports == []
