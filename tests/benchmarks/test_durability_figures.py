"""What `durable-grants`, `restart` and `soak` make of what they have seen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from benchmarks import durable_grants, restart, soak_result
from benchmarks.durable_grants import PROMISED, Round
from benchmarks.restart import Sample, doubled_in
from benchmarks.soak_result import MIB

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


def _memory(size: Callable[[int], float], cycles: int = 3_000) -> list[tuple[int, float, int]]:
    return [(1, cycle / 4, int(size(cycle))) for cycle in range(cycles)]


def _swinging(cycle: int) -> float:
    """Up by 4 MiB after each fault, and down again."""
    return 70 * MIB + 4 * MIB * max(0.0, 1 - cycle % 50 / 20)


def test_memory_that_only_swings_is_flat_and_a_successor_does_not_count() -> None:
    memory = [*_memory(_swinging), (2, 1_600.0, 500 * MIB)]
    verdict = soak_result.result(soak_result.Measured(600.0, 200, memory=memory)).verdict
    assert "memory flat (+0.00 MiB at 70.0 MiB, +0 bytes for each of 1,200 cycles)" in verdict


def test_a_leak_of_a_kibibyte_in_each_cycle_is_found_among_the_swings() -> None:
    memory = _memory(lambda cycle: _swinging(cycle) + cycle * soak_result.LEAK)
    measured = soak_result.Measured(600.0, 200, memory=memory)
    assert "memory NOT flat (+1.17 MiB" in soak_result.result(measured).verdict


def test_a_soak_that_is_too_short_for_that_says_so() -> None:
    for cycles in (0, 4, 2_000):
        memory = _memory(_swinging, cycles)
        verdict = soak_result.result(soak_result.Measured(60.0, 200, memory=memory)).verdict
        assert "memory NOT JUDGED, too few cycles" in verdict


def test_a_soak_in_which_somebody_was_lost_is_not_sound() -> None:
    measured = soak_result.Measured(600.0, 200, memory=_memory(_swinging), trouble=["lost"])
    assert not soak_result.result(measured).is_sound
