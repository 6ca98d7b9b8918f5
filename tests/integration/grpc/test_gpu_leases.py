"""Runs of fake members that get their GPUs, through real gRPC."""

from __future__ import annotations

import asyncio

import pytest

from coordinator.core import events
from coordinator.core.errors import (
    ExecutorUnfit,
    LeaseLost,
)
from coordinator.core.gpu import LeaseState
from coordinator.core.lease_entry import REVOKE_AFTER
from coordinator.core.model import Endpoint, MemberPhase, Roles, RunPhase, RunSpec
from coordinator.gpu_client import GpuClient
from coordinator.testing import (
    COMPLETED,
    FakeExecutor,
    FakeFleet,
    FakeGang,
    FakeHost,
    ManualClock,
    Script,
    Serving,
    drive,
)
from tests.integration.grpc import raw
from tests.integration.grpc.gpu_scene import (
    LONE,
    ONE_EACH,
    gang_on,
    gpus_of,
    said,
    waits_for_a_gpu,
)

pytestmark = pytest.mark.timeout(60)


async def test_each_member_gets_a_gpu_of_its_own_until_its_end(
    coordinator: Serving, gpus: GpuClient
) -> None:
    """G2: one holder for each GPU."""
    async with gang_on(coordinator, FakeHost("GPU-a", "GPU-b"), ONE_EACH) as gang:
        await gang.form()
        mine = [set(executor.gpus) for executor in gang]
        assert sorted(map(len, mine)) == [1, 1]
        assert mine[0] | mine[1] == {"GPU-a", "GPU-b"}
        held = await gpus_of(gpus)
        for executor in gang:
            [(uuid, token)] = executor.gpus.items()
            gpu = held[uuid]
            assert (gpu.state, gpu.token) == (LeaseState.HELD, token)
            assert (gpu.who, gpu.holder) == (str(executor.member), f"run {gang.run_id} (mnist)")
            assert gpu.expires_at is not None
        view = coordinator.view(gang.run_id)
        assert [set(member.gpus) for member in view.members] == mine
        await gang.enter()
        await gang.finish()
        assert (await coordinator.ended(gang.run_id)).phase is RunPhase.SUCCEEDED
    assert {gpu.state for gpu in (await gpus_of(gpus)).values()} == {LeaseState.FREE}


async def test_a_role_that_asks_for_none_gets_none(coordinator: Serving) -> None:
    """G3."""
    spec = RunSpec(Roles(worker=1, ps=1), gpus=Roles(worker=1))
    async with gang_on(coordinator, FakeHost("GPU-a", "GPU-b"), spec) as gang:
        await gang.form()
        assert len(gang["worker:0"].gpus) == 1
        assert not gang["ps:0"].gpus


async def test_asked_for_two_a_member_with_one_is_refused(coordinator: Serving) -> None:
    """G4: never fewer."""
    spec = RunSpec(Roles(worker=1), gpus=Roles(worker=2))
    async with gang_on(coordinator, FakeHost("GPU-a"), spec) as gang:
        with pytest.raises(ExecutorUnfit, match=r"worker:0 needs 2 GPUs, but has 1 on"):
            await gang["worker:0"].reserve()


async def test_of_two_runs_that_want_the_last_gpu_the_second_waits_for_the_first(
    coordinator: Serving,
) -> None:
    """G5: it says who has it, from the first moment on."""
    host = FakeHost("GPU-a")
    async with gang_on(coordinator, host) as first, gang_on(coordinator, host) as second:
        await first.form()
        forming = asyncio.create_task(second.form())
        view = await coordinator.until(second.run_id, waits_for_a_gpu)
        assert f"held by worker:0 of run {first.run_id}" in view.diagnosis[0]
        assert not second["worker:0"].gpus
        await first.enter()
        await first.finish()
        await forming
        assert host.users == {"GPU-a": second["worker:0"].incarnation}
        await second.enter()
        await second.finish()


async def test_a_run_that_is_stopped_while_it_waits_leaves_the_queue(coordinator: Serving) -> None:
    host = FakeHost("GPU-a")
    async with (
        gang_on(coordinator, host) as first,
        gang_on(coordinator, host) as second,
        gang_on(coordinator, host) as third,
    ):
        await first.form()
        waiting = asyncio.create_task(second.form())
        await coordinator.until(second.run_id, waits_for_a_gpu)
        forming = asyncio.create_task(third.form())
        view = await coordinator.until(third.run_id, waits_for_a_gpu)
        coordinator.engine.feed(events.StopRequested(second.run_id, "enough"))
        await second["worker:0"].told_to_stop()
        await first.enter()
        await first.finish()
        await forming
        assert host.users == {"GPU-a": third["worker:0"].incarnation}
        assert view.phase is RunPhase.FORMING
        waiting.cancel()
        await asyncio.wait([waiting])


async def test_who_uses_a_gpu_without_asking_is_named_until_it_has_gone(
    coordinator: Serving,
) -> None:
    """G5: the agent looks, and looks again; only then it is granted."""
    host = FakeHost("GPU-a")
    host.occupy("GPU-a", "somebody's notebook", 4711)
    async with gang_on(coordinator, host) as gang:
        forming = asyncio.create_task(gang.form())
        view = await coordinator.until(gang.run_id, waits_for_a_gpu)
        assert "in use by somebody's notebook (pid 4711)" in view.diagnosis[0]
        host.vacate("GPU-a")
        await forming
        assert set(gang["worker:0"].gpus) == {"GPU-a"}


async def test_when_one_host_refuses_the_claim_the_gang_gives_all_back_and_asks_again(
    coordinator: Serving, gpus: GpuClient
) -> None:
    """An application that has another coordinator was faster, after our member had looked."""
    first, second = FakeHost("GPU-a", name="one"), FakeHost("GPU-b", name="two")
    run_id = coordinator.create_run(ONE_EACH)
    async with FakeGang(
        coordinator.address,
        coordinator.token,
        run_id,
        ONE_EACH.roles,
        hosts={"worker:0": first, "worker:1": second},
    ) as gang:
        for number, executor in enumerate(gang):
            executor.endpoint = Endpoint(f"10.0.0.{number}", 2222)
            await executor.reserve()
            await executor.attend()
        second.occupy("GPU-b", "another application", 4711)
        for executor in gang:
            await executor.ready()
        await coordinator.until(run_id, lambda view: said("in use by another app", view))
        gpus = await gpus_of(gpus)
        assert gpus["GPU-a"].state is LeaseState.FREE, "nobody waits for one and keeps another"
        second.vacate("GPU-b")
        for executor in gang:
            await executor.started()
        assert [set(executor.gpus) for executor in gang] == [{"GPU-a"}, {"GPU-b"}]


async def test_a_gpu_that_something_is_left_on_is_not_granted_before_it_is_free(
    coordinator: Serving, gpus: GpuClient
) -> None:
    """O10, O11: unproven, and named; the next agent on that host finds it free."""
    host = FakeHost("GPU-a")
    run = await drive(coordinator, LONE, {"worker:0": Script(keeps_gpus=True)}, hosts=host)
    assert run.phase is RunPhase.SUCCEEDED
    [left] = (await gpus_of(gpus)).values()
    assert left.state is LeaseState.UNPROVEN
    assert left.reason == host.users["GPU-a"]
    async with gang_on(coordinator, host) as gang:
        forming = asyncio.create_task(gang.form())
        view = await coordinator.until(gang.run_id, waits_for_a_gpu)
        assert "is unproven" in view.diagnosis[0]
        assert run.run_id in view.diagnosis[0], "whose it was last"
        host.vacate("GPU-a")
        await forming
        assert set(gang["worker:0"].gpus) == {"GPU-a"}
    assert any("not proven free" in event.text for event in coordinator.engine.gpus.events)
    assert any("found free" in event.text for event in coordinator.engine.gpus.events)


async def test_a_lost_session_does_not_lose_the_grant(coordinator: Serving) -> None:
    """Commands are said again to whoever attends again."""
    host = FakeHost("GPU-a")
    async with gang_on(coordinator, host) as gang:
        worker = gang["worker:0"]
        worker.conduct.follow(Script(answers_for_gpus=False))
        await worker.reserve()
        await worker.attend()
        await worker.ready()
        await coordinator.until(gang.run_id, lambda view: bool(view.members[0].gpus))
        assert not worker.gpus, "the command was lost with the session"
        worker.conduct.follow(Script())
        await worker.attend()
        await worker.started()
        assert set(worker.gpus) == {"GPU-a"}


async def test_a_lapsed_lease_ends_the_session_of_whoever_renews_it(
    timeless: Serving, clock: ManualClock, timeless_gpus: GpuClient
) -> None:
    """The stop that a zombie meets: its beats counted, its lease did not."""
    host = FakeHost("GPU-a")
    async with gang_on(timeless, host, beating=False) as gang:
        worker = gang["worker:0"]
        await gang.form()
        await gang.enter()
        tokens = worker.conduct.tokens()
        worker.conduct.follow(Script(renews_gpus=False))
        await gang.pass_time(clock, gang_ttl(timeless, gang) + REVOKE_AFTER + 1)
        [gpu] = (await gpus_of(timeless_gpus)).values()
        assert gpu.state is LeaseState.UNPROVEN
        worker.conduct.follow(Script())
        with pytest.raises(LeaseLost, match=str(tokens[0])):
            await worker.beat()
        assert host.users, "and only its own end frees the GPU"


async def test_a_member_that_is_not_heard_of_frees_nothing(
    timeless: Serving, clock: ManualClock, timeless_gpus: GpuClient
) -> None:
    """O11: time proves nothing; the next agent on the host finds the claim held."""
    host = FakeHost("GPU-a")
    async with gang_on(timeless, host, beating=False) as gang:
        await gang.form()
        await gang.enter()
        await gang["worker:0"].drop()
        clock.advance(200)
        assert (await timeless.ended(gang.run_id)).members[0].phase is MemberPhase.FENCED
        [gpu] = (await gpus_of(timeless_gpus)).values()
        assert gpu.state in (LeaseState.UNPROVEN, LeaseState.QUARANTINED)
        async with gang_on(timeless, host, beating=False) as second:
            forming = asyncio.create_task(second.form())
            await timeless.until(second.run_id, waits_for_a_gpu)
            holder = gang["worker:0"].incarnation
            await raw.becomes_true(lambda: said(holder, timeless.view(second.run_id)))
            assert not second["worker:0"].gpus
            host.vacate("GPU-a")  # thawed, the old holder has stopped itself
            await forming
            assert second["worker:0"].gpus


async def test_scripts_with_gpus_travel_to_client_processes(coordinator: Serving) -> None:
    run_id = coordinator.create_run(ONE_EACH)
    scripts = {f"worker:{i}": Script(gpus=(f"GPU-{i}",)) for i in range(2)}
    async with FakeFleet(
        coordinator.address, coordinator.token, run_id, ONE_EACH.roles, scripts=scripts, processes=2
    ) as fleet:
        outcomes = await fleet.live()
    for i in range(2):
        report = outcomes[f"worker:{i}"].report
        assert report is not None
        assert [(gpu.uuid, gpu.is_free) for gpu in report.gpus] == [(f"GPU-{i}", True)]
    assert (await coordinator.ended(run_id)).phase is RunPhase.SUCCEEDED


async def test_an_older_attempt_cannot_renew_what_it_no_longer_holds(coordinator: Serving) -> None:
    """The tokens of another run, and of nobody, end the session, too."""
    host = FakeHost("GPU-a")
    async with gang_on(coordinator, host) as first, gang_on(coordinator, host) as second:
        await first.form()
        stale = first["worker:0"].gpus.copy()
        await first.enter()
        await first["worker:0"].end(COMPLETED)
        await coordinator.ended(first.run_id)
        await second.form()
        second["worker:0"].conduct.held = stale
        with pytest.raises(LeaseLost):
            await second["worker:0"].beat()


def gang_ttl(coordinator: Serving, gang: FakeGang) -> float:
    return coordinator.view(gang.run_id).spec.fence_timeout


async def test_an_executor_without_a_host_offers_no_gpus(coordinator: Serving) -> None:
    run_id = coordinator.create_run(LONE)
    async with FakeExecutor(coordinator.address, coordinator.token, run_id, "worker:0") as worker:
        with pytest.raises(ExecutorUnfit, match="needs 1 GPU, but has 0"):
            await worker.reserve()
