"""`make gpu-check` goes through all of its motions without a GPU, and then writes no number."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import gpu_check
from coordinator.testing import FakeGpus


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeGpus:
    fake = FakeGpus(tmp_path / "gpus")
    for name, value in fake.environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(gpu_check, "DOCUMENT", tmp_path / "document.md")
    return fake


@pytest.mark.slow
def test_every_kind_of_round_ends_with_the_gpu_granted_again(
    fake: FakeGpus, capfd: pytest.CaptureFixture[str]
) -> None:
    """O10, O11, G5: real processes, claims and leases; only NVML is played."""
    fake.add()
    assert gpu_check.main(["--rounds", "2", "--others", "1"]) == 0
    said = capfd.readouterr().out
    assert "| the parent killed | 2 |" in said
    assert "| a helper left | 1 |" in said
    assert "| a neighbour | 1 |" in said
    assert not gpu_check.DOCUMENT.exists()


def test_a_memory_that_is_never_given_back_fails_the_check(
    fake: FakeGpus, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """O11."""
    monkeypatch.setattr(gpu_check, "_GONE", 0.2)
    [uuid] = fake.add()
    really = gpu_check._wait_gone

    def leak(processes: list[object]) -> None:
        really(processes)  # type: ignore[arg-type]
        fake.use(uuid, 5 << 30)

    monkeypatch.setattr(gpu_check, "_wait_gone", leak)
    assert gpu_check.main(["--rounds", "1"]) == 1
    assert "FAILED: waited" in capfd.readouterr().out


def test_without_a_free_gpu_nothing_is_checked_and_it_says_why(
    fake: FakeGpus, capfd: pytest.CaptureFixture[str]
) -> None:
    """G5."""
    assert gpu_check.main([]) == gpu_check.NO_GPU
    assert "nothing was checked: NVML shows no GPU here" in capfd.readouterr().out
    [uuid] = fake.add()
    fake.use(uuid, 5 << 30)
    assert gpu_check.main([]) == gpu_check.NO_GPU
    assert "5120 MiB are in use" in capfd.readouterr().out
