"""What `feed_scaling` makes of its samples, and how it sends rows over TCP."""

from __future__ import annotations

import pytest

from benchmarks import feed_scaling, feed_scaling_result
from benchmarks.feed_scaling import over_tcp
from benchmarks.feed_scaling_result import CASES, ONE, SOCKET, TCP, TWO, Sample
from benchmarks.feed_shapes import SHAPES
from coordinator.core.model import (
    Endpoint,
    ExecutorInfo,
    MemberId,
    MemberPhase,
    MemberView,
    Role,
    Roles,
    RunPhase,
    RunSpec,
    RunView,
)
from coordinator.spark.feed import consumers

SHAPE = SHAPES[0]
WORKER = MemberId(Role.WORKER, 0)


def samples(one: float = 10.0, two: float = 5.0, busy: float = 1.0) -> list[Sample]:
    """1,000 rows each; TCP takes twice as long as the socket."""
    seconds = dict.fromkeys(CASES, two) | {ONE: one}
    return [
        Sample(case, SHAPE.name, way, 1_000, took * (1 if way == SOCKET else 2), busy)
        for case, took in seconds.items()
        for way in (SOCKET, TCP)
    ]


def run() -> RunView:
    member = MemberView(
        WORKER,
        MemberPhase.RUNNING,
        0.0,
        executor=ExecutorInfo("host", "boot", 1, directory="/tmp/member"),
        endpoint=Endpoint("host", 1, feed_port=2),
    )
    spec = RunSpec(Roles(worker=1))
    return RunView("run", spec, RunPhase.RUNNING, 1, (member,), 0.0, 1)


def test_ratios_are_of_the_medians_of_one_run() -> None:
    result = feed_scaling_result.result(samples(), [SHAPE], "17", cores=2)

    assert "2 workers 2.00 times 1, TCP 0.50 of the socket" in result.verdict
    rates = {row[1]: row[2:] for row in result.tables[0].rows}
    assert rates[ONE.name] == ("100", "1.00", "50", "1.00", "0.50")
    assert result.tables[1].rows[0] == ("(a)", *["2.00"] * 6)


@pytest.mark.parametrize(
    "busy, explanation",
    [(1.9, "the machine is full"), (0.5, "the cores are not what holds two workers up")],
)
def test_the_ceiling_is_told_from_the_cores_that_worked(busy: float, explanation: str) -> None:
    result = feed_scaling_result.result(samples(busy=busy), [SHAPE], "17", cores=2)

    assert explanation in result.notes[0]


def test_what_was_free_beside_one_worker_bounds_what_two_can_gain() -> None:
    measured = [
        sample if sample.case == ONE else Sample(*_but(sample, busy=1.9)) for sample in samples()
    ]

    result = feed_scaling_result.result(measured, [SHAPE], "17", cores=2)

    assert "the most to be gained is 2.00 times; measured: 2.00" in result.notes[0]


def _but(sample: Sample, busy: float) -> tuple[object, ...]:
    return (sample.case, sample.shape, sample.way, sample.rows, sample.seconds, busy)


def test_a_case_that_was_not_measured_is_an_error() -> None:
    with pytest.raises(ValueError, match="no sample of 2 workers"):
        feed_scaling_result.rate([s for s in samples() if s.case != TWO], TWO, "a", SOCKET)


def test_over_tcp_feeders_are_told_of_no_unix_socket() -> None:
    assert consumers.endpoint(run(), WORKER).path
    with over_tcp():
        found = consumers.endpoint(run(), WORKER)
    assert (found.path, found.boot_id, found.port) == ("", "", 2)
    assert consumers.endpoint(run(), WORKER).boot_id == "boot"


def test_rows_that_did_not_go_over_tcp_after_all_are_an_error() -> None:
    with pytest.raises(RuntimeError, match="have not come over TCP"), over_tcp():
        pass


def test_every_shape_that_is_measured_exists() -> None:
    assert set(feed_scaling.ROWS) <= {shape.name for shape in SHAPES}
