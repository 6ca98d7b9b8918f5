"""What the figure ``heartbeats`` says: its bounds, tables and verdict. Measures nothing."""

from __future__ import annotations

from dataclasses import dataclass, field

from benchmarks.figure import Result, Table
from benchmarks.heartbeat_steps import PROBES, Step
from benchmarks.latency import bar, milliseconds
from benchmarks.spread import verdict_on
from coordinator.core.model import Roles, RunSpec

INTERVAL = RunSpec(Roles(worker=1)).beat_interval
"""Seconds between two beats of a member, by default."""

LATENCY_BOUND = 0.25
"""Seconds. What was promised: p99 from a beat's sending to its acknowledgement, at the default
interval."""

MEMORY_BOUND, MEMORY_BOUND_TLS = 45 * 1024, 110 * 1024
"""Bytes of the coordinator's memory for each member: in plain text, and with mutual TLS."""

PICKLES = "pickles over TCP (stand-in for TensorFlowOnSpark)"


@dataclass(slots=True)
class Measured:
    """All of one run."""

    members: int
    is_durable: bool = True
    with_tls: bool = False
    promised: Step | None = None
    curve: list[Step] = field(default_factory=list)
    beside: list[Step] = field(default_factory=list)
    bytes_per_member: float = 0.0
    full_at: float | None = None
    """Beats a second at which the core was full: faster ones were not tried."""
    skipped: list[str] = field(default_factory=list)
    trouble: list[str] = field(default_factory=list)


def result(measured: Measured) -> Result:
    """Tables and verdict."""
    return Result(
        what=(
            f"{measured.members:,} attended members, each on its own connection, beat at one "
            "coordinator on one core; their clients have the other cores."
        ),
        tables=(_curve(measured.curve), _beside(measured.beside)),
        notes=(
            f"Latency: from a beat's sending to its acknowledgement, seen by {PROBES} of the "
            "members in a process of their own. Behind: beats of all members without an "
            "acknowledgement when the step ended.",
            f"Resident memory: {measured.bytes_per_member / 1024:.1f} KiB a member, "
            f"{_wire(measured)}, journal {'on' if measured.is_durable else 'not in this version'}.",
            "Lost: members that the coordinator called lost at any time up to the end of the step. "
            "Cut off: connections that it has closed by then; these do not come back here.",
            "etcd runs with GOMAXPROCS=1, its data in a temporary folder; its clients are as ours. "
            "A keepalive of etcd's renews one lease; a beat of ours keeps a member and all of its "
            "leases.",
            "The reservation server of TensorFlowOnSpark is not installed here: the stand-in has "
            "its loop (select, a backlog of 10, pickles). It knows nobody's silence, and bears no "
            "more than about a thousand clients.",
            *_end_of_curve(measured),
            *(f"SKIPPED: {line}" for line in measured.skipped),
            *(f"WENT WRONG: {line}" for line in measured.trouble),
        ),
        verdict=_verdict(measured),
        is_sound=not measured.trouble,
    )


def _end_of_curve(measured: Measured) -> list[str]:
    if measured.full_at is None:
        return []
    return [
        f"At {measured.full_at:,.0f} beats a second the core was full: beyond that a queue only "
        "grows, and no faster step was tried."
    ]


def _verdict(measured: Measured) -> str:
    step = measured.promised
    if step is None:
        return "NOT MEASURED"
    lost = sum(each.lost for each in measured.curve[:1])
    memory = measured.bytes_per_member
    memory_bound = MEMORY_BOUND_TLS if measured.with_tls else MEMORY_BOUND
    texts = [
        f"p99 within {LATENCY_BOUND * 1000:.0f} ms at {INTERVAL:g} s: "
        f"{verdict_on(step.p99, LATENCY_BOUND)} ({milliseconds(step.took, 0.99)} ms)",
        f"no false loss: {verdict_on(lost, 0)} ({lost})",
        f"{memory_bound / 1024:.0f} KiB a member, {_wire(measured)}: "
        f"{verdict_on(memory, memory_bound)} "
        f"({memory / 1024:.1f})",
        *(f"beside {text}" for text in ratios(measured.beside)),
    ]
    return "; ".join(texts)


def _wire(measured: Measured) -> str:
    return "with mutual TLS" if measured.with_tls else "in plain text"


def ratios(beside: list[Step]) -> list[str]:
    """Ours against the others at the same rhythm: latency and core."""
    ours = {step.interval: step for step in beside if step.who == "tflease"}
    texts = []
    for step in beside:
        mine = ours.get(step.interval)
        if mine is None or step is mine or not step.took or not mine.took:
            continue
        core = f"{mine.core / step.core:.1f} of its core" if step.core else "no core to compare"
        texts.append(
            f"{step.who} at {step.interval:g} s: p99 {mine.p99 / step.p99:.1f} of its, {core}"
        )
    return texts


def _curve(steps: list[Step]) -> Table:
    rows = []
    for step in sorted(steps, key=lambda each: each.rate):
        rows.append(
            (
                f"{step.rate:,.0f}",
                f"{step.interval:.2f}",
                milliseconds(step.took, 0.5),
                milliseconds(step.took, 0.99),
                milliseconds(step.took, 1.0),
                f"{step.behind:,}",
                str(step.lost),
                str(step.cut_off),
                f"{step.core:.2f}",
                bar(step.core, 1.0),
            )
        )
    return Table(
        title="The curve; latencies in milliseconds",
        columns=(
            "beats a second",
            "interval, s",
            "p50",
            "p99",
            "worst",
            "behind",
            "lost",
            "cut off",
            "core",
            "core, drawn",
        ),
        rows=tuple(rows),
    )


def _beside(steps: list[Step]) -> Table:
    return Table(
        title="Side by side, each on the same one core; latencies in milliseconds",
        columns=("who", "peers", "interval, s", "p50", "p99", "worst", "behind", "core"),
        rows=tuple(
            (
                step.who,
                f"{step.peers:,}",
                f"{step.interval:g}",
                milliseconds(step.took, 0.5),
                milliseconds(step.took, 0.99),
                milliseconds(step.took, 1.0),
                f"{step.behind:,}",
                f"{step.core:.3f}",
            )
            for step in steps
        ),
    )


def spelled(step: Step) -> str:
    """A line of progress."""
    return (
        f"{step.who}: {step.peers} peers, {step.rate:,.0f} beats a second: p50 "
        f"{milliseconds(step.took, 0.5)}, p99 {milliseconds(step.took, 0.99)} ms, {step.behind} "
        f"behind, {step.lost} lost, {step.cut_off} cut off, {step.core:.2f} core"
    )
