"""A gang as large as we promise; the coordinator is the same as in production."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections import Counter

import pytest

from coordinator.core.model import Cause, Roles, RunPhase, RunSpec
from coordinator.testing import FakeFleet, FakeGang, Moment, Script, Serving

pytestmark = [pytest.mark.timeout(120), pytest.mark.slow]

ROLES = Roles(chief=1, worker=900, ps=99)


async def test_a_thousand_members_form_a_gang_and_end(
    coordinator: Serving, record_property
) -> None:
    run_id = coordinator.create_run(RunSpec(ROLES, beat_interval=10))
    async with FakeGang(coordinator.address, coordinator.token, run_id, ROLES) as gang:
        began = time.monotonic()
        async with asyncio.timeout(60):
            await gang.form()
        formed = time.monotonic() - began
        start = gang["worker:899"].start
        assert all(member.start == start for member in gang)
        assert len(start.cluster_spec["worker"]) == 900
        await gang.enter()
        await gang.beat()
        assert coordinator.view(run_id).phase is RunPhase.RUNNING
        await gang.finish()
        assert (await coordinator.ended(run_id)).phase is RunPhase.SUCCEEDED
    record_property("seconds to form", formed)
    record_property("seconds in all", time.monotonic() - began)
    print(f"formed after {formed:.2f} s, ended after {time.monotonic() - began:.2f} s")


FAULTS = {
    range(20): Script(joins_after="late"),
    range(20, 50): Script(duplicates=1),
    range(50, 70): Script(impostors=1),
    range(70, 80): Script(wrong_generations=(1, 6)),
    range(80, 90): Script(half_open=2, half_messages=2),
    range(90, 91): Script(floods=10**9, works_until="done"),
}


def faulty() -> dict[str, Script]:
    """The chief, which ends the run, stays until all faults have been seen."""
    scripts = {f"worker:{index}": script for indices, script in FAULTS.items() for index in indices}
    return {**scripts, "chief:0": Script(works_until="done")}


async def test_a_thousand_members_of_four_processes_with_faults_among_them_form_and_end_well(
    coordinator: Serving, record_property
) -> None:
    """R3, R4, R5 at scale: everybody has a connection of its own."""
    run_id = coordinator.create_run(RunSpec(ROLES))
    scripts = faulty()
    late = [f"worker:{index}" for index in range(20)]
    async with FakeFleet(
        coordinator.address, coordinator.token, run_id, ROLES, scripts=scripts, processes=4
    ) as fleet:
        fleet.begin()
        await fleet.until(Moment.READY, without=late, timeout=60)
        assert coordinator.view(run_id).phase is RunPhase.FORMING
        fleet.open("late")
        formed_at = await fleet.until(Moment.STARTED, timeout=60)
        await fleet.until(Moment.ENTERED, timeout=60)
        run = coordinator.view(run_id)
        assert (run.phase, run.generation) == (RunPhase.RUNNING, 1)
        await flood_is_heard(coordinator, run_id)
        fleet.open("done")
        outcomes = await fleet.finish(timeout=60)
        assert (await coordinator.ended(run_id)).phase is RunPhase.SUCCEEDED
        last = max(fleet.moments[member][Moment.RESERVED] for member in late)
    assert not [outcome for outcome in outcomes.values() if outcome.error]
    causes = Counter(outcome.report.cause for outcome in outcomes.values())
    assert causes.keys() <= {Cause.COMPLETED, Cause.STOPPED}
    tallies: Counter[str] = Counter()
    for outcome in outcomes.values():
        tallies.update(dataclasses.asdict(outcome.tally))
    assert tallies["stood_by"] >= 30
    assert tallies["flooded"] > 1000
    assert {name: tallies[name] for name in ("refused", "lies", "half_sent")} == {
        "refused": 2 * 20,
        "lies": 10 * 2 * 2 * 3,
        "half_sent": 10 * 2,
    }
    assert (tallies["usurped"], tallies["admitted"]) == (0, 0)
    record_property("seconds from the last reservation to the last spec", formed_at - last)


async def flood_is_heard(coordinator: Serving, run_id) -> None:
    def step(run) -> int:
        return next(member.step for member in run.members if str(member.id) == "worker:90")

    async with asyncio.timeout(60):
        await coordinator.until(run_id, lambda run: step(run) > 1000)
