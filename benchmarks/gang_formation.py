"""How long a thousand members, and five thousand, take to become a gang, and what that costs the
coordinator.

The coordinator is a process of its own, as in production. The members are fake executors from
several client processes, each member on its own connection: they speak the protocol and have no
process behind them, so that what is measured is the coordinator and the wire (and, on the same
cores, the clients).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import psutil

from benchmarks import machine
from benchmarks.figure import Figure, Result, Settings, Table
from benchmarks.spread import in_order, median_and_worst, verdict_on
from coordinator.client import RunClient
from coordinator.core import roster
from coordinator.core.model import Role, Roles, RunId, RunPhase, RunSpec
from coordinator.spark.coordinator_process import CoordinatorProcess
from coordinator.testing import FakeFleet, FleetFailed, Moment, Script

SIZES = (1_000, 5_000)

FEWER = 5
"""A gang that is larger than the smallest is measured so much less often."""

PROCESSES = 4

AT_ONCE, ONE_LAST = "all at once", "one comes last"
"""All reserve as fast as they can; or all but one are ready, and that one comes."""

BOUNDS = {(1_000, AT_ONCE): 1.0, (1_000, ONE_LAST): 1.0, (5_000, ONE_LAST): 5.0}
"""Seconds. What was promised: from the last reservation to all members having the spec, less than
that, in the median. Of 5,000 that all come at once it was promised that no call is lost."""

_TIMEOUT = 120.0
_END_TIMEOUT = 60.0


@dataclass(frozen=True, slots=True)
class Sample:
    """One gang, in seconds. ``reserving``: from the first call to the last reservation.
    ``forming``: from there to the last member having the spec. ``cpu``: of the coordinator until
    then, from the first call or, where one comes last, from its call. ``trouble``: what went
    wrong, if anything."""

    case: str
    size: int
    reserving: float = 0.0
    forming: float = 0.0
    cpu: float = 0.0
    resident_mib: float = 0.0
    was_quiet: bool = True
    trouble: str = ""


def measure(settings: Settings) -> Result:
    """Every repetition has a coordinator of its own, with no other run in its memory."""
    samples: list[Sample] = []
    sizes = (settings.members,) if settings.members else SIZES
    for number, size in enumerate(sizes):
        repeats = settings.repeats if number == 0 else max(1, settings.repeats // FEWER)
        for repeat in range(repeats):
            for case in (AT_ONCE, ONE_LAST) if repeat % 2 == 0 else (ONE_LAST, AT_ONCE):
                sample = take(case, size)
                samples.append(sample)
                settings.say(f"{len(samples):3}: {_spelled(sample)}")
    return result(samples)


def roles_of(size: int) -> Roles:
    """A tenth are parameter servers."""
    servers = size // 10 - 1
    return Roles(chief=1, worker=size - 1 - servers, ps=servers)


def take(case: str, size: int) -> Sample:
    """One coordinator, one gang, to its good end."""
    roles = roles_of(size)
    process = CoordinatorProcess("127.0.0.1", 0, "127.0.0.1")
    owner = RunClient(process.address, process.token, process.tls)
    try:
        run_id = owner.create(RunSpec(roles)).run_id
        sample = asyncio.run(_formed(case, process, run_id, roles))
        trouble = _end_of(owner, run_id) if not sample.trouble else ""
    finally:
        owner.close()
        process.close(_END_TIMEOUT)
    return sample if not trouble else Sample(case, size, trouble=trouble)


async def _formed(case: str, process: CoordinatorProcess, run_id: RunId, roles: Roles) -> Sample:
    # Nobody returns before everything has been looked at; ps serve by themselves.
    last = f"worker:{roles.worker - 1}"
    trainers = [member for member in roster.members(roles) if member.role is not Role.PS]
    scripts = {str(member): Script(works_until="measured") for member in trainers}
    if case == ONE_LAST:
        scripts[last] = Script(joins_after="last", works_until="measured")
    try:
        async with FakeFleet(
            process.address,
            process.token,
            run_id,
            roles,
            scripts=scripts,
            processes=PROCESSES,
            tls=process.tls,
        ) as fleet:
            was_quiet = await asyncio.to_thread(machine.settle)
            server = psutil.Process(process.pid)
            began_at, cpu = time.monotonic(), _cpu(server)
            fleet.begin()
            if case == ONE_LAST:
                await fleet.until(Moment.READY, without=[last], timeout=_TIMEOUT)
                cpu = _cpu(server)
                fleet.open("last")
            formed_at = await fleet.until(Moment.STARTED, timeout=_TIMEOUT)
            cpu = _cpu(server) - cpu
            resident = server.memory_info().rss / 2**20
            reserved_at = max(seen[Moment.RESERVED] for seen in fleet.moments.values())
            fleet.open("measured")
            outcomes = await fleet.finish(timeout=_TIMEOUT)
    except FleetFailed as failed:
        return Sample(case, roles.total, trouble=str(failed))
    refused = [f"{each.member}: {each.error}" for each in outcomes.values() if each.error]
    return Sample(
        case=case,
        size=roles.total,
        reserving=reserved_at - began_at,
        forming=formed_at - reserved_at,
        cpu=cpu,
        resident_mib=resident,
        was_quiet=was_quiet,
        trouble="; ".join(refused[:3]),
    )


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _end_of(owner: RunClient, run_id: RunId) -> str:
    """What is wrong with how the run ended."""
    view = owner.get(run_id)
    return "" if view.phase is RunPhase.SUCCEEDED else f"the run is {view.phase.value}"


# --- what it means --------------------------------------------------------------------------------


def result(samples: Sequence[Sample]) -> Result:
    """The tables and the verdict."""
    good = [sample for sample in samples if not sample.trouble]
    trouble = [f"{_name(each)}: {each.trouble}" for each in samples if each.trouble]
    cases = dict.fromkeys((each.size, each.case) for each in good)
    busy = sum(not sample.was_quiet for sample in good)
    return Result(
        what=(
            "From the last reservation of a gang's members to all of them having the cluster spec, "
            "as the members see it."
        ),
        tables=(_times(good, list(cases)), _all_values(good, list(cases))),
        notes=(
            f"Fake executors from {PROCESSES} client processes, each on a connection of its own "
            "with mutual TLS, and the coordinator in a process of its own on the same machine: the "
            "clients need more of the cores than the coordinator does.",
            f"{AT_ONCE}: all reserve, attend and are ready as fast as they can. {ONE_LAST}: all "
            "others are ready and wait; its reserving is from the first call of the others.",
            "Coordinator's CPU: user and system time, all of its threads; from the first call, or "
            f"(where {ONE_LAST}) from its call, until all have the spec. The first members enter "
            "main_fun before that, which is in it.",
            "Read, not measured here: TensorFlowOnSpark 2.2.5's reservation server was measured "
            "on a like machine by its own clients: 50 at once took 2.0 s, 200 took 14 s and left "
            "one out, 1,000 were never done within 150 s.",
            machine.settling("gang", busy, len(good)),
            *(f"WENT WRONG: {line}" for line in trouble),
        ),
        verdict=(_verdict(good) or "NOT MEASURED") + ("" if trouble else "; no call was lost"),
        is_sound=not trouble,
    )


def _verdict(samples: Sequence[Sample]) -> str:
    texts = []
    for size, case in dict.fromkeys((each.size, each.case) for each in samples):
        found = median(each.forming for each in samples if (each.size, each.case) == (size, case))
        bound = BOUNDS.get((size, case))
        how = f" (bound {bound:g} s: {verdict_on(found, bound)})" if bound is not None else ""
        texts.append(f"{size:,} members, {case}: {found:.2f} s{how}")
    return "; ".join(texts)


def _times(samples: Sequence[Sample], cases: Sequence[tuple[int, str]]) -> Table:
    rows = []
    for size, case in cases:
        chosen = [each for each in samples if (each.size, each.case) == (size, case)]
        rows.append(
            (
                f"{size:,}",
                case,
                *median_and_worst([each.reserving for each in chosen], 2),
                *median_and_worst([each.forming for each in chosen], 2),
                *median_and_worst([each.cpu for each in chosen], 2),
                f"{max(each.resident_mib for each in chosen):.0f}",
                str(len(chosen)),
            )
        )
    return Table(
        title="Seconds; medians, and the worst beside each",
        columns=(
            "members",
            "they come",
            "reserving",
            "worst",
            "last reservation to last spec",
            "worst",
            "coordinator's CPU",
            "worst",
            "its memory, MiB, worst",
            "gangs",
        ),
        rows=tuple(rows),
    )


def _all_values(samples: Sequence[Sample], cases: Sequence[tuple[int, str]]) -> Table:
    rows = []
    for size, case in cases:
        chosen = [each.forming for each in samples if (each.size, each.case) == (size, case)]
        rows.append((f"{size:,}", case, in_order(chosen, 2)))
    return Table(
        title="Last reservation to last spec, every gang, sorted",
        columns=("members", "they come", "seconds"),
        rows=tuple(rows),
    )


def _name(sample: Sample) -> str:
    return f"{sample.size:,} members, {sample.case}"


def _spelled(sample: Sample) -> str:
    if sample.trouble:
        return f"{_name(sample)}: WENT WRONG: {sample.trouble}"
    return (
        f"{_name(sample)}: reserved in {sample.reserving:.2f} s, all have the spec "
        f"{sample.forming:.2f} s later; coordinator {sample.cpu:.2f} s of CPU, "
        f"{sample.resident_mib:.0f} MiB"
    )


FIGURE = Figure(
    name="gang-formation",
    summary="1,000 and 5,000 members, from the last reservation to all having the spec",
    measure=measure,
    repeats=5,
)
