"""A sweep's trials: in order, side by side, each with its own end; and the end of all of them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from coordinator.core.errors import (
    InvalidRun,
    NotEnoughSlots,
    PayloadNotPicklable,
    ReleaseUnproven,
    RunCancelled,
    TrainingFailed,
)
from coordinator.spark import sweep as module
from coordinator.spark.sweep import MEMBER, Trial, Trials, sweep
from tests.coordinator.spark.fake_spark import FakeSpark

DEADLINE = 30.0

Main = Callable[[Any], Any]


class FakeCluster:
    """A run that has begun: ``wait`` calls the main function, ``stop`` makes it raise."""

    def __init__(self, main_fun: Callable[[], Any], unproven: bool = False) -> None:
        self._main_fun = main_fun
        self._unproven = unproven
        self.stopped = threading.Event()
        self.is_shut_down = False

    def wait(self, timeout: float | None = None) -> Any:
        return {MEMBER: self._main_fun()}

    def stop(self, reason: str = "", grace: float | None = None) -> None:
        self.stopped.set()

    def shutdown(self, grace: float | None = None) -> None:
        self.is_shut_down = True
        if self._unproven:
            raise ReleaseUnproven("something of the run may be left")


class FakeRuns:
    """Starts trials; notes how many form at a time and how many run at a time."""

    def __init__(self, main_fun: Main, unproven: bool = False) -> None:
        self._main_fun = main_fun
        self._unproven = unproven
        self._lock = threading.Lock()
        self._forming = 0
        self.most_forming = 0
        self.clusters: dict[int, FakeCluster] = {}

    def start(self, number: int, saw: Callable[[Any], object]) -> Any:
        with self._lock:
            self._forming += 1
            self.most_forming = max(self.most_forming, self._forming)
        saw(view(number, 0))
        with self._lock:
            self._forming -= 1
        saw(view(number, 1))
        cluster = FakeCluster(lambda: self._main_fun(number), self._unproven)
        self.clusters[number] = cluster
        return cluster


def view(number: int, generation: int) -> Any:
    phase = SimpleNamespace(is_terminal=False)
    return SimpleNamespace(run_id=f"run-{number}", generation=generation, phase=phase)


def trials_of(
    runs: Any, count: int, show: Callable[[Trial], object] | None = None, spark: Any = None
) -> Trials:
    args = [f"args {number}" for number in range(count)]
    gateway: Any = spark or FakeSpark()
    return Trials(gateway, args, runs.start, None, show)


def test_results_come_in_the_order_of_the_trials_whoever_ends_first() -> None:
    second_is_over = threading.Event()

    def main_fun(number: int) -> int:
        if number == 0:
            assert second_is_over.wait(DEADLINE)
        if number == 1:
            second_is_over.set()
        return number * 10

    found = trials_of(FakeRuns(main_fun), 3).run(parallel=2)
    assert [each.value for each in found] == [0, 10, 20]
    assert [each.args for each in found] == ["args 0", "args 1", "args 2"]
    assert [each.run_id for each in found] == ["run-0", "run-1", "run-2"]
    assert all(each.is_ok for each in found)


def test_trials_run_side_by_side_but_form_one_after_the_other() -> None:
    """R1: two that form at a time would be in each other's way."""
    all_are_there = threading.Barrier(3)

    def main_fun(number: int) -> None:
        all_are_there.wait(DEADLINE)

    runs = FakeRuns(main_fun)
    assert all(each.is_ok for each in trials_of(runs, 3).run(parallel=3))
    assert runs.most_forming == 1


def test_a_trial_that_fails_costs_only_itself() -> None:
    def main_fun(number: int) -> int:
        if number == 0:
            raise TrainingFailed("run 'sweep-0' failed: ValueError\nand more")
        return number

    runs = FakeRuns(main_fun)
    first, second = trials_of(runs, 2).run(parallel=1)
    assert isinstance(first.error, TrainingFailed)
    assert not first.is_ok
    assert second.value == 1
    assert "trial 0 ('args 0') failed: TrainingFailed: run 'sweep-0' failed: ValueError" in (
        str(first)
    )
    assert "more" not in str(first)
    assert all(each.is_shut_down for each in runs.clusters.values())


def test_a_value_is_kept_when_the_release_is_not_proven() -> None:
    [trial] = trials_of(FakeRuns(lambda number: "learnt", unproven=True), 1).run(parallel=1)
    assert trial.value == "learnt"
    assert isinstance(trial.error, ReleaseUnproven)


def test_what_keeps_the_first_run_from_being_created_is_raised() -> None:
    class Refused:
        def start(self, number: int, saw: Callable[[Any], object]) -> Any:
            raise NotEnoughSlots("no slot")

    with pytest.raises(NotEnoughSlots, match="no slot"):
        trials_of(Refused(), 3).run(parallel=1)


def test_a_run_that_cannot_be_created_later_is_a_failed_trial() -> None:
    runs = FakeRuns(lambda number: number)

    def start(number: int, saw: Callable[[Any], object]) -> Any:
        if number == 1:
            raise NotEnoughSlots("an executor is gone")
        return runs.start(number, saw)

    found = trials_of(SimpleNamespace(start=start), 3).run(parallel=1)
    assert [each.is_ok for each in found] == [True, False, True]


def test_an_exception_of_the_caller_ends_the_trials_that_run() -> None:
    """As Ctrl-C does, which comes up in the calling thread."""
    runs: FakeRuns

    def main_fun(number: int) -> None:
        if number > 0:
            assert runs.clusters[number].stopped.wait(DEADLINE)
            raise RunCancelled("stopped")

    def interrupt(trial: Trial) -> None:
        raise KeyboardInterrupt

    runs = FakeRuns(main_fun)
    with pytest.raises(KeyboardInterrupt):
        trials_of(runs, 9, interrupt).run(parallel=2)
    assert all(each.is_shut_down for each in runs.clusters.values())
    assert len(runs.clusters) < 9  # the others never began


def test_a_trial_that_is_still_forming_is_ended_by_its_spark_job() -> None:
    """Nobody has a handle on it yet."""
    spark = FakeSpark()
    is_forming, is_cancelled = threading.Event(), threading.Event()
    spark.cancel = lambda tag: is_cancelled.set() if tag == "tflease-run-1" else None  # type: ignore[method-assign]
    runs = FakeRuns(lambda number: number)

    def start(number: int, saw: Callable[[Any], object]) -> Any:
        if number == 0:
            return runs.start(number, saw)
        saw(view(number, 0))
        is_forming.set()
        assert is_cancelled.wait(DEADLINE)
        raise TrainingFailed("its job was cancelled")

    def interrupt(trial: Trial) -> None:
        assert is_forming.wait(DEADLINE)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trials_of(SimpleNamespace(start=start), 2, interrupt, spark).run(parallel=1)
    assert is_cancelled.is_set()


def test_no_trials_are_no_error() -> None:
    assert trials_of(FakeRuns(lambda number: number), 0).run(parallel=1) == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"trials": "abc"}, "expected a list"),
        ({"trials": [1], "roles": {"worker": 2}}, "roles: not for a sweep"),
        ({"trials": [1], "tensorboard": True}, "tensorboard: not for a sweep"),
        ({"trials": [1], "parallel": 0}, "parallel=0"),
        ({"trials": [1], "gpus": 1}, "needs parallel"),
    ],
)
def test_arguments_that_make_no_sense_are_refused_by_name(
    arguments: dict[str, Any], says: str
) -> None:
    with pytest.raises(InvalidRun, match=says):
        sweep(None, print, **arguments)


def test_a_trial_that_cannot_be_pickled_is_named_before_any_begins(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spark = FakeSpark()
    monkeypatch.setattr(module, "open_gateway", lambda session, *, has_daemon: spark)
    with pytest.raises(PayloadNotPicklable, match="trial 1: "):
        sweep(None, print, [0, threading.Lock()])
    assert spark.jobs == []


def test_each_trial_has_a_folder_of_its_own() -> None:
    assert module._below("s3://bucket/models/", 7) == "s3://bucket/models/trial-007"
    assert module._below(None, 7) is None
