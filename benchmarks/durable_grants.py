"""How many GPUs a second one coordinator grants, each answered after its commit; and how long it
takes to know ten thousand leases again. etcd's leases beside it, in the same run.

Both are on the same one core, with their data on the same disk, and are asked by the same client
process in the same way.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import etcd
from benchmarks.client_process import ClientProcess, ClientTrouble
from benchmarks.cores import cores
from benchmarks.daemon import Daemon, has_journal
from benchmarks.figure import Figure, Result, Settings, Table
from benchmarks.latency import milliseconds
from benchmarks.spread import verdict_on
from coordinator.core.errors import TfleaseError
from coordinator.core.gpu import GpuSight, Want
from coordinator.gpu_client import GpuClient

RATE_BOUND = 3_000
"""Grants a second. What was promised at `PROMISED` outstanding."""

PROMISED = 100
ROUNDS = {1: 300, 10: 1_200, PROMISED: 3_500}
"""How many grants are asked for in each way, by the number outstanding: ten thousand in all."""

WAYS = {"tflease, calls": "gpus", "tflease, streams": "gpus by stream"}

RECOVERY_BOUND = 0.5
"""Seconds that ten thousand leases may add to a daemon's start."""

GPUS_PER_HOST = 100
_MODULE = "benchmarks.grant_load"
_ROUND_TIMEOUT = 180.0


@dataclass(frozen=True, slots=True)
class Round:
    """So many outstanding. ``cpu``: the server's processor time for each grant."""

    who: str
    outstanding: int
    rate: float
    took: tuple[float, ...]
    cpu: float


@dataclass(slots=True)
class Measured:
    """All of one run. ``recovery``: seconds from the start of a daemon with all these leases to
    its first answer; ``empty``: of a daemon without any."""

    is_durable: bool = True
    rounds: list[Round] = field(default_factory=list)
    recovery: float | None = None
    empty: float | None = None
    skipped: list[str] = field(default_factory=list)
    trouble: list[str] = field(default_factory=list)


def measure(settings: Settings) -> Result:
    """Grants of ours, the daemon's death and return, then grants of etcd's."""
    measured = Measured(is_durable=has_journal())
    usual = len(WAYS) * sum(ROUNDS.values())
    share = (settings.members or usual) / usual
    sizes = {outstanding: max(1, int(size * share)) for outstanding, size in ROUNDS.items()}
    with tempfile.TemporaryDirectory(prefix="tflease-grants-") as name:
        folder = Path(name)
        try:
            _ours(settings, folder, sizes, measured)
            _etcd(settings, folder, sizes, measured)
        except (ClientTrouble, RuntimeError, TfleaseError) as trouble:
            measured.trouble.append(str(trouble))
    return result(measured)


def _ours(settings: Settings, folder: Path, sizes: dict[int, int], measured: Measured) -> None:
    core, others = cores()
    total = len(WAYS) * sum(sizes.values())
    names = [f"GPU-{number:06}" for number in range(total)]
    server = Daemon(folder / "ours", core)
    server.start()
    try:
        _report(server, names)
        known = {"host": server.host, "port": server.port, "token": server.token}
        granted: dict[str, int] = {}
        for who, kind in WAYS.items():
            with ClientProcess(_MODULE, {**known, "kind": kind}, others) as client:
                for outstanding, size in sizes.items():
                    mine, names = names[:size], names[size:]
                    each, grants = _round(who, client, lambda: server.cpu, outstanding, mine)
                    measured.rounds.append(each)
                    granted.update(grants)
                    settings.say(_spelled(each))
        measured.trouble += _wrong(granted, total)
        server.kill()
        if measured.is_durable:
            _recover(settings, server, folder, granted, measured)
        else:
            measured.skipped.append("recovery: the daemon of this version has no journal")
    finally:
        server.stop()


def _report(server: Daemon, names: Sequence[str]) -> None:
    client = GpuClient(server.address, server.token)
    try:
        for first in range(0, len(names), GPUS_PER_HOST):
            sights = [GpuSight(uuid, True) for uuid in names[first : first + GPUS_PER_HOST]]
            client.report(f"host{first // GPUS_PER_HOST}", "boot", sights)
    finally:
        client.close()


def _round(
    who: str,
    client: ClientProcess,
    cpu: Callable[[], float],
    outstanding: int,
    names: Sequence[str],
) -> tuple[Round, dict[str, int]]:
    before = cpu()
    client.tell({"outstanding": outstanding, "names": names})
    answer = client.hear(_ROUND_TIMEOUT)
    if answer["cut_off"]:
        raise ClientTrouble(f"{who}: {answer['cut_off']}")
    spent = (cpu() - before) / len(names)
    took = tuple(answer["took"])
    return Round(who, outstanding, len(names) / answer["seconds"], took, spent), dict(
        answer["grants"]
    )


def _wrong(granted: dict[str, int], total: int) -> list[str]:
    """What must not be said of grants."""
    wrong = []
    if len(granted) != total:
        wrong.append(f"{len(granted)} GPUs were granted instead of {total}")
    if len(set(granted.values())) != len(granted):
        wrong.append("two grants have the same number")
    return wrong


def _recover(
    settings: Settings,
    server: Daemon,
    folder: Path,
    granted: dict[str, int],
    measured: Measured,
) -> None:
    """The first answer is that to a request which was granted before: with the same token."""
    name, number = next(reversed(granted.items()))
    core, _ = cores()
    nothing = Daemon(folder / "empty", core)
    try:
        measured.empty = _first_answer(nothing, None)[0]
    finally:
        nothing.kill()
    measured.recovery, again = _first_answer(server, name)
    if again != number:
        measured.trouble.append(f"{name} had the token {number} and has {again} after a restart")
    settings.say(
        f"first answer {measured.recovery:.2f} s after the start, {measured.empty:.2f} s "
        "without leases"
    )


def _first_answer(server: Daemon, name: str | None) -> tuple[float, int]:
    """Seconds from the daemon's start, and the token's number of that GPU's lease."""
    began_at = server.start()
    client = GpuClient(server.address, server.token)
    try:
        if name is None:
            client.report("host", "boot", [GpuSight("GPU-new", True)])
            name = "GPU-new"
        [grant], _ = client.acquire(name, "measured", [Want("one", (name,), 1)], 0.0)
        return time.monotonic() - began_at, grant[2].number
    finally:
        client.close()


def _etcd(settings: Settings, folder: Path, sizes: dict[int, int], measured: Measured) -> None:
    if why := etcd.why_not():
        settings.say(f"etcd: skipped, {why}")
        measured.skipped.append(why)
        return
    core, others = cores()
    with etcd.Etcd(folder, core) as server:
        known = {"kind": "etcd", "host": server.host, "port": server.port}
        who = f"etcd {etcd.version()}"
        with ClientProcess(_MODULE, known, others) as client:
            for outstanding, size in sizes.items():
                names = [""] * size
                each, _ = _round(who, client, lambda: server.cpu, outstanding, names)
                measured.rounds.append(each)
                settings.say(_spelled(each))


# --- what it means --------------------------------------------------------------------------------


def result(measured: Measured) -> Result:
    """Table and verdict."""
    durable = (
        "after its commit" if measured.is_durable else "without a journal: this version has none"
    )
    return Result(
        what=(
            f"Grants of one GPU each, answered {durable}, and grants of etcd's leases; each on the "
            "same one core, asked by the same clients."
        ),
        tables=(_table(measured.rounds),),
        notes=(
            "Outstanding: so many questions are never answered yet, over at most four connections. "
            "Calls: AcquireGpus for each. Streams: a UseGpus stream on each connection. etcd's "
            "LeaseGrant is a call.",
            "etcd: one member, GOMAXPROCS=1, its data in the same temporary folder.",
            *_recovery_note(measured),
            *(f"SKIPPED: {line}" for line in measured.skipped),
            *(f"WENT WRONG: {line}" for line in measured.trouble),
        ),
        verdict=_verdict(measured),
        is_sound=not measured.trouble,
    )


def _recovery_note(measured: Measured) -> tuple[str, ...]:
    if measured.recovery is None or measured.empty is None:
        return ()
    return (
        f"Recovery: kill -9, then {measured.recovery:.2f} s from the start of the daemon to its "
        f"first answer, {measured.empty:.2f} s for one without leases.",
    )


def _verdict(measured: Measured) -> str:
    promised = {each.who: each for each in measured.rounds if each.outstanding == PROMISED}
    mine = [each for who, each in promised.items() if who in WAYS]
    if not mine:
        return "NOT MEASURED"
    ours = max(mine, key=lambda each: each.rate)
    durable = "durable grants" if measured.is_durable else "grants (NOT durable: no journal)"
    texts = [
        f"{RATE_BOUND:,} {durable} a second at {PROMISED} outstanding: "
        f"{verdict_on(RATE_BOUND, ours.rate)} ({ours.rate:,.0f}, {ours.who})"
    ]
    for who, other in promised.items():
        if other is not ours:
            texts.append(f"{ours.rate / other.rate:.2f} of {who}'s rate")
    if measured.recovery is not None and measured.empty is not None:
        added = measured.recovery - measured.empty
        texts.append(
            f"recovery within {RECOVERY_BOUND:g} s: {verdict_on(added, RECOVERY_BOUND)} "
            f"({added:.2f} s more than an empty start)"
        )
    return "; ".join(texts)


def _table(rounds: Sequence[Round]) -> Table:
    return Table(
        title="Latencies in milliseconds",
        columns=("who", "outstanding", "grants a second", "p50", "p99", "worst", "CPU each, us"),
        rows=tuple(
            (
                each.who,
                str(each.outstanding),
                f"{each.rate:,.0f}",
                milliseconds(each.took, 0.5),
                milliseconds(each.took, 0.99),
                milliseconds(each.took, 1.0),
                f"{each.cpu * 1e6:.0f}",
            )
            for each in rounds
        ),
    )


def _spelled(each: Round) -> str:
    return (
        f"{each.who}: {each.outstanding} outstanding: {each.rate:,.0f} a second, p50 "
        f"{milliseconds(each.took, 0.5)}, p99 {milliseconds(each.took, 0.99)} ms"
    )


FIGURE = Figure(
    name="durable-grants",
    summary="grants a second at 1, 10 and 100 outstanding, etcd's beside them; recovery",
    measure=measure,
    repeats=1,
)
