"""What a number depends on: the machine, the versions, how busy it was; and waiting until it is
not."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import time
from pathlib import Path

import psutil

_DISTRIBUTIONS = ("tflease", "tensorflow", "pyspark", "grpcio", "protobuf", "pyarrow", "psutil")

_SETTLE = 0.5  # seconds: what the start has stirred up must not be measured
_QUIET_PERCENT = 30.0  # of all cores, by anybody
_PATIENCE = 4.0  # seconds to wait for that


def facts() -> dict[str, str]:
    """Facts by name; reads /proc and metadata only."""
    versions = (f"{name} {_version(name)}" for name in _DISTRIBUTIONS)
    return {
        "processor": f"{_processor()}, {len(os.sched_getaffinity(0))} cores for us",
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
        "versions": ", ".join(versions),
    }


def load() -> str:
    """The load average of the last minute."""
    return f"{os.getloadavg()[0]:.1f}"


def settle() -> bool:
    """Waits until nobody needs the cores, not for ever; whether that came."""
    deadline = time.monotonic() + _PATIENCE
    while psutil.cpu_percent(interval=_SETTLE) > _QUIET_PERCENT:
        if time.monotonic() > deadline:
            return False
    return True


def settling(what: str, busy: int, total: int) -> str:
    """What `settle` came to, for the notes of a figure."""
    return (
        f"Before each {what} the cores had to be less than {_QUIET_PERCENT:g} % busy; {busy} of "
        f"{total} were done although they were not, within {_PATIENCE:g} s."
    )


def core_seconds() -> float:
    """Seconds that the cores have worked since the machine's start, for anybody and added up.
    Two of these tell what happened in between; waiting for a disk is no work."""
    times = psutil.cpu_times()
    away = times.idle + getattr(times, "iowait", 0.0)
    # A guest's time is in `user` as well.
    guests = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)
    return float(sum(times) - away - guests)


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
