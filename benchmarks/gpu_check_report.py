"""What ``gpu_check`` has measured, as a document."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from statistics import median

from benchmarks import machine
from coordinator.core.gpu import GpuSight
from executor_agent.core.gpu_choice import MIB


@dataclass
class Kind:
    """Milliseconds of one kind of round, each from the death of the last process that is killed."""

    name: str
    gone: list[float] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)
    granted: list[float] = field(default_factory=list)


def text(gpu: GpuSight, library: str, gib: float, kinds: list[Kind]) -> str:
    """The document."""
    rows = "\n".join(
        f"| {kind.name} | {len(kind.gone)} | {_spread(kind.gone)} | {_spread(kind.memory)} | "
        f"{_spread(kind.granted)} |"
        for kind in kinds
        if kind.granted
    )
    facts = {
        "GPU": f"{gpu.name}, {gpu.memory_total // MIB} MiB",
        "memory taken": f"{gib:g} GiB with {library}",
        **machine.facts(),
        "measured": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
    }
    return (
        "# GPU check\n\n"
        "Written by `make gpu-check`, on the machine named below: leases, claims on the host and\n"
        "proofs of release with real processes. Milliseconds from SIGKILL, median and worst.\n\n"
        "| round | rounds | the process is gone | NVML's memory is back | granted again |\n"
        "| --- | --- | --- | --- | --- |\n"
        f"{rows}\n\n"
        "- the parent killed: SIGKILL of the parent of the process that computes; the kernel kills "
        "that one.\n"
        "- a helper left: forked from the process that computes, and left alone by that one's "
        "death; no grant\n  before it is gone. Measured from its own SIGKILL.\n"
        "- a neighbour: a process without a lease or a claim; no grant, and it is left alone. "
        "Measured from its\n  end.\n\n"
        + "".join(f"- {name}: {value}\n" for name, value in facts.items())
    )


def _spread(values: list[float]) -> str:
    return f"{median(values):.1f} / {max(values):.1f}"
