"""The GPUs of a host as an agent sees them, with the fake NVML and real claims."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from coordinator.core.gpu import LeaseToken
from coordinator.testing import FakeGpus
from executor_agent.core.gpu_choice import Device
from executor_agent.fake_nvml import FakeNvml
from executor_agent.gpu_claims import HostClaims
from executor_agent.gpus import HostGpus
from executor_agent.nvml import NvmlError
from tests.agent.gpu_helpers import claimed, here, token

GIB = 1 << 30
ROOT = Path(__file__).parents[2]


@pytest.fixture
def fake(tmp_path: Path) -> FakeGpus:
    return FakeGpus(tmp_path / "gpus")


@contextmanager
def process() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as running:
        yield running


# -- what there is -------------------------------------------------------------------------


def test_the_inventory_is_offered_with_names_and_memory(fake: FakeGpus) -> None:
    """G1: a name of more than two words is a name."""
    first, second = fake.add(2)
    offer = here(fake).offer()
    assert [gpu.uuid for gpu in offer.gpus] == [first, second]
    assert all(gpu.is_free and gpu.name == "NVIDIA H100 80GB HBM3" for gpu in offer.gpus)
    assert offer.gpus[1].index == 1
    assert offer.gpus[0].memory_total == 80 * GIB
    assert (offer.is_assigned, offer.problem) == (False, "")


def test_what_spark_assigned_is_all_that_is_offered(fake: FakeGpus) -> None:
    """G6."""
    _, second = fake.add(2)
    offer = here(fake, ("1",)).offer()
    assert [gpu.uuid for gpu in offer.gpus] == [second]
    assert offer.is_assigned


def test_no_nvml_is_an_offer_with_a_problem(tmp_path: Path) -> None:
    """G4, G5."""
    gpus = HostGpus("no driver", HostClaims(tmp_path), assigned=("0",), visible=None)
    offer = gpus.offer()
    assert (offer.gpus, offer.is_assigned, offer.problem) == ((), True, "no driver")


def test_a_nvml_that_falls_silent_does_not_take_the_gpus_away(fake: FakeGpus) -> None:
    [uuid] = fake.add()
    gpus = here(fake)
    gpus.offer()
    fake.fail(error="Driver Not Loaded")
    [sight] = gpus.offer().gpus
    assert sight.uuid == uuid
    assert "Driver Not Loaded" in sight.holder


# -- looking -------------------------------------------------------------------------------


def test_a_process_that_nvml_names_is_named_while_it_lives(fake: FakeGpus) -> None:
    """G5."""
    [uuid] = fake.add()
    gpus = here(fake)
    with process() as running:
        fake.use(uuid, GIB // 2, [running.pid])
        [sight] = gpus.look([uuid])
        assert not sight.is_free
        assert sight.pids == (running.pid,)
        assert sight.holder == "a process without a claim (cat)"
    [sight] = gpus.look([uuid])  # a GiB is nobody's business before the first claim
    assert sight.is_free


def test_memory_that_nobody_is_named_for_is_in_the_way(fake: FakeGpus) -> None:
    """O10: a helper in another container holds the device."""
    [uuid] = fake.add()
    gpus = here(fake)
    fake.use(uuid, 5 * GIB)
    [sight] = gpus.look([uuid])
    assert not sight.is_free
    assert "5120 MiB" in sight.holder


def test_memory_is_compared_with_what_it_was_before_the_claim(fake: FakeGpus) -> None:
    """O10, O11."""
    [uuid] = fake.add(memory_idle=300 << 20, memory_used=300 << 20)
    gpus = here(fake)
    with claimed(gpus, [uuid]):
        pass
    fake.use(uuid, 200 << 20)
    [sight] = gpus.look([uuid])
    assert not sight.is_free
    assert "of which 300 MiB were before" in sight.holder
    fake.use(uuid, 50 << 20)
    assert gpus.look([uuid])[0].is_free


def test_what_uses_leave_behind_does_not_add_up(fake: FakeGpus) -> None:
    """O10: each a little below the limit."""
    [uuid] = fake.add()
    gpus = here(fake)
    with claimed(gpus, [uuid], 1):
        fake.use(uuid, 60 << 20)
    with claimed(gpus, [uuid], 2):
        fake.use(uuid, 120 << 20)
    assert not gpus.look([uuid])[0].is_free


def test_a_gpu_that_nvml_shows_no_more_is_not_free(fake: FakeGpus) -> None:
    """O11."""
    first, second = fake.add(2)
    gpus = here(fake)
    gpus.offer()
    fake.remove(first)
    gone, there = gpus.look([first, second])
    assert not gone.is_free
    assert gone.name  # as last seen
    assert there.is_free


@pytest.mark.parametrize("error", ["GPU is lost", "GPU requires reset"])
def test_a_gpu_that_fell_off_the_bus_is_not_free(fake: FakeGpus, error: str) -> None:
    [uuid] = fake.add()
    fake.fail(uuid, error)
    [sight] = here(fake).look([uuid])
    assert not sight.is_free
    assert error in sight.holder


@pytest.mark.parametrize("error", ["GPU is lost", "GPU requires reset"])
def test_a_gpu_is_lost_by_nvmls_word_alone(fake: FakeGpus, error: str) -> None:
    """O11: silence, or an error of another kind, proves nothing."""
    lost, gone, well, unsure = fake.add(4)
    gpus = here(fake)
    gpus.offer()
    assert gpus.lost([lost, gone, well, unsure]) == ()
    fake.fail(lost, error)
    fake.fail(unsure, "Timeout")
    fake.remove(gone)
    assert gpus.lost([lost, gone, well, unsure]) == (
        f"{lost} (NVIDIA H100 80GB HBM3): NVML says {error!r}",
        f"{gone} (NVIDIA H100 80GB HBM3): NVML shows it no more",
    )
    assert gpus.lost(["GPU-of-another-host"]) == ()
    fake.fail(error="Driver/library version mismatch")
    assert gpus.lost([lost, gone]) == ()


def test_without_nvmls_answer_the_claim_decides_and_says_so(fake: FakeGpus) -> None:
    first, second = fake.add(2)
    gpus = here(fake)
    with claimed(gpus, [second]):
        fake.fail(error="Unknown Error")
        free, held = gpus.look([first, second])
        assert free.is_free
        assert "NVML could not be asked: " in free.holder
        assert "Unknown Error" in free.holder
        assert not held.is_free
        assert held.holder.startswith("worker:0 of run r1 (user ")


def test_a_files_garbage_is_no_answer(fake: FakeGpus) -> None:
    [uuid] = fake.add()
    (fake.folder / "zz-garbage.json").write_text("{")
    [sight] = here(fake).look([uuid])
    assert sight.is_free
    assert "is no JSON" in sight.holder


def test_who_lets_go_while_nvml_answers_still_had_it(fake: FakeGpus) -> None:
    """O11: of two questions that are not one, the answers must come in the order that proves."""
    [uuid] = fake.add()
    claims = HostClaims(fake.folder / "claims")
    held = claims.claim(uuid, token(1), "worker:0 of run r1", 0)
    real = FakeNvml(fake.folder)

    class Meanwhile:
        def devices(self) -> list[Device]:
            found = real.devices()
            fake.use(uuid, 5 * GIB)  # taken after NVML has looked,
            os.close(held)  # and let go of before anybody else looks
            return found

    gpus = HostGpus(Meanwhile(), claims, assigned=None, visible=None)
    assert not gpus.look([uuid])[0].is_free


# -- a NVML that hangs ---------------------------------------------------------------------


def test_a_hanging_nvml_hangs_nobody_and_piles_up_no_threads(fake: FakeGpus) -> None:
    [uuid] = fake.add()
    fake.hang(uuid, 6)
    gpus = here(fake)
    before = threading.active_count()
    [sight] = gpus.look([uuid])
    assert sight.is_free
    assert "has not answered" in sight.holder
    for _ in range(20):
        gpus.look([uuid])
    taken, refused = gpus.claim({uuid: token(1)}, "me")
    assert not refused
    os.close(taken[uuid])
    assert threading.active_count() <= before + 1


def test_a_late_answer_is_not_taken_for_an_answer_to_a_later_question(fake: FakeGpus) -> None:
    """O11: it says how the GPU was, not how it is."""
    asked, go_on = threading.Event(), threading.Event()
    [uuid] = fake.add()
    real = FakeNvml(fake.folder)

    class Slow:
        def devices(self) -> list[Device]:
            found = real.devices()
            asked.set()
            go_on.wait(20)
            return found

    claims = HostClaims(fake.folder / "claims")
    gpus = HostGpus(Slow(), claims, assigned=None, visible=None)
    early = threading.Thread(target=gpus.look, args=([uuid],))
    early.start()
    assert asked.wait(20)
    fake.use(uuid, 5 * GIB)
    threading.Timer(0.05, go_on.set).start()
    [sight] = gpus.look([uuid])
    early.join(20)
    assert "5120 MiB" in sight.holder


def test_a_hanging_nvml_does_not_keep_the_interpreter_from_ending(fake: FakeGpus) -> None:
    [uuid] = fake.add()
    fake.hang(uuid, 1000)
    code = (
        "import os\n"
        "from executor_agent.gpus import HostGpus\n"
        f"print(HostGpus.here(None, os.environ).look([{uuid!r}])[0].holder)\n"
    )
    environ = os.environ | fake.environ
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert "has not answered" in done.stdout


# -- claiming ------------------------------------------------------------------------------


def test_all_or_nothing(fake: FakeGpus) -> None:
    """G2: nobody waits for one GPU while it keeps another."""
    first, second = fake.add(2)
    gpus, others = here(fake), here(fake)
    with claimed(others, [second]):
        taken, [refused] = gpus.claim({first: token(7), second: token(8)}, "me")
        assert not taken
        assert (refused.uuid, refused.is_free) == (second, False)
        assert refused.pids == (os.getpid(),)
    with claimed(gpus, [first, second], 9):
        pass


def test_a_busy_gpu_is_refused_and_nothing_is_written(fake: FakeGpus) -> None:
    """G2, O11: the neighbour knows nothing of claims."""
    first, second = fake.add(2)
    gpus = here(fake)
    fake.use(second, 5 * GIB)
    taken, [refused] = gpus.claim({first: token(1), second: token(2)}, "me")
    assert not taken
    assert refused.uuid == second
    fake.release(second)
    with claimed(gpus, [first, second], 3):
        pass


def test_no_grants_no_descriptors(fake: FakeGpus) -> None:
    assert here(fake).claim({}, "me") == ({}, ())


def test_a_token_that_was_seen_before_is_refused(fake: FakeGpus) -> None:
    """A delayed command of an agent that has been replaced since."""
    [uuid] = fake.add()
    gpus = here(fake)
    with claimed(gpus, [uuid], 5):
        pass
    for number in (4, 5):
        taken, [refused] = gpus.claim({uuid: token(number)}, "me")
        assert not taken
        assert "too old" in refused.holder
    with claimed(gpus, [uuid], 6):
        pass
    taken, _ = gpus.claim({uuid: LeaseToken("c2", 1)}, "another coordinator's")
    os.close(taken[uuid])


def test_an_inspection_that_finds_it_free_shuts_the_door_behind_it(fake: FakeGpus) -> None:
    """O11: what is reported free cannot be claimed with an older lease a moment later."""
    [uuid] = fake.add()
    gpus = here(fake)
    fake.use(uuid, 5 * GIB)
    assert not gpus.inspect([uuid], "c1", 10)[0].is_free
    fake.release(uuid)
    with claimed(gpus, [uuid], 9):  # what was not found free has changed nothing
        assert not gpus.inspect([uuid], "c1", 11)[0].is_free
    assert gpus.inspect([uuid], "c1", 12)[0].is_free
    assert gpus.claim({uuid: token(12)}, "too late")[1]
    with claimed(gpus, [uuid], 13):
        pass


def test_free_is_awaited_until_the_memory_is_back(fake: FakeGpus) -> None:
    """O11."""
    [uuid] = fake.add()
    gpus = here(fake)
    with claimed(gpus, [uuid]):
        pass
    with process() as running:
        fake.use(uuid, 5 * GIB, [running.pid], until_gone=True)
        assert not gpus.await_free([uuid], 0.05)[0].is_free
        killer = threading.Timer(0.05, running.kill)
        killer.start()
        [sight] = gpus.await_free([uuid], 20)
        killer.join()
    assert sight.is_free
    assert not sight.holder


def test_waiting_for_a_silent_nvml_ends_in_time_with_the_claims_word(fake: FakeGpus) -> None:
    [uuid] = fake.add()
    fake.fail(error="Driver Not Loaded")
    [sight] = here(fake).await_free([uuid], 0.1)
    assert sight.is_free
    assert "NVML could not be asked" in sight.holder


def test_a_nvml_that_falls_silent_after_a_no_has_still_said_no(fake: FakeGpus) -> None:
    """O11: a last look that has too little time must not turn it into a yes."""
    [uuid] = fake.add()
    fake.use(uuid, 5 * GIB)
    real, answered = FakeNvml(fake.folder), threading.Event()

    class Falling:
        def devices(self) -> list[Device]:
            if answered.is_set():
                raise NvmlError("silent")
            answered.set()
            return real.devices()

    gpus = HostGpus(Falling(), HostClaims(fake.folder / "claims"), assigned=None, visible=None)
    [sight] = gpus.await_free([uuid], 1.0)
    assert not sight.is_free
    assert "5120 MiB" in sight.holder


def test_nothing_to_wait_for_is_free_at_once(fake: FakeGpus) -> None:
    began_at = time.monotonic()
    assert here(fake).await_free([], 60) == ()
    assert time.monotonic() - began_at < 30
