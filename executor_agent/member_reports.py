"""What an agent reports of its member, and how each report is sent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from coordinator.core.gpu import GpuSight
from coordinator.core.model import ExitReport
from coordinator.core.stall_timeouts import Section
from coordinator.member_client import Attendance

_MAX_NAMES, _MAX_NAME = 100, 200  # a larger message would be refused, and tried for ever
_STEPS = 2**63


@dataclass(frozen=True, slots=True)
class Ready:
    versions: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Entered:
    generation: int


@dataclass(frozen=True, slots=True)
class Progressed:
    generation: int
    step: int
    metrics: Mapping[str, float] = field(default_factory=dict)
    section: Section = Section.STEP


@dataclass(frozen=True, slots=True)
class Inspected:
    """The answer to ``InspectGpus``."""

    number: int
    sights: tuple[GpuSight, ...]


@dataclass(frozen=True, slots=True)
class Claimed:
    """The answer to ``ClaimGpus``: all of them, unless some were refused; then none."""

    number: int
    refused: tuple[GpuSight, ...] = ()


@dataclass(frozen=True, slots=True)
class Ended:
    generation: int
    report: ExitReport


@dataclass(frozen=True, slots=True)
class Leaving:
    """The last word: nothing more will come."""

    reason: str


@dataclass(frozen=True, slots=True)
class Dumped:
    """The answer to ``DumpStack``."""

    text: str


Report = Ready | Entered | Progressed | Dumped | Inspected | Claimed | Ended | Leaving

REPLACEABLE = (Progressed, Dumped, Inspected, Claimed)
"""What a later one of its kind makes void: who was told to claim again has answered for nothing."""


def report_from(message: Mapping[str, Any], generation: int) -> Report | None:
    """What a member's process says, as it can travel; None when it concerns nobody else.

    Raises ValueError when it makes no sense: user code has a hand in it.
    """
    try:
        match message:
            case {"event": "ready", "versions": versions}:
                texts = islice(versions.items(), _MAX_NAMES)
                return Ready({_name(key): _name(value) for key, value in texts})
            case {"event": "running"}:
                return Entered(generation)
            case {"event": "progress", "step": step, "metrics": metrics}:
                pairs = islice(metrics.items(), _MAX_NAMES)
                numbers = {_name(key): float(value) for key, value in pairs}
                if not 0 <= int(step) < _STEPS:
                    raise ValueError(f"step {str(step)[:50]} is out of range")
                section = Section(message.get("section", Section.STEP.value))
                return Progressed(generation, int(step), numbers, section)
    except (ArithmeticError, AttributeError, TypeError) as error:
        raise ValueError(f"{str(message)[:200]}: {error}") from None
    return None  # "finished" is read from the file, which survives a kill


def _name(value: object) -> str:
    return str(value)[:_MAX_NAME].encode(errors="backslashreplace").decode()


async def send(session: Attendance, sequence: int, report: Report) -> None:
    """Raises what a session raises that is over."""
    match report:
        case Ready(versions=versions):
            await session.ready(sequence, versions)
        case Entered(generation=generation):
            await session.main_entered(sequence, generation)
        case Progressed():
            told = report.generation, report.step, report.metrics, report.section
            await session.progress(sequence, *told)
        case Dumped(text=text):
            await session.stack_dumped(sequence, text)
        case Inspected(number=number, sights=sights):
            await session.gpus_inspected(sequence, number, sights)
        case Claimed(number=number, refused=refused):
            await session.gpus_claimed(sequence, number, refused)
        case Ended(generation=generation, report=end):
            await session.process_exited(sequence, generation, end)
        case Leaving(reason=reason):
            await session.goodbye(sequence, reason)
