"""What `durable-grants`, `restart` and `soak` make of what they have seen."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks import durable_grants, restart, soak_result
from benchmarks.durable_grants import PROMISED, Round
from benchmarks.restart import Sample, doubled_in
from benchmarks.soak_result import slope

OURS = Round("tflease, streams", PROMISED, 3_100.0, (0.03,), 300e-6)
THEIRS = Round("etcd", PROMISED, 6_200.0, (0.015,), 100e-6)


def test_grants_are_judged_at_a_hundred_outstanding_and_beside_etcd() -> None:
    measured = durable_grants.Measured(rounds=[OURS, THEIRS], recovery=1.2, empty=0.9)

    verdict = durable_grants.result(measured).verdict

    assert "100 outstanding: met (3,100, tflease, streams)" in verdict
    assert "0.50 of etcd's rate" in verdict
    assert "recovery within 0.5 s: met (0.30 s more" in verdict
    slow = replace(measured, rounds=[replace(OURS, rate=2_900.0)], recovery=1.6)
    assert durable_grants.result(slow).verdict.count("MISSED") == 2


def test_grants_without_a_journal_are_not_called_durable() -> None:
    measured = durable_grants.Measured(is_durable=False, rounds=[OURS])

    assert "NOT durable" in durable_grants.result(measured).verdict


def _report(*tokens: tuple[str, int]) -> dict[str, object]:
    return {"tokens": list(tokens)}


def test_a_gpu_with_the_same_token_everywhere_is_granted_once() -> None:
    crew = [_report(("GPU-a", 1))]

    assert doubled_in(crew, crew, [("GPU-b", 2)], [("GPU-b", 2)], {"GPU-a": 1, "GPU-b": 2}) == (
        0,
        [],
    )


@pytest.mark.parametrize(
    ("again", "held"),
    [
        ([("GPU-b", 3)], {"GPU-a": 1, "GPU-b": 3}),  # answered before, and another since
        ([], {"GPU-a": 1}),  # answered before, and forgotten
        ([("GPU-b", 2)], {"GPU-a": 1, "GPU-b": 4}),  # the book knows another holder
        ([("GPU-b", 2)], {"GPU-b": 2}),  # the book has forgotten a member's lease
        ([("GPU-b", 2), ("GPU-c", 1)], {"GPU-a": 1, "GPU-b": 2, "GPU-c": 1}),  # a token twice
    ],
)
def test_a_grant_that_did_not_survive_is_found(
    again: list[tuple[str, int]], held: dict[str, int]
) -> None:
    """G: no GPU with two holders, whatever has died."""
    crew = [_report(("GPU-a", 1))]

    count, told = doubled_in(crew, crew, [("GPU-b", 2)], again, held)

    assert count == len(told) > 0


def test_a_restart_is_judged_by_its_slowest_and_by_what_was_lost() -> None:
    good = Sample(1.0, 3.0, 0, 100, 0)

    assert restart.result([good, replace(good, attended=4.9)], 1_000).verdict.startswith(
        "all back within 5 s: met (worst 4.90 s)"
    )
    assert not restart.result([good, replace(good, lost=1)], 1_000).is_sound
    assert restart.result([replace(good, trouble=("gone",))], 1_000).verdict == "NOT SOUND: gone"


def test_the_slope_is_that_of_the_nearest_line() -> None:
    assert slope([(0.0, 1.0), (1.0, 3.0), (2.0, 5.0)]) == pytest.approx(2.0)
    assert slope([(0.0, 1.0), (1.0, 3.0), (2.0, 1.0)]) == pytest.approx(0.0)
    assert slope([(1.0, 1.0)]) == 0.0


def test_memory_is_judged_by_the_first_process_after_its_warm_up() -> None:
    mib = 2**20
    memory = [(1, float(at), (60 if at < 150 else 70) * mib) for at in range(0, 600, 10)]
    measured = soak_result.Measured(600.0, 200, memory=[*memory, (2, 600.0, 500 * mib)])

    assert "memory flat (+0.0 MiB an hour at 70.0 MiB)" in soak_result.result(measured).verdict
    growing = [(1, float(at), 60 * mib + at * 20_000) for at in range(0, 600, 10)]
    assert "NOT flat" in soak_result.result(replace(measured, memory=growing)).verdict
    assert not soak_result.result(replace(measured, trouble=["lost"])).is_sound
