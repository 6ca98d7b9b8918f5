"""One forming run at a time for each Spark application (R1)."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from coordinator.core.errors import ReservationTimeout
from coordinator.core.model import Roles, RunSpec
from coordinator.spark.session import Forming
from tests.coordinator.spark.fake_spark import FakeSpark


def options(timeout: float = 10.0, progress: object = False) -> Any:
    spec = RunSpec(Roles(worker=1), name="mnist", reservation_timeout=timeout)
    return SimpleNamespace(spec=spec, progress=progress)


def test_two_runs_of_a_session_form_one_after_the_other() -> None:
    """R1: two half-formed gangs would hold each other's slots for ever."""
    spark = FakeSpark()
    with (
        Forming(spark, options()),
        pytest.raises(ReservationTimeout, match="another run of this Spark session"),
        Forming(spark, options(timeout=0.01)),
    ):
        pass
    with Forming(spark, options(timeout=0.01)):
        pass


def test_runs_of_two_sessions_do_not_wait_for_each_other() -> None:
    with Forming(FakeSpark(), options()), Forming(FakeSpark(), options(timeout=0.01)):
        pass


def test_a_run_that_waits_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    spark = FakeSpark()
    with (
        Forming(spark, options()),
        pytest.raises(ReservationTimeout),
        Forming(spark, options(timeout=0.01, progress=True)),
    ):
        pass
    assert "[mnist] waiting for another run of this session to form" in capsys.readouterr().err


def test_a_failed_start_gives_the_right_back() -> None:
    """R6."""
    spark = FakeSpark()
    with pytest.raises(KeyboardInterrupt), Forming(spark, options()):
        raise KeyboardInterrupt
    with Forming(spark, options(timeout=0.01)):
        pass


def test_a_run_that_has_its_slots_lets_the_next_one_form() -> None:
    """It may wait for GPUs for as long as it likes."""
    spark = FakeSpark()
    with Forming(spark, options()) as forming:
        assert forming is not None
        forming.end()
        with Forming(spark, options(timeout=0.01)):
            forming.end()  # again, and it is the other one's turn now
            with pytest.raises(ReservationTimeout), Forming(spark, options(timeout=0.01)):
                pass
