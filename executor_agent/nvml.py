"""The one seam to NVML, the driver's own account of its GPUs.

Owns: pynvml, which nobody else imports, and what its answers mean. Calls may take long or hang:
whoever asks sets a deadline (``gpu_answers``). With ``TFLEASE_FAKE_NVML=<folder>`` in the
environment the answers come from files (``fake_nvml``), so that everything can be tried without a
GPU.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from executor_agent.core.gpu_choice import Device
from executor_agent.fake_nvml import VARIABLE, FakeNvml
from executor_agent.nvml_error import NvmlError

__all__ = ["Device", "Nvml", "NvmlError", "open_nvml"]

# The kernel's own number for the process namespace that the machine started with.
_FIRST_NAMESPACE = 0xEFFFFFFC


class Nvml(Protocol):
    def devices(self) -> list[Device]:
        """All that this process may see; MIG devices instead of their GPU. Raises NvmlError."""


def open_nvml(environ: Mapping[str, str] = os.environ) -> Nvml:
    """Raises NvmlError, which says what to do. May take seconds where no process keeps the driver
    awake, and hang."""
    folder = environ.get(VARIABLE)
    if folder:
        return FakeNvml(Path(folder))
    try:
        import pynvml
    except ImportError:
        raise NvmlError(
            "NVML cannot be asked for the GPUs of this machine: install nvidia-ml-py "
            "(pip install 'tflease[gpu]') where executors run"
        ) from None
    nvml = _DriversNvml(pynvml)
    nvml.open()
    return nvml


class _DriversNvml:
    """The real one."""

    def __init__(self, library: Any) -> None:
        self._library = library
        self._is_open = False
        self._pids_are_ours = _sees_all_processes()

    def open(self) -> None:
        """Raises NvmlError."""
        try:
            self._library.nvmlInit()
        except self._library.NVMLError as error:
            raise NvmlError(
                f"NVML cannot be asked for the GPUs of this machine: {error}; there must be an "
                "NVIDIA driver, and a container must have been given its GPUs"
            ) from None
        self._is_open = True

    def devices(self) -> list[Device]:
        """As `Nvml.devices`."""
        if not self._is_open:
            self.open()
        try:
            count = self._library.nvmlDeviceGetCount()
        except self._library.NVMLError as error:
            # Perhaps the driver was loaded anew: only a new beginning tells.
            self._is_open = False
            with suppress(self._library.NVMLError):
                self._library.nvmlShutdown()
            raise NvmlError(f"NVML gives no answer: {error}") from None
        return [device for index in range(count) for device in self._at(index)]

    def _at(self, index: int) -> Iterator[Device]:
        try:
            handle = self._library.nvmlDeviceGetHandleByIndex(index)
            uuid = _text(self._library.nvmlDeviceGetUUID(handle))
        except self._library.NVMLError:
            return  # not for us to use, or so broken that it has lost its name
        if not self._is_split(handle):
            yield self._device(handle, uuid, index, "")
            return
        for number in range(self._library.nvmlDeviceGetMaxMigDeviceCount(handle)):
            try:
                part = self._library.nvmlDeviceGetMigDeviceHandleByIndex(handle, number)
                name = _text(self._library.nvmlDeviceGetUUID(part))
            except self._library.NVMLError:
                continue  # no device has this number
            yield self._device(part, name, index, uuid)

    def _is_split(self, handle: Any) -> bool:
        try:
            current, _ = self._library.nvmlDeviceGetMigMode(handle)
            return bool(current)
        except self._library.NVMLError:
            return False  # most GPUs know no MIG

    def _device(self, handle: Any, uuid: str, index: int, parent: str) -> Device:
        name, total, used, error, is_lost = "", 0, 0, "", False
        pids: tuple[int, ...] = ()
        try:
            name = _text(self._library.nvmlDeviceGetName(handle))
            total, used = self._memory(handle)
            pids = self._pids(handle)
        except self._library.NVMLError as failed:
            error, is_lost = str(failed), self._is_lost(failed)
        return Device(
            uuid, index, name, total, used, pids, parent, error, is_lost, self._pids_are_ours
        )

    def _memory(self, handle: Any) -> tuple[int, int]:
        """Total and used; (0, 0) where GPU and machine share their memory."""
        library = self._library
        with suppress(library.NVMLError, AttributeError, TypeError):
            # The newer question leaves out what the driver keeps for itself.
            info = library.nvmlDeviceGetMemoryInfo(handle, version=library.nvmlMemory_v2)
            return int(info.total), int(info.used)
        try:
            info = library.nvmlDeviceGetMemoryInfo(handle)
        except library.NVMLError as error:
            if self._is_unsupported(error):
                return 0, 0
            raise
        return int(info.total), int(info.used)

    def _pids(self, handle: Any) -> tuple[int, ...]:
        try:
            running = self._library.nvmlDeviceGetComputeRunningProcesses(handle)
        except self._library.NVMLError as error:
            if self._is_unsupported(error):
                return ()
            raise
        return tuple(sorted({int(each.pid) for each in running}))

    def _is_lost(self, error: Any) -> bool:
        lost = (self._library.NVML_ERROR_GPU_IS_LOST, self._library.NVML_ERROR_RESET_REQUIRED)
        return getattr(error, "value", None) in lost

    def _is_unsupported(self, error: Any) -> bool:
        unsupported = (
            self._library.NVML_ERROR_NOT_SUPPORTED,
            self._library.NVML_ERROR_FUNCTION_NOT_FOUND,
            self._library.NVML_ERROR_NO_PERMISSION,
        )
        return getattr(error, "value", None) in unsupported


def _text(value: str | bytes) -> str:
    """Older releases of the library answer in bytes."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _sees_all_processes() -> bool:
    """Whether pids of the host mean the same processes here."""
    try:
        return os.stat("/proc/self/ns/pid").st_ino == _FIRST_NAMESPACE
    except OSError:
        return False
