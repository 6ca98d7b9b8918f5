"""What a fleet and its client processes tell each other: JSON, a line each."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from coordinator.core.model import ExitReport
from coordinator.testing.script import Moment, Script
from coordinator.testing.tally import Tally


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one member of a fleet lived, and how it ended."""

    member: str

    report: ExitReport | None = None
    """As ``FakeExecutor.live`` returns it: None when it died, fell silent, or came too late."""

    error: str = ""
    """What it was refused with, when its life ended by that; else empty."""

    ended_at: float = 0.0
    """On the clock of ``time.monotonic``, which all processes of a machine share."""

    tally: Tally = field(default_factory=Tally)

    def to_dict(self) -> dict[str, Any]:
        """What ``from_dict`` reads, ready for JSON."""
        report = self.report.to_json() if self.report is not None else None
        return {**asdict(self), "report": report}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Outcome:
        """Raises TypeError or ValueError for anything but what ``to_dict`` makes."""
        report = values["report"]
        return cls(
            **{
                **values,
                "report": ExitReport.from_json(report) if report is not None else None,
                "tally": Tally(**values["tally"]),
            }
        )


@dataclass(frozen=True, slots=True)
class Crew:
    """What one client process is told before anything else: whom it plays, and against whom."""

    address: str
    token: str = field(repr=False)
    run_id: str
    parent_pid: int
    shares_connection: bool
    python_version: str
    scripts: Mapping[str, Script | None]
    """By member; None: a good member of its role."""
    tls: Mapping[str, str] | None = field(default=None, repr=False)

    def to_line(self) -> bytes:
        """One line. Raises ValueError when a script cannot travel."""
        values = {name: getattr(self, name) for name in self.__slots__}
        values["scripts"] = {
            member: script.to_dict() if script is not None else None
            for member, script in self.scripts.items()
        }
        return line(values)

    @classmethod
    def from_line(cls, text: bytes) -> Crew:
        """Raises ValueError."""
        try:
            values = json.loads(text)
            values["scripts"] = {
                member: Script.from_dict(script) if script is not None else None
                for member, script in values["scripts"].items()
            }
            return cls(**values)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a crew: {error!r}") from None


def line(values: Mapping[str, Any]) -> bytes:
    """One message."""
    return json.dumps(values).encode() + b"\n"


MomentSeen = tuple[str, Moment, float]
"""Who got how far, and when."""


def moments_line(seen: list[MomentSeen]) -> bytes:
    """News of many members in one message: a line each would cost more than what it tells."""
    return line({"moments": [(member, moment.name, at) for member, moment, at in seen]})


def moments_of(message: Mapping[str, Any]) -> list[MomentSeen]:
    """The other direction."""
    return [(member, Moment[name], at) for member, name, at in message["moments"]]
