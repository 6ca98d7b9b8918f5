"""E6: the evaluator of the example misses no checkpoint, whenever the chief writes it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from examples.digits_fit import follow, save_checkpoint


class FakeModel:
    """Saves its accuracy."""

    def __init__(self, accuracy: float) -> None:
        self._accuracy = accuracy

    def save(self, path: Path) -> None:
        path.write_text(str(self._accuracy))


class FakeContext:
    """Each wait lets the chief do its next act; after the last one the member is told to stop."""

    def __init__(self, *acts: Callable[[], object]) -> None:
        self._acts = list(acts)
        self.reported: list[tuple[int, float]] = []

    @property
    def should_stop(self) -> bool:
        return not self._acts

    def wait_for_stop(self, timeout: float) -> bool:
        if self._acts:
            self._acts.pop(0)()
        return self.should_stop

    def section(self, name: str) -> AbstractContextManager[None]:
        return nullcontext()

    def report_progress(self, step: int, accuracy: float) -> None:
        self.reported.append((step, accuracy))


def judge(path: Path) -> float:
    return float(path.read_text())


def test_each_checkpoint_is_judged_once_and_reported(tmp_path: Path) -> None:
    judged: list[str] = []

    def judge_and_note(path: Path) -> float:
        judged.append(path.name)
        return judge(path)

    ctx = FakeContext(
        lambda: save_checkpoint(FakeModel(0.5), tmp_path, 100),
        lambda: None,
        lambda: save_checkpoint(FakeModel(0.75), tmp_path, 200),
        lambda: None,
    )
    assert follow(tmp_path, judge_and_note, ctx) == [(100, 0.5), (200, 0.75)]
    assert judged == ["step-000100.keras", "step-000200.keras"]
    assert ctx.reported == [(100, 0.5), (200, 0.75)]


def test_what_appears_just_before_the_stop_is_judged_as_well(tmp_path: Path) -> None:
    ctx = FakeContext(
        lambda: save_checkpoint(FakeModel(0.5), tmp_path, 100),
        lambda: save_checkpoint(FakeModel(0.9), tmp_path, 200),
    )
    assert follow(tmp_path, judge, ctx)[-1] == (200, 0.9)


def test_what_appears_while_an_earlier_one_is_judged_and_the_stop_comes_is_judged_as_well(
    tmp_path: Path,
) -> None:
    ctx = FakeContext(lambda: save_checkpoint(FakeModel(0.5), tmp_path, 100))

    def slowly(path: Path) -> float:
        if path.stem.endswith("100"):
            save_checkpoint(FakeModel(0.9), tmp_path, 200)
            ctx._acts.clear()
        return judge(path)

    ctx._acts.append(lambda: None)
    assert follow(tmp_path, slowly, ctx) == [(100, 0.5), (200, 0.9)]


def test_half_a_checkpoint_is_not_looked_at(tmp_path: Path) -> None:
    class Interrupted(FakeModel):
        def save(self, path: Path) -> None:
            path.write_text("0.")
            raise OSError("no space left")

    def fail_to_save() -> None:
        try:
            save_checkpoint(Interrupted(0.0), tmp_path, 100)
        except OSError:
            return
        raise AssertionError("the error was swallowed")

    assert follow(tmp_path, judge, FakeContext(fail_to_save)) == []
    assert [path.name for path in tmp_path.iterdir()] == [".step-000100.keras"]


def test_a_folder_that_never_appears_has_no_checkpoints(tmp_path: Path) -> None:
    assert follow(tmp_path / "never", judge, FakeContext(lambda: None)) == []
