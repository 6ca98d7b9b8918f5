"""An NVML without a GPU: its answers stand in files, which ``coordinator.testing.FakeGpus`` writes.

One JSON file a device: ``uuid``, ``index``, ``name``, ``memory_total``, ``memory_used``, ``pids``
and, where wanted, ``parent``, ``error`` (NVML's text), ``hang`` (seconds that every answer takes),
``until_gone`` (its pids hold the memory above ``memory_idle`` until they have ended, as on a real
one). ``nvml.json`` with an ``error``: NVML itself fails.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from executor_agent.core.gpu_choice import Device
from executor_agent.nvml_error import NvmlError
from executor_agent.processes import identity_of, is_running

VARIABLE = "TFLEASE_FAKE_NVML"
NVML_ITSELF = "nvml.json"
LOST = ("GPU is lost", "GPU requires reset")
"""The errors that mean that no process can use the device."""


class FakeNvml:
    """Answers from the folder's files, as they are when it is asked."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def devices(self) -> list[Device]:
        """As `nvml.Nvml.devices`."""
        if not self._folder.is_dir():
            raise NvmlError(f"{VARIABLE} names {self._folder}, which is no folder")
        found = []
        for path in sorted(self._folder.glob("*.json")):
            values = _read(path)
            if values is None:
                continue  # taken away meanwhile
            time.sleep(values.get("hang", 0))
            if path.name != NVML_ITSELF:
                found.append(_device(values))
            elif values.get("error"):
                raise NvmlError(f"NVML gives no answer: {values['error']}")
        return sorted(found, key=lambda device: (device.index, device.uuid))


def _read(path: Path) -> Mapping[str, Any] | None:
    try:
        values = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise NvmlError(f"{path} is no JSON: {error}") from None
    if not isinstance(values, dict):
        raise NvmlError(f"{path} is no JSON object")
    return values


def _device(values: Mapping[str, Any]) -> Device:
    pids, used = tuple(values.get("pids", ())), values.get("memory_used", 0)
    if values.get("until_gone"):
        pids = tuple(pid for pid in pids if (who := identity_of(pid)) and is_running(who))
        used = used if pids else values.get("memory_idle", 0)
    error = values.get("error", "")
    return Device(
        values["uuid"],
        values.get("index", -1),
        values.get("name", ""),
        values.get("memory_total", 0),
        used,
        pids,
        values.get("parent", ""),
        error,
        error in LOST,
    )
