"""A line of ``tflease doctor``, and the versions that it takes for good."""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass

RANGES: Mapping[str, tuple[str, str]] = {
    "grpcio": ("1.76", ""),
    "protobuf": ("6.31.1", "8"),
    "pyarrow": ("18.0", ""),
    "pyspark": ("4.0", "5"),
    "tensorflow": ("2.20", "3"),
}
"""From the first version to before the second, as pyproject.toml asks for them (a test compares):
a package installed by other means than pip's resolver may be outside."""


class Status(enum.Enum):
    """FAILED: a run would not work. NOTE: it will, but somebody may want to know."""

    OK = "ok"
    NOTE = "note"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Check:
    """One line: what was looked at, what was found, and what to do about it (never empty when it
    has failed)."""

    name: str
    status: Status
    found: str
    advice: str = ""

    def to_plain(self) -> dict[str, str]:
        """For JSON."""
        return {
            "name": self.name,
            "status": self.status.value,
            "found": self.found,
            "advice": self.advice,
        }


def ok(name: str, found: str) -> Check:
    """All is well."""
    return Check(name, Status.OK, found)


def note(name: str, found: str, advice: str = "") -> Check:
    """Works, with something to know."""
    return Check(name, Status.NOTE, found, advice)


def failed(name: str, found: str, advice: str) -> Check:
    """Would not work."""
    return Check(name, Status.FAILED, found, advice)


def why_outside(package: str, version: str) -> str:
    """ "1.70, which is not >=1.76"; "" for a version that will do."""
    first, before = RANGES[package]
    too_old = _numbers(version) < _numbers(first)
    too_new = bool(before) and _numbers(version) >= _numbers(before)
    if not (too_old or too_new):
        return ""
    wanted = f">={first},<{before}" if before else f">={first}"
    return f"{version}, which is not {wanted}"


def _numbers(version: str) -> tuple[int, ...]:
    """Trailing zeros say nothing: 8.0 is 8."""
    release = re.match(r"[\d.]*", version)
    numbers = [int(part) for part in (release[0] if release else "").split(".") if part]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)
