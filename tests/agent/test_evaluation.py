"""Which checkpoints are evaluated, and what is kept of it."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from executor_agent import evaluation
from executor_agent.core import evaluation_files as files
from executor_agent.core.evaluation_files import Entry, EvaluationPlan
from executor_agent.evaluation import (
    LAST_PATIENCE,
    Checkpoint,
    Evaluator,
    FsspecStore,
    LocalStore,
    Store,
)
from executor_agent.scalars import ScalarWriter

GENERATION = "20260131T120000Z-4f1c0a9be3d2-0001"
INDEX = b"index" + bytes.fromhex("57fb808b247547db")  # as TensorFlow's tables end

Evaluate = Callable[[Checkpoint], Mapping[str, float] | None]


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    return tmp_path / "model"


def save(model_dir: Path, step: int, generation: str = GENERATION) -> Path:
    """As TensorFlow does: the index is written last."""
    folder = model_dir / "checkpoints" / generation
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"ckpt-{step}.data-00000-of-00001").write_text(f"data of {step}")
    index = folder / f"ckpt-{step}.index"
    index.write_bytes(INDEX)
    os.utime(index, ns=(step * 10**9, step * 10**9))
    return folder / f"ckpt-{step}"


def evaluator(
    tmp_path: Path, model_dir: Path, evaluate: Evaluate, store: Store | None = None
) -> Evaluator:
    directory = tmp_path / "work"
    directory.mkdir(exist_ok=True)
    plan = EvaluationPlan(str(model_dir), 0.001, str(tmp_path / "events"))
    return Evaluator(directory, plan, evaluate, store or LocalStore())


def finish(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir(exist_ok=True)
    (tmp_path / "work" / files.FINISH).touch()


def noted(tmp_path: Path) -> list[Entry]:
    results = tmp_path / "work" / files.RESULTS
    return list(files.entries(results.read_text())) if results.exists() else []


def test_the_newest_is_evaluated_and_older_ones_are_skipped(
    tmp_path: Path, model_dir: Path
) -> None:
    steps: list[int] = []
    for step in (1, 2, 3):
        save(model_dir, step)

    def evaluate(checkpoint: Checkpoint) -> dict[str, float]:
        steps.append(checkpoint.step)
        if checkpoint.step == 3:  # two more come while it is evaluated; then the training ends
            save(model_dir, 4)
            save(model_dir, 5)
            finish(tmp_path)
        return {"accuracy": checkpoint.step / 10}

    evaluator(tmp_path, model_dir, evaluate).run()
    assert steps == [3, 5]
    done = [entry for entry in noted(tmp_path) if entry.event == files.DONE]
    assert [entry.metrics for entry in done] == [{"accuracy": 0.3}, {"accuracy": 0.5}]
    assert done[0].path == str(model_dir / "checkpoints" / GENERATION / "ckpt-3")


def test_one_that_was_written_anew_under_its_name_is_new(tmp_path: Path, model_dir: Path) -> None:
    calls: list[int] = []
    path = save(model_dir, 1)

    def evaluate(checkpoint: Checkpoint) -> None:
        calls.append(checkpoint.step)
        if len(calls) == 1:
            os.utime(f"{path}.index", ns=(99, 99))
            finish(tmp_path)

    evaluator(tmp_path, model_dir, evaluate).run()
    assert calls == [1, 1]


def test_a_training_that_saves_nothing_ends_it(tmp_path: Path, model_dir: Path) -> None:
    finish(tmp_path)
    evaluator(tmp_path, model_dir, lambda checkpoint: {}).run()
    assert noted(tmp_path) == []


def test_a_checkpoint_stays_until_it_is_evaluated(tmp_path: Path, model_dir: Path) -> None:
    path = save(model_dir, 1)
    finish(tmp_path)
    found: list[str] = []

    def evaluate(checkpoint: Checkpoint) -> None:
        for part in path.parent.iterdir():
            part.unlink()  # CheckpointManager(max_to_keep=1) does
        found.append(Path(f"{checkpoint.path}.data-00000-of-00001").read_text())

    evaluator(tmp_path, model_dir, evaluate).run()
    assert found == ["data of 1"]


def test_one_that_is_deleted_before_it_can_be_had_is_passed_over(
    tmp_path: Path, model_dir: Path
) -> None:
    save(model_dir, 1)

    class Late(LocalStore):
        def fetch(self, path: str, to: str) -> None:
            for part in (model_dir / "checkpoints" / GENERATION).iterdir():
                part.unlink()
            save(model_dir, 2)
            finish(tmp_path)
            super().fetch(path, to)

    steps: list[int] = []
    evaluator(tmp_path, model_dir, lambda each: steps.append(each.step), Late()).run()
    assert steps == [2]


def test_a_function_that_raises_ends_it_and_its_traceback_is_kept(
    tmp_path: Path, model_dir: Path
) -> None:
    save(model_dir, 7)
    with pytest.raises(ZeroDivisionError):
        evaluator(tmp_path, model_dir, lambda checkpoint: {"x": 1 / 0}).run()
    began, failed = noted(tmp_path)
    assert (began.event, failed.event, failed.step) == (files.BEGAN, files.FAILED, 7)
    assert "ZeroDivisionError: division by zero" in failed.text


@pytest.mark.parametrize("answer", [[1.0], {"accuracy": "high"}, 0.5])
def test_what_is_no_mapping_to_numbers_is_an_error(
    tmp_path: Path, model_dir: Path, answer: object
) -> None:
    save(model_dir, 7)
    with pytest.raises((TypeError, ValueError)):
        evaluator(tmp_path, model_dir, lambda checkpoint: answer).run()  # type: ignore[arg-type,return-value]


class Clock:
    """Time that passes only in waiting."""

    def __init__(self) -> None:
        self.now = 0.0
        self.pauses: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.pauses.append(seconds)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(evaluation, "time", clock)
    return clock


class Away(LocalStore):
    """Until that time."""

    def __init__(self, clock: Clock, until: float) -> None:
        self._clock, self._until = clock, until

    def _check(self) -> None:
        if self._clock.now < self._until:
            raise ConnectionError("no route to the store")

    def names(self, path: str) -> list[str]:
        self._check()
        return super().names(path)


class AwayAfterTheListing(Away):
    def names(self, path: str) -> list[str]:
        return LocalStore.names(self, path)

    def fetch(self, path: str, to: str) -> None:
        self._check()
        super().fetch(path, to)


@pytest.mark.parametrize("kind", [Away, AwayAfterTheListing])
def test_a_store_that_is_away_at_the_end_is_waited_for_and_that_is_told(
    tmp_path: Path, model_dir: Path, clock: Clock, kind: type[Away]
) -> None:
    save(model_dir, 1)
    finish(tmp_path)
    store = kind(clock, until=LAST_PATIENCE - 10)
    evaluator(tmp_path, model_dir, lambda checkpoint: {}, store).run()
    told = [entry for entry in noted(tmp_path) if entry.event == files.WAITS]
    assert told[0].text == (
        "ConnectionError: no route to the store; looking again, for 120 s at most"
    )
    assert 1 < len(told) < 8
    assert max(clock.pauses) == 5.0
    assert [each.event for each in noted(tmp_path)[len(told) :]] == [files.BEGAN, files.DONE]


@pytest.mark.parametrize("kind", [Away, AwayAfterTheListing])
def test_a_store_that_is_away_during_the_training_costs_nothing(
    tmp_path: Path, model_dir: Path, clock: Clock, kind: type[Away]
) -> None:
    save(model_dir, 1)
    store = kind(clock, until=10 * LAST_PATIENCE)
    evaluator(tmp_path, model_dir, lambda checkpoint: finish(tmp_path), store).run()
    told = [entry.text for entry in noted(tmp_path) if entry.event == files.WAITS]
    assert told[0] == "ConnectionError: no route to the store; looking again"
    assert noted(tmp_path)[-1].event == files.DONE


def test_a_store_that_stays_away_is_an_error_at_the_end(
    tmp_path: Path, model_dir: Path, clock: Clock
) -> None:
    finish(tmp_path)
    with pytest.raises(ConnectionError):
        evaluator(tmp_path, model_dir, lambda _: {}, Away(clock, until=math.inf)).run()
    assert LAST_PATIENCE <= clock.now < LAST_PATIENCE + 10


def test_an_index_that_is_being_written_is_left_for_the_next_look(
    tmp_path: Path, model_dir: Path
) -> None:
    steps: list[int] = []
    save(model_dir, 1)
    index = Path(f"{save(model_dir, 2)}.index")
    index.write_bytes(INDEX[:-1])

    def evaluate(checkpoint: Checkpoint) -> None:
        steps.append(checkpoint.step)
        if checkpoint.step == 1:  # the newest one that is whole
            finish(tmp_path)
            index.write_bytes(INDEX)

    evaluator(tmp_path, model_dir, evaluate).run()
    assert steps == [1, 2]


def test_an_index_that_stays_torn_is_waited_for_at_the_end_and_passed_over(
    tmp_path: Path, model_dir: Path, clock: Clock
) -> None:
    steps: list[int] = []
    save(model_dir, 1)
    torn = save(model_dir, 2)
    Path(f"{torn}.index").write_bytes(b"")
    finish(tmp_path)
    evaluator(tmp_path, model_dir, lambda each: steps.append(each.step)).run()
    assert steps == [1]
    assert LAST_PATIENCE <= clock.now < LAST_PATIENCE + 10
    last = noted(tmp_path)[-1]
    assert last == Entry(
        files.WAITS, text=f"the index of {torn} is not there to its end; passed over"
    )


def test_what_was_seen_is_no_news_and_nobody_waits_for_it(
    tmp_path: Path, model_dir: Path, clock: Clock
) -> None:
    save(model_dir, 1)
    finish(tmp_path)
    evaluator(tmp_path, model_dir, lambda checkpoint: {}).run()
    assert [entry.event for entry in noted(tmp_path)] == [files.BEGAN, files.DONE]
    assert clock.now < 1.0


def test_any_url_of_fsspec_will_do(tmp_path: Path, model_dir: Path) -> None:
    save(model_dir, 1)
    finish(tmp_path)
    found: list[str] = []

    def evaluate(checkpoint: Checkpoint) -> None:
        found.append(Path(f"{checkpoint.path}.data-00000-of-00001").read_text())

    url = f"file://{model_dir}"
    plan = EvaluationPlan(url, 0.001, None)
    store = evaluation.store_of(url)
    assert isinstance(store, FsspecStore)
    Evaluator(tmp_path / "work", plan, evaluate, store).run()
    assert found == ["data of 1"]


def test_half_a_line_is_not_read() -> None:
    entry = Entry(files.DONE, "/ckpt-1", 1, 0.5, {"loss": math.inf})
    assert list(files.entries(entry.to_line() + entry.to_line()[:-1])) == [entry]


def test_the_plan_survives_the_way() -> None:
    plan = EvaluationPlan("s3://bucket/x", 5.0, None, ("/a", ""))
    assert EvaluationPlan.from_json(plan.to_json()) == plan


@pytest.mark.slow
@pytest.mark.tensorflow
def test_tensorboard_reads_the_scalars(tmp_path: Path) -> None:
    """Each record has the checksums that TensorFlow's own reader wants."""
    loader = pytest.importorskip("tensorboard.backend.event_processing.event_file_loader")
    writer = ScalarWriter(tmp_path / "evaluation")
    writer.write(0, {"accuracy": 0.5})
    writer.write(2**40, {"loss": 1e300, "name with ü": -1.0})
    (file,) = (tmp_path / "evaluation").iterdir()
    head, first, second = loader.LegacyEventFileLoader(str(file)).Load()
    assert head.file_version == "brain.Event:2"
    assert [(each.tag, each.simple_value) for each in first.summary.value] == [("accuracy", 0.5)]
    assert second.step == 2**40
    assert [(each.tag, each.simple_value) for each in second.summary.value] == [
        ("loss", math.inf),
        ("name with ü", -1.0),
    ]
