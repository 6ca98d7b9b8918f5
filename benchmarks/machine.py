"""What a number depends on: the machine, the versions, how busy it was."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path

import psutil

_DISTRIBUTIONS = ("tflease", "tensorflow", "pyspark", "grpcio", "protobuf", "pyarrow", "psutil")


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
