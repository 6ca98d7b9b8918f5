"""GPUs for machines that have none: the files from which the agents' fake NVML answers."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Any

_GIB = 1 << 30


class FakeGpus:
    """The GPUs of a machine, in a folder. Whoever has ``environ`` in its environment sees them::

        gpus = FakeGpus(tmp_path)
        first, second = gpus.add(2)
        gpus.use(first, 5 << 30, [pid])  # somebody computes on it
        gpus.release(first)

    Each change is seen as a whole, by every process, at the next question.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def environ(self) -> dict[str, str]:
        """What makes an agent ask these, and keep its claims beside them."""
        return {
            "TFLEASE_FAKE_NVML": str(self.folder),
            "TFLEASE_GPU_CLAIMS": str(self.folder / "claims"),
        }

    def add(self, count: int = 1, **values: Any) -> list[str]:
        """More of them; their UUIDs. ``values``: of the file, instead of what is usual."""
        added: list[str] = []
        for _ in range(count):
            index = len(list(self.folder.glob("*-*.json")))
            uuid = f"GPU-{index:08x}-fa4e-4fa4-8fa4-{secrets.token_hex(6)}"
            device: dict[str, Any] = {
                "uuid": uuid,
                "index": index,
                "name": "NVIDIA H100 80GB HBM3",  # more than two words (G1)
                "memory_total": 80 * _GIB,
                "memory_used": 0,
                "memory_idle": 0,
                "pids": [],
            } | values
            self._write(device)
            added.append(device["uuid"])
        return added

    def use(
        self, uuid: str, memory: int, pids: Iterable[int] = (), *, until_gone: bool = False
    ) -> None:
        """Somebody uses ``memory`` bytes on it; NVML names ``pids``. ``until_gone``: until these
        processes have ended, and not until `release`."""
        device = self._read(uuid)
        used = device["memory_idle"] + memory
        self._write(device | {"memory_used": used, "pids": [*pids], "until_gone": until_gone})

    def release(self, uuid: str) -> None:
        """Nobody uses it any more."""
        device = self._read(uuid)
        self._write(device | {"memory_used": device["memory_idle"], "pids": []})

    def fail(self, uuid: str = "", error: str = "Unknown Error") -> None:
        """NVML fails for it, with this text; for all when no UUID is given. With "GPU is lost" or
        "GPU requires reset" the device can be used by nobody. An empty text: no more."""
        if uuid:
            self._write(self._read(uuid) | {"error": error})
        else:
            _replace(self.folder / "nvml.json", {"error": error} if error else {})

    def hang(self, uuid: str, seconds: float) -> None:
        """Every answer takes so long; 0: no more."""
        self._write(self._read(uuid) | {"hang": seconds})

    def remove(self, uuid: str) -> None:
        """NVML does not show it any more."""
        self._path(uuid).unlink()

    def _path(self, uuid: str) -> Path:
        return self.folder / f"{uuid.replace('/', '_')}.json"

    def _read(self, uuid: str) -> dict[str, Any]:
        values: dict[str, Any] = json.loads(self._path(uuid).read_bytes())
        return values

    def _write(self, device: dict[str, Any]) -> None:
        _replace(self._path(device["uuid"]), device)


def _replace(path: Path, values: dict[str, Any]) -> None:
    """Readers see the old file or the new one."""
    temporary = path.with_suffix(f".{os.getpid()}")
    temporary.write_text(json.dumps(values))
    temporary.replace(path)
