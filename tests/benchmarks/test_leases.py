"""What `leases` measures is a grant, and what it makes of its samples."""

from __future__ import annotations

from benchmarks import leases
from benchmarks.leases import GPUS_PER_HOST, Sample
from coordinator.core.gpu import LeaseState


def test_what_is_measured_is_a_grant_beside_so_many_leases() -> None:
    machine = leases.filled(101)

    sample = leases.take(machine, 101, 0)

    machine.check_invariants()
    states = [view.state for view in machine.book.views()]
    assert states.count(LeaseState.HELD) == 101, "and it was given back"
    assert len(states) == 13 * GPUS_PER_HOST
    assert sample.leases == 101
    assert sample.granting > 0


def test_the_worst_grant_at_the_promised_size_is_judged() -> None:
    samples = [Sample(1000, 5.0, 1.0), Sample(1000, 19.0, 1.0), Sample(5000, 90.0, 1.0)]

    assert leases.result(samples).verdict.endswith("met (worst 19.00 ms)")
    missed = leases.result([*samples, Sample(1000, 21.0, 1.0)])
    assert missed.verdict.endswith("MISSED (worst 21.00 ms)")
    assert [row[0] for row in missed.tables[0].rows] == ["1000", "5000"]
