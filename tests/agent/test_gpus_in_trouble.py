"""GPUs that are broken, held by others, or never again as they were."""

from __future__ import annotations

from pathlib import Path

import pytest

from coordinator.testing import FakeGpus
from executor_agent import gpu_claims
from executor_agent.gpu_claims import HostClaims
from tests.agent.gpu_helpers import claimed, here


@pytest.fixture
def fake(tmp_path: Path) -> FakeGpus:
    return FakeGpus(tmp_path / "gpus")


def test_a_gpu_that_nvml_cannot_speak_of_while_it_answers_is_not_free(fake: FakeGpus) -> None:
    first, second = fake.add(2)
    fake.fail(first, "Unknown Error")
    broken, sound = here(fake).look([first, second])
    assert not broken.is_free
    assert "NVML cannot say how it is: Unknown Error; reset the GPU" in broken.holder
    assert sound.is_free
    assert [sight.uuid for sight in here(fake).offer().gpus] == [second]


def test_an_inspection_waits_for_nobody(fake: FakeGpus, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the free ones would be kept from claims while it waits for those that are held."""
    uuids = fake.add(6)
    others = here(fake)
    with claimed(here(fake), uuids[1:]):
        with monkeypatch.context() as patched:
            patched.setattr(gpu_claims, "_INTERVAL", float("nan"))  # not to be slept
            sights = others.inspect(uuids, "book", 1)
        assert [sight.is_free for sight in sights] == [True, *[False] * 5]


def test_a_gpu_that_stays_above_its_baseline_says_what_to_do(fake: FakeGpus) -> None:
    [uuid] = fake.add()
    gpus = here(fake)
    with claimed(gpus, [uuid]):
        pass
    fake.use(uuid, 200 << 20)
    [sight] = gpus.look([uuid])
    assert not sight.is_free
    folder = fake.environ[gpu_claims.VARIABLE]
    assert f"if they are to stay, remove {HostClaims(Path(folder)).path(uuid)}" in sight.holder
