"""Where a generation saves its checkpoints, and which checkpoint is the latest."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from executor_agent.checkpoints import LocalFiles, latest, name_of
from executor_agent.core.checkpoint_names import complete, newest_first, step_of
from executor_agent.progress import ProgressReporter
from tests.agent.test_context import Agent, context

DAY = 86_400.0


@pytest.fixture
def progress() -> Iterator[ProgressReporter]:
    reporter = ProgressReporter(Agent())
    yield reporter
    reporter.close(10.0)


def save(directory: str | Path, prefix: str, *, shards: int = 1, written_at: float = 0.0) -> str:
    """As TensorFlow leaves it."""
    path = Path(directory)
    for number in range(shards):
        (path / f"{prefix}.data-{number:05d}-of-{shards:05d}").touch()
    index = path / f"{prefix}.index"
    index.touch()
    if written_at:
        os.utime(index, (written_at, written_at))
    return str(path / prefix)


def test_names_sort_by_the_time_of_the_run_and_then_by_generation() -> None:
    names = [
        name_of(1_000 * DAY, "ffff", 9_999),
        name_of(1_001 * DAY, "0000", 1),
        name_of(1_001 * DAY, "0000", 2),
        name_of(1_001 * DAY, "0000", 9_999),
        name_of(1_001 * DAY, "0000", 10_000),
    ]
    assert newest_first([*names, "checkpoint", "tmp-1"]) == names[::-1]
    assert names[1] == "19720928T000000Z-0000-0001"


@pytest.mark.parametrize(
    "names, found",
    [
        (["c-1.index", "c-1.data-00000-of-00001"], ["c-1"]),
        (["c-1.index", "c-1.data-00000-of-00002"], []),
        (["c-1.index", "c-1.data-00000-of-00002", "c-1.data-00001-of-00002"], ["c-1"]),
        (["c-1.index"], []),
        (["c-1.data-00000-of-00001"], []),
        (["c-1.index", "c-11.data-00000-of-00001"], []),
        (["c-1.index.tempstate1", "c-1.data-00000-of-00001", "checkpoint"], []),
        (["c.1.index", "c.1.data-00000-of-00001", "c-2.index"], ["c.1"]),
    ],
)
def test_complete_is_what_has_its_index_and_all_its_shards(
    names: list[str], found: list[str]
) -> None:
    assert complete(names) == found


def test_the_step_is_the_last_number() -> None:
    assert [step_of(each) for each in ("/r-7/ckpt-10", "ckpt-9", "best", "v2.keras-3x")] == [
        10,
        9,
        -1,
        3,
    ]


def test_each_generation_writes_into_a_directory_of_its_own(tmp_path: Path) -> None:
    model_dir = str(tmp_path / "model")
    first = context(model_dir=model_dir, generation=1, created_at=DAY)
    again = context("chief", model_dir=model_dir, generation=1, created_at=DAY)
    second = context(model_dir=model_dir, generation=2, created_at=DAY)
    assert not (tmp_path / "model").exists(), "made when it is first asked for"
    assert first.checkpoint_dir == again.checkpoint_dir
    assert first.checkpoint_dir == f"{model_dir}/checkpoints/19700102T000000Z-run-1-0001"
    assert second.checkpoint_dir != first.checkpoint_dir
    assert len(os.listdir(tmp_path / "model" / "checkpoints")) == 2


def test_without_a_model_dir_there_is_none() -> None:
    ctx = context(model_dir=None)
    assert ctx.checkpoint_dir is None
    assert ctx.latest_checkpoint() is None


def test_the_newest_generation_that_has_a_complete_checkpoint_has_the_latest(
    tmp_path: Path, progress: ProgressReporter
) -> None:
    """Whatever an older one writes, whenever."""
    old = context(progress=progress, model_dir=str(tmp_path), generation=1, created_at=DAY)
    new = context(progress=progress, model_dir=str(tmp_path), generation=2, created_at=DAY)
    later_run = context(
        progress=progress, model_dir=str(tmp_path), run_id="a", generation=1, created_at=2 * DAY
    )
    assert later_run.latest_checkpoint() is None
    assert old.checkpoint_dir
    assert new.checkpoint_dir
    first = save(old.checkpoint_dir, "ckpt-5", shards=2)
    assert new.latest_checkpoint() == first
    (Path(new.checkpoint_dir) / "ckpt-6.index").touch()
    assert new.latest_checkpoint() == first, "half a checkpoint is none"
    second = save(new.checkpoint_dir, "ckpt-6", written_at=1_000)
    save(old.checkpoint_dir, "ckpt-900", written_at=2_000)
    assert new.latest_checkpoint() == old.latest_checkpoint() == second
    assert later_run.latest_checkpoint() == second
    assert later_run.checkpoint_dir
    third = save(later_run.checkpoint_dir, "ckpt-1", written_at=10)
    assert new.latest_checkpoint() == third


def test_within_a_generation_the_last_written_is_the_latest(
    tmp_path: Path, progress: ProgressReporter
) -> None:
    ctx = context(progress=progress, model_dir=str(tmp_path))
    assert ctx.checkpoint_dir
    save(ctx.checkpoint_dir, "ckpt-9", written_at=50)
    tenth = save(ctx.checkpoint_dir, "ckpt-10", written_at=50)
    assert ctx.latest_checkpoint() == tenth
    best = save(ctx.checkpoint_dir, "best", written_at=60)
    assert ctx.latest_checkpoint() == best


def test_a_checkpoint_that_goes_away_meanwhile_is_no_error(tmp_path: Path) -> None:
    """TensorFlow's CheckpointManager removes old ones."""

    class Vanishing(LocalFiles):
        def names(self, path: str) -> list[str]:
            return [*super().names(path), "gone-1.index", "gone-1.data-00000-of-00001"]

    directory = tmp_path / name_of(DAY, "run", 1)
    directory.mkdir()
    kept = save(directory, "ckpt-1")
    assert latest(str(tmp_path), Vanishing()) == kept
