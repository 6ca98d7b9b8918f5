"""How long the coordinator takes to grant a free GPU while it keeps the leases of many others.

The core alone, through its one door: from the event that makes the last member ready to the
command that tells its agent to claim. No process, no network, no host: what is measured is what
grows with the number of leases.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.figure import Figure, Result, Settings, Table
from benchmarks.spread import median_and_worst, verdict_on
from coordinator.core import effects, events
from coordinator.core.gpu import GpuOffer, GpuSight, LeaseState
from coordinator.core.machine import Machine
from coordinator.core.model import (
    Endpoint,
    ExecutorInfo,
    IncarnationId,
    MemberId,
    Role,
    Roles,
    RunId,
    RunSpec,
)

BOUND = 20.0
"""Milliseconds. What was promised: the grant of a free GPU at `PROMISED` leases takes less."""

PROMISED = 1_000
SIZES = (100, 1_000, 5_000)

GPUS_PER_HOST = 8
MEMBERS_PER_RUN = 100


@dataclass(frozen=True, slots=True)
class Sample:
    """One grant, in milliseconds. ``granting``: from the event to the command. ``deadline``: what
    the engine asks after every event, when the next one is due."""

    leases: int
    granting: float
    deadline: float


def measure(settings: Settings) -> Result:
    """One coordinator for each size; one run after the other asks for its one GPU."""
    samples: list[Sample] = []
    for leases in SIZES:
        machine = filled(leases)
        for number in range(settings.repeats):
            samples.append(take(machine, leases, number))
        settings.say(f"{leases} leases: {' / '.join(_cells(samples, leases))} ms")
    return result(samples)


def filled(leases: int) -> Machine:
    """A coordinator of runs at work, which hold so many GPUs."""
    machine = Machine("figure")
    for first in range(0, leases, MEMBERS_PER_RUN):
        _form(machine, f"run{first}", first, min(MEMBERS_PER_RUN, leases - first))
    held = sum(view.state is LeaseState.HELD for view in machine.book.views())
    assert held == leases, f"{held} leases instead of {leases}"
    return machine


def take(machine: Machine, leases: int, number: int) -> Sample:
    """A run of one member that asks for a free GPU, and gives it back afterwards."""
    name = f"asks{number}"
    last = _ready(machine, name, leases, 1)
    began = time.perf_counter()
    done = machine.handle(last[0], 0.0)
    granted = time.perf_counter()
    machine.next_deadline()
    asked = time.perf_counter()
    claims = [each for each in done if isinstance(each, effects.ClaimGpus) and each.grants]
    assert len(claims) == 1, f"not granted: {done}"
    machine.handle(events.StopRequested(RunId(name), "measured"), 0.0)
    return Sample(leases, (granted - began) * 1000, (asked - granted) * 1000)


def _form(machine: Machine, name: str, first: int, members: int) -> None:
    """To the start: claimed by everybody."""
    done: Sequence[effects.Effect] = ()
    for event in _ready(machine, name, first, members):
        done = machine.handle(event, 0.0)
    for each in done:
        if isinstance(each, effects.ClaimGpus):
            who = (each.run_id, each.member, each.incarnation)
            machine.handle(events.GpusClaimed(*who, each.number), 0.0)


def _ready(machine: Machine, name: str, first: int, members: int) -> list[events.Event]:
    """A run whose members have reserved; their being ready is left to the caller. Each can have
    any GPU of its host."""
    run_id = RunId(name)
    spec = RunSpec(Roles(worker=members), gpus=Roles(worker=1))
    machine.handle(events.RunCreated(run_id, spec), 0.0)
    ready: list[events.Event] = []
    for index in range(members):
        host = (first + index) // GPUS_PER_HOST
        gpus = range(host * GPUS_PER_HOST, (host + 1) * GPUS_PER_HOST)
        offer = GpuOffer(tuple(GpuSight(f"GPU-{gpu}", True) for gpu in gpus))
        slot = MemberId(Role.WORKER, index)
        who = (run_id, slot, IncarnationId(f"{name}/{index}"))
        executor = ExecutorInfo(f"host{host}", f"boot{host}", 1)
        endpoint = Endpoint(f"10.{host // 250}.{host % 250}.1", 2000 + index)
        machine.handle(events.ReservationRequested(*who, executor, endpoint, offer), 0.0)
        ready.append(events.ProcessReady(*who))
    return ready


def _cells(samples: Sequence[Sample], leases: int) -> tuple[str, ...]:
    of_size = [sample for sample in samples if sample.leases == leases]
    granting = median_and_worst([sample.granting for sample in of_size], digits=2)
    return (*granting, *median_and_worst([sample.deadline for sample in of_size], digits=2))


def result(samples: Sequence[Sample]) -> Result:
    """Tables and verdict."""
    sizes = sorted({sample.leases for sample in samples})
    worst = max(sample.granting for sample in samples if sample.leases == PROMISED)
    bound = f"a grant within {BOUND:g} ms at {PROMISED} leases"
    return Result(
        what=(
            "From the event that completes a gang of one to the command to claim its GPU, in the "
            "coordinator's core; all other leases are held by runs of "
            f"{MEMBERS_PER_RUN} members, on hosts of {GPUS_PER_HOST} GPUs."
        ),
        tables=(
            Table(
                "Milliseconds",
                (
                    "leases held",
                    "grant, median",
                    "grant, worst",
                    "next deadline, median",
                    "next deadline, worst",
                ),
                tuple((str(size), *_cells(samples, size)) for size in sizes),
            ),
        ),
        notes=(
            "The next deadline is what the coordinator works out after every event.",
            "Network, the agent's claim on its host and its look at NVML are not in these numbers.",
        ),
        verdict=f"{bound}: {verdict_on(worst, BOUND)} (worst {worst:.2f} ms)",
        is_sound=True,
    )


FIGURE = Figure(
    name="leases",
    summary="grant of a free GPU beside 100, 1,000 and 5,000 leases",
    measure=measure,
    repeats=200,
)
