"""Whole members with GPUs: granted, claimed on the host, handed over, and given back with proof."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

from coordinator.core.gpu import LeaseState
from coordinator.core.model import Cause, MemberPhase, Proof, Roles, RunPhase
from coordinator.testing import FakeGpus, ManualClock, Serving, serving
from executor_agent.core.claim import SENTINEL
from executor_agent.gpu_claims import ClaimRefused, HostClaims
from executor_agent.member_directory import HOME_VARIABLE
from tests.integration.gpu_members import UNHURRIED, GpuMember, book, gpu, until
from tests.integration.sentinel_helpers import start_stand_in

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

Start = Callable[..., GpuMember]


@pytest.fixture
def gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeGpus:
    """This host's; for everybody whom the test starts."""
    gpus = FakeGpus(tmp_path / "gpus")
    for name, value in gpus.environ.items():
        monkeypatch.setenv(name, value)
    for name in ("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path / "home"))
    return gpus


@pytest.fixture
async def coordinator() -> AsyncIterator[Serving]:
    async with serving() as running:
        yield running


@pytest.fixture
async def member(coordinator: Serving, tmp_path: Path, gpus: FakeGpus) -> AsyncIterator[Start]:
    """Makes members, each with a run of its own."""
    made: list[GpuMember] = []

    def make(at: Serving = coordinator, **more: Any) -> GpuMember:
        made.append(GpuMember(at, tmp_path / f"run-{len(made)}", **more))
        made[-1].start()
        return made[-1]

    yield make
    for each in made:
        await each.close()


def is_claimed(gpus: FakeGpus, uuid: str) -> bool:
    """On the host, whatever any book says."""
    try:
        HostClaims(Path(gpus.environ["TFLEASE_GPU_CLAIMS"])).check_free(uuid)
    except ClaimRefused:
        return True
    return False


async def test_a_member_gets_its_gpu_and_leaves_it_free(
    coordinator: Serving, member: Start, gpus: FakeGpus, tmp_path: Path
) -> None:
    """G1, G2: by UUID; from the reservation to the proof."""
    uuid, other = gpus.add(2)
    (tmp_path / "gpu_probe.py").write_text(
        "import os\nVISIBLE = os.environ.get('CUDA_VISIBLE_DEVICES')\n"
    )
    one = member(preload=("gpu_probe",), env={"PYTHONPATH": str(tmp_path)})
    said = await one.said()
    assert said["gpus"] == [uuid]
    assert (said["visible"], said["order"]) == (uuid, "PCI_BUS_ID")
    assert said["at_import"] == "", "no import may take a GPU before it is leased"
    [link] = said["claims"].values()
    assert uuid in link
    assert said["inheritable"] == [], "no program that it starts keeps the claim"
    held = gpu(coordinator, uuid)
    assert (held.state, held.who) == (LeaseState.HELD, "worker:0")
    assert one.view().members[0].gpus == (uuid,)
    assert is_claimed(gpus, uuid)
    assert not is_claimed(gpus, other)
    renewed = held.expires_at
    assert renewed is not None
    await until(lambda: (gpu(coordinator, uuid).expires_at or 0.0) > renewed, "a renewal")

    one.let_go_on()
    report = await one.report()
    assert report.cause is Cause.COMPLETED
    [sight] = report.gpus
    assert (sight.uuid, sight.is_free, sight.holder) == (uuid, True, "")
    assert cloudpickle.loads((await one.row())["result"]) == said
    assert gpu(coordinator, uuid).state is LeaseState.FREE
    assert not is_claimed(gpus, uuid)


async def test_who_asked_for_none_sees_none(
    coordinator: Serving, member: Start, gpus: FakeGpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """G3, also when its container shows some; and its agent asks nobody."""
    gpus.add(1)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    one = member(spec=replace(UNHURRIED, gpus=Roles()))
    said = await one.said()
    assert (said["gpus"], said["visible"], said["claims"]) == ([], "", {})
    assert book(coordinator).views() == []
    assert not (gpus.folder / "claims").exists()


async def test_who_asked_for_two_where_there_is_one_is_refused(
    member: Start, gpus: FakeGpus
) -> None:
    """G4: never fewer."""
    gpus.add(1)
    one = member(spec=replace(UNHURRIED, gpus=Roles(worker=2)))
    assert "worker:0 needs 2 GPUs, but has 1" in (await one.row())["report"]


async def test_the_sentinel_s_death_frees_its_gpu_all_the_same(
    coordinator: Serving, member: Start, gpus: FakeGpus
) -> None:
    """O5: the agent sweeps, and looks at the GPU after that."""
    [uuid] = gpus.add(1)
    one = member()
    await one.said()
    one.signal(signal.SIGKILL, SENTINEL)
    report = await one.report()
    assert report.proof is Proof.SWEEP
    assert [sight.is_free for sight in report.gpus] == [True]
    assert gpu(coordinator, uuid).state is LeaseState.FREE


def leaving_a_helper(args: Any, ctx: Any) -> None:
    """A descendant that no sweep finds: a session of its own, an empty environment, none of our
    descriptors but the claim."""
    import os
    import subprocess
    import time
    from pathlib import Path

    links = {int(fd): os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")}
    [claim] = [fd for fd, link in links.items() if link.endswith(".claim")]
    helper = subprocess.Popen(
        ["/bin/sleep", "600"],
        env={},
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=(claim,),
    )
    folder = Path(args["folder"])
    (folder / "said.tmp").write_text(str(helper.pid))
    (folder / "said.tmp").rename(folder / "said")
    time.sleep(600)


async def test_a_helper_that_no_sweep_finds_keeps_the_gpu_until_it_is_gone(
    coordinator: Serving, member: Start, gpus: FakeGpus
) -> None:
    """O10: named with its pid; freed by what the next agent on the host finds."""
    [uuid] = gpus.add(1)
    one = member(main_fun=leaving_a_helper)
    helper = int(await one.said())  # type: ignore[call-overload]
    try:
        one.signal(signal.SIGKILL, SENTINEL)
        [sight] = (await one.report()).gpus
        assert not sight.is_free
        assert helper in sight.pids
        left = gpu(coordinator, uuid)
        assert left.state is LeaseState.UNPROVEN
        assert helper in left.pids
        two = member()
        assert f"{uuid} (" in await two.obstacle(str(helper))
        assert two.view().members[0].phase is MemberPhase.READY
    finally:
        with suppress(ProcessLookupError):
            os.kill(helper, signal.SIGKILL)
    assert (await two.said())["gpus"] == [uuid]


async def test_memory_that_stays_in_use_keeps_the_gpu_from_the_next(
    coordinator: Serving, member: Start, gpus: FakeGpus
) -> None:
    """O10, O11: nobody has the claim any more, but NVML names a process."""
    [uuid] = gpus.add(1)
    stranger = start_stand_in()
    try:
        one = member()
        await one.said()
        gpus.use(uuid, 5 << 30, [stranger.pid])
        one.let_go_on()
        [sight] = (await one.report()).gpus
        assert not sight.is_free
        assert sight.pids == (stranger.pid,)
        assert gpu(coordinator, uuid).state is LeaseState.UNPROVEN
        two = member()
        await two.obstacle(str(stranger.pid))
        gpus.release(uuid)
        assert (await two.said())["gpus"] == [uuid]
        assert stranger.poll() is None, "a neighbour is left alone"
    finally:
        stranger.kill()
        stranger.wait()


async def test_a_frozen_holder_keeps_its_gpu_and_is_named_until_it_stops_itself(
    member: Start, gpus: FakeGpus
) -> None:
    """O13: its lease has lapsed, and still nobody gets the GPU: its claim is as alive as it is."""
    [uuid] = gpus.add(1)
    spec = replace(UNHURRIED, liveness_ttl=60.0, fence_timeout=60.0)
    clock = ManualClock()
    async with serving(clock=clock) as frozen_out:
        one = member(at=frozen_out, spec=spec)
        await one.said()
        one.freeze()
        try:
            clock.advance(3600.0)
            assert one.view().members[0].phase is MemberPhase.FENCED
            state = gpu(frozen_out, uuid).state
            assert state in (LeaseState.UNPROVEN, LeaseState.QUARANTINED)
            two = member(at=frozen_out, spec=spec)
            obstacle = await two.obstacle(f"{one.run_id}/worker:0")
            assert two.view().members[0].phase is MemberPhase.READY
            assert uuid in obstacle
            assert is_claimed(gpus, uuid)
        finally:
            one.thaw()
        row = await one.row()
        assert '"signal": 9' in row["report"], "it was stopped"
        assert (await two.said())["gpus"] == [uuid]
        assert gpu(frozen_out, uuid).state is LeaseState.HELD
        two.let_go_on()
        await two.report()


async def test_a_lease_that_is_lost_stops_its_holder(
    coordinator: Serving, member: Start, gpus: FakeGpus
) -> None:
    """Somebody else may have it by now, as far as this coordinator knows. Who was refused tells
    nothing more: it is the next agent on the host that proves the GPU free."""
    [uuid] = gpus.add(1)
    one = member()
    await one.said()
    token = gpu(coordinator, uuid).token
    book(coordinator).lose(f"{one.run_id}/1", "worker:0", "a test", time.monotonic())
    row = await one.row()
    assert f"the lease {token}" in row["report"]
    assert gpu(coordinator, uuid).state is LeaseState.UNPROVEN
    two = member()
    assert (await two.said())["gpus"] == [uuid]


async def test_an_nvml_that_hangs_leaves_the_word_to_the_claim(
    coordinator: Serving, member: Start, gpus: FakeGpus
) -> None:
    """No answer is no proof against: claim and sweep decide, and the sight says so."""
    [uuid] = gpus.add(1)
    one = member()
    await one.said()
    gpus.hang(uuid, 600.0)
    one.let_go_on()
    [sight] = (await one.report()).gpus
    assert sight.is_free
    assert "NVML could not be asked" in sight.holder
    assert gpu(coordinator, uuid).state is LeaseState.FREE
    assert (await one.row())["result"] is not None


async def test_a_gpu_that_fails_while_it_is_held_is_not_given_to_the_next(
    coordinator: Serving, member: Start, gpus: FakeGpus
) -> None:
    [uuid] = gpus.add(1)
    one = member()
    await one.said()
    gpus.fail(uuid, "GPU is lost")
    one.let_go_on()
    report = await one.report()
    assert report.cause is Cause.COMPLETED
    assert [sight.is_free for sight in report.gpus] == [False]
    assert "GPU is lost" in gpu(coordinator, uuid).reason
    assert gpu(coordinator, uuid).state is LeaseState.UNPROVEN


async def test_two_members_of_a_run_get_different_gpus(
    coordinator: Serving, member: Start, gpus: FakeGpus
) -> None:
    """G2."""
    uuids = gpus.add(2)
    one = member(spec=replace(UNHURRIED, roles=Roles(worker=2)), wait=False)
    one.start("worker:1")
    async with asyncio.timeout(60):
        run = await coordinator.ended(one.run_id)
    assert run.phase is RunPhase.SUCCEEDED
    assert sorted(each.gpus[0] for each in run.members) == sorted(uuids)
    assert [gpu(coordinator, uuid).state for uuid in uuids] == [LeaseState.FREE] * 2


def alone(args: Any, ctx: Any) -> None:
    """Nobody else may be on this GPU meanwhile."""
    import os
    import time
    from pathlib import Path

    shared = Path(args["folder"]).parent / f"in-use-{ctx.gpus[0]}"
    os.close(os.open(shared, os.O_CREAT | os.O_EXCL))
    time.sleep(0.3)
    shared.unlink()


async def test_two_coordinators_on_a_host_never_grant_the_same_gpu(
    coordinator: Serving, member: Start, gpus: FakeGpus
) -> None:
    """G2: the host's claim decides, and the one that waits says who has it (G5)."""
    [uuid] = gpus.add(1)
    async with serving() as stranger:
        one = member()
        await one.said()
        two = member(at=stranger)
        obstacle = await two.obstacle(f"{one.run_id}/worker:0")
        assert uuid in obstacle
        one.let_go_on()
        assert (await two.said())["gpus"] == [uuid]
        assert gpu(stranger, uuid).state is LeaseState.HELD
        # The other may have taken it before the first could see it free.
        [sight] = (await one.report()).gpus
        assert sight.is_free or f"{two.run_id}/worker:0" in sight.holder
        assert not gpu(coordinator, uuid).state.is_live
        two.let_go_on()
        await two.report()


async def test_runs_of_two_coordinators_that_compete_for_one_gpu_all_get_it_in_turn(
    coordinator: Serving, member: Start, gpus: FakeGpus
) -> None:
    gpus.add(1)
    async with serving() as stranger:
        both = (coordinator, stranger, coordinator, stranger)
        runs = [member(at=each, main_fun=alone) for each in both]
        for each in runs:
            assert (await each.report()).cause is Cause.COMPLETED
