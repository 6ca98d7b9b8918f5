"""Independent runs side by side in one session, and what is left when a sweep is cut short."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from coordinator import TrainingFailed
from coordinator.spark.sweep import Trial, sweep

pytestmark = pytest.mark.timeout(300)


def main_fun(args: dict[str, Any], ctx: Any) -> Any:
    """Returns its number, raises, or stays until it is told to stop."""
    if args.get("raises"):
        raise ValueError(f"trial {args['number']} does not like it")
    if args.get("stays"):
        Path(args["began"]).touch()
        ctx.wait_for_stop()
    if args.get("meets"):  # proves that the two run at the same time
        mine, other = (Path(path) for path in args["meets"])
        mine.touch()
        deadline = time.monotonic() + 120
        while not other.exists():
            assert time.monotonic() < deadline, "the other trial never came"
            time.sleep(0.05)
    return args["number"], ctx.model_dir


def test_trials_run_side_by_side_and_one_that_fails_costs_only_itself(
    spark: Any, tmp_path: Path
) -> None:
    one, two = str(tmp_path / "one"), str(tmp_path / "two")
    model_dir = str(tmp_path / "models")
    ended: list[Trial] = []
    found = sweep(
        spark,
        main_fun,
        [
            {"number": 0, "meets": (one, two)},
            {"number": 1, "raises": True},
            {"number": 2, "meets": (two, one)},
        ],
        parallel=2,
        progress=ended.append,
        preload=(),
        model_dir=model_dir,
    )
    assert [each.value for each in found] == [
        (0, f"{model_dir}/trial-000"),
        None,
        (2, f"{model_dir}/trial-002"),
    ]
    assert isinstance(found[1].error, TrainingFailed)
    assert "trial 1 does not like it" in str(found[1].error)
    assert sorted(each.number for each in ended) == [0, 1, 2]
    assert len({each.run_id for each in found}) == 3


def test_an_interrupted_sweep_leaves_nothing_and_the_session_goes_on(
    spark: Any, tmp_path: Path
) -> None:
    """R6. The trials that run are ended, and those that wait never begin."""
    began = tmp_path / "began"

    def interrupt(trial: Trial) -> None:
        deadline = time.monotonic() + 120
        while not began.exists():  # by trial 1, which would stay for ever
            assert time.monotonic() < deadline, "the second trial never began"
            threading.Event().wait(0.05)
        raise KeyboardInterrupt

    stays = [{"number": number, "stays": True, "began": str(began)} for number in range(1, 4)]
    with pytest.raises(KeyboardInterrupt):
        sweep(spark, main_fun, [{"number": 0}, *stays], parallel=1, progress=interrupt, preload=())
    [after] = sweep(spark, main_fun, [{"number": 7}], progress=False, preload=())
    assert after.value == (7, None)
