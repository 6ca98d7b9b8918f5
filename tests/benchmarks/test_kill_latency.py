"""What `kill-latency` makes of its samples."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from benchmarks import kill_latency
from benchmarks.figure import Result
from benchmarks.kill_latency import DIRECT, INNOCENTS, TASK, Sample

QUICK = Sample(
    size="small",
    killed=TASK,
    victim_gone=8.0,
    helpers_gone=13.0,
    process_gone=50.0,
    all_gone=50.0,
    processes=4,
    resident_mib=700.0,
    late=0,
    left=(),
    was_quiet=True,
)


def samples(worst: float = 50.0) -> list[Sample]:
    """Three kills of each kind and size; one kill of a small member's task takes ``worst``."""
    found = [
        replace(QUICK, size=size, killed=killed, process_gone=gone, all_gone=gone)
        for size in ("small", "large")
        for killed, gone in ((TASK, 50.0), (DIRECT, 30.0))
        for _ in range(3)
    ]
    return [replace(found[0], all_gone=worst), *found[1:]]


def judged(found: list[Sample], living: int = INNOCENTS) -> Result:
    return kill_latency.result(found, "17", living)


def test_both_bounds_are_judged_by_themselves() -> None:
    verdict = judged(samples(worst=600.0)).verdict

    assert "more in the median: met (small +20.0 ms, large +20.0 ms)" in verdict
    assert "worst: MISSED (small +570.0 ms, large +20.0 ms; small of 3 and" in verdict


def test_the_large_member_informs_and_is_not_judged() -> None:
    slow = [
        replace(each, all_gone=900.0) if (each.size, each.killed) == ("large", TASK) else each
        for each in samples()
    ]

    verdict = judged(slow).verdict

    assert "MISSED" not in verdict
    assert "large +870.0 ms" in verdict


def test_a_bound_that_is_missed_does_not_make_the_measuring_unsound() -> None:
    assert judged(samples(worst=600.0)).is_sound


def test_what_is_left_behind_makes_the_measuring_unsound_and_is_named() -> None:
    [first, *others] = samples()
    result = judged([replace(first, left=("77 sleep 600",)), *others])

    assert not result.is_sound
    assert any("77 sleep 600" in note for note in result.notes)


def test_an_innocent_that_died_makes_the_measuring_unsound_and_is_told() -> None:
    result = judged(samples(), living=INNOCENTS - 1)

    assert not result.is_sound
    assert f"innocents alive: {INNOCENTS - 1} of {INNOCENTS}" in result.verdict


def test_each_kind_of_kill_is_first_as_often_as_the_other_for_both_sizes() -> None:
    plans = [kill_latency._kills(repeat) for repeat in range(50)]
    firsts = Counter(
        next(kill for kill in plan if kill[0] == size)
        for plan in plans
        for size in {size for size, _ in plan}
    )

    assert firsts == {
        ("small", TASK): 25,
        ("small", DIRECT): 25,
        ("large", TASK): 5,
        ("large", DIRECT): 5,
    }
