"""A second attempt at a slot: it waits for the first, and never takes its place in Spark (R3, R4).

Spark takes the row of the attempt that returns first and kills the other one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from coordinator.core.errors import RunOver
from coordinator.core.model import Cause, ExitReport, MemberPhase, Proof, RunPhase
from coordinator.member_client import Reservation, ReservationClient
from coordinator.testing import COMPLETED, FakeExecutor, Serving, serving
from executor_agent import attendance
from tests.integration.membership import UNHURRIED, WORKER, Member

pytestmark = pytest.mark.timeout(60)

PREEMPTED = ExitReport(Cause.PREEMPTED, reason="executor died", proof=Proof.SWEEP)


class ImpatientClient(ReservationClient):
    """Asks again at once when it has to stand by."""

    def __init__(self, address: str, token: str) -> None:
        super().__init__(address, token)
        self.answers: list[Reservation] = []
        self.asked_again = asyncio.Event()
        self.told_that_it_is_over = asyncio.Event()

    async def reserve(self, *claim: Any) -> Reservation:
        try:
            answer = await super().reserve(*claim)
        except RunOver:
            self.told_that_it_is_over.set()
            raise
        self.answers.append(answer)
        if len(self.answers) == 3:
            self.asked_again.set()
        return replace(answer, retry_delay=0.01)


@dataclass
class Attempts:
    """A fake first attempt, in ``main_fun``, and a real second one that stands by."""

    coordinator: Serving
    first: FakeExecutor
    second: Member
    client: ImpatientClient = field(repr=False)


@asynccontextmanager
async def two_attempts(
    predecessor: Callable[[FakeExecutor], str] = lambda first: "",
) -> AsyncIterator[Attempts]:
    async with serving() as coordinator:
        run_id = coordinator.create_run(UNHURRIED)
        address, token = coordinator.address, coordinator.token
        async with FakeExecutor(address, token, run_id, WORKER) as first:
            await first.reserve()
            await first.attend(beating=False)
            client = ImpatientClient(address, token)
            second = Member(address, token, run_id, client=client, predecessor=predecessor(first))
            try:
                await client.asked_again.wait()
                assert not any(answer.is_granted for answer in client.answers)
                assert not second.membership.is_reserved
                yield Attempts(coordinator, first, second, client)
            finally:
                await second.close()


async def complete(first: FakeExecutor) -> None:
    await first.ready()
    await first.started()
    await first.enter()
    await first.end(COMPLETED)


async def test_a_second_attempt_stands_by_until_the_first_is_proven_gone() -> None:
    """R3, R4: speculation, and the retry of a task that was lost."""
    async with two_attempts() as attempts:
        await attempts.first.end(PREEMPTED)
        view = await attempts.coordinator.until(
            attempts.first.run_id, lambda run: run.members[0].incarnation == "attempt-1"
        )
        assert view.members[0].phase is MemberPhase.RESERVED


async def test_who_stood_by_to_the_end_of_the_run_lets_the_first_attempt_return_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """R4: told that the run is over, it stays where it is; Spark, or its patience, ends it."""
    monkeypatch.setattr(attendance, "_YIELDING_SECONDS", 1000.0)
    async with two_attempts() as attempts:
        await complete(attempts.first)
        run = await attempts.coordinator.ended(attempts.first.run_id)
        assert run.phase is RunPhase.SUCCEEDED
        await attempts.client.told_that_it_is_over.wait()
        # It would take a few turns of the loop to give up; this is thousands of them.
        done, _ = await asyncio.wait((attempts.second.running,), timeout=0.2)
        assert not done


async def test_who_stood_by_gives_up_when_nobody_has_ended_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """R4: the first attempt's host may be gone, row and all; the task must end all the same."""
    monkeypatch.setattr(attendance, "_YIELDING_SECONDS", 0.05)
    async with two_attempts() as attempts:
        await complete(attempts.first)
        assert "is succeeded: nothing to join" in await attempts.second.must_stop()
        assert attempts.client.told_that_it_is_over.is_set()


async def test_who_never_stood_by_gives_up_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """R3: a retry that finds the run over has no row to lose against: nothing is to be waited
    for, and the owner waits for the task."""
    monkeypatch.setattr(attendance, "_YIELDING_SECONDS", 1000.0)
    async with serving() as coordinator:
        run_id = coordinator.create_run(UNHURRIED)
        address, token = coordinator.address, coordinator.token
        async with FakeExecutor(address, token, run_id, WORKER) as first:
            await first.reserve()
            await first.attend(beating=False)
            await complete(first)
        late = Member(address, token, run_id)
        try:
            assert "nothing to join" in await late.must_stop()
        finally:
            await late.close()


async def test_who_stood_by_for_its_own_predecessor_leaves_nothing_to_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Both are attempts of one Spark task, which returns one row; for an attempt of another task it
    is as ever."""
    monkeypatch.setattr(attendance, "_YIELDING_SECONDS", 1000.0)
    async with two_attempts(lambda first: first.incarnation) as attempts:
        await complete(attempts.first)
        assert "nothing to join" in await attempts.second.must_stop()
    async with two_attempts(lambda first: f"{first.incarnation}-of-another-task") as attempts:
        await complete(attempts.first)
        await attempts.client.told_that_it_is_over.wait()
        done, _ = await asyncio.wait((attempts.second.running,), timeout=0.2)
        assert not done


async def test_a_slot_that_is_granted_is_told_once() -> None:
    async with two_attempts() as attempts:
        assert not attempts.second.reserved.is_set()
        await attempts.first.end(PREEMPTED)
        await attempts.second.reserved.wait()
        assert attempts.second.membership.is_reserved
