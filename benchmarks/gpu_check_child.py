"""The processes of ``gpu_check``: who is killed, who computes, who inherited the device.

``python -m benchmarks.gpu_check_child parent|neighbour BYTES UUID HELPER``. Says who there is, in
one line of JSON, once the memory is taken; then waits to be killed.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from coordinator.testing import FakeGpus
from executor_agent.linux import die_with_parent

FAKE = "TFLEASE_FAKE_NVML"


def main() -> None:
    role, size, uuid, helper = sys.argv[1:]
    if role == "parent":
        _parent(size, uuid, helper)
    if role == "worker" and not die_with_parent(int(os.environ["GPU_CHECK_PARENT"])):
        return
    kept = _take(uuid, int(size))
    pids = [os.getpid()]
    if helper == "helper":
        pids.append(_fork_helper())
    _pin_fake(uuid, int(size), pids)
    print(json.dumps({"library": kept[0], "pids": pids}), flush=True)
    signal.pause()


def _parent(size: str, uuid: str, helper: str) -> None:
    """As a Spark task to its member: the kernel kills the worker with it."""
    environ = os.environ | {"GPU_CHECK_PARENT": str(os.getpid())}
    command = [sys.executable, "-m", "benchmarks.gpu_check_child", "worker", size, uuid, helper]
    subprocess.Popen(command, env=environ, close_fds=False)
    signal.pause()


def _fork_helper() -> int:
    """As a data loader that outlives its trainer: it has every descriptor of ours, those of the
    device too, and does nothing."""
    pid = os.fork()
    if pid == 0:
        os.setsid()
        with contextlib.suppress(OSError):
            os.close(1)
        signal.pause()
    return pid


def _pin_fake(uuid: str, size: int, pids: list[int]) -> None:
    if folder := os.environ.get(FAKE):
        FakeGpus(Path(folder)).use(uuid, size, pids, until_gone=True)


# -- taking memory -------------------------------------------------------------------------


def _take(uuid: str, size: int) -> tuple[str, Any]:
    """With the first of these that works; what must be kept is returned with its name."""
    if os.environ.get(FAKE):
        return "fake", None
    problems = []
    for name, take in _LIBRARIES.items():
        try:
            return name, take(size)
        except Exception as error:  # not installed, or built without CUDA
            problems.append(f"{name}: {type(error).__name__}: {error}")
    sys.exit(f"no library could take {size} bytes of {uuid}: " + "; ".join(problems))


def _cupy(size: int) -> Any:
    return importlib.import_module("cupy").zeros(size, dtype="uint8")


def _torch(size: int) -> Any:
    return importlib.import_module("torch").zeros(
        size, dtype=_named("torch", "uint8"), device="cuda"
    )


def _jax(size: int) -> Any:
    jax = importlib.import_module("jax")
    [device, *_] = jax.devices("gpu")
    zeros = importlib.import_module("numpy").zeros(size, dtype="uint8")
    return jax.device_put(zeros, device).block_until_ready()


def _tensorflow(size: int) -> Any:
    tf = importlib.import_module("tensorflow")
    for gpu in tf.config.list_physical_devices("GPU"):
        tf.config.experimental.set_memory_growth(gpu, True)
    with tf.device("/GPU:0"):
        return tf.zeros(size, dtype=tf.uint8)


def _driver(size: int) -> Any:
    """No library at all: the driver itself."""
    cuda = ctypes.CDLL("libcuda.so.1")
    device, context, memory = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_uint64()
    for name, *arguments in (
        ("cuInit", ctypes.c_uint(0)),
        ("cuDeviceGet", ctypes.byref(device), ctypes.c_int(0)),
        ("cuCtxCreate_v2", ctypes.byref(context), ctypes.c_uint(0), device),
        ("cuMemAlloc_v2", ctypes.byref(memory), ctypes.c_size_t(size)),
    ):
        if code := getattr(cuda, name)(*arguments):
            raise OSError(f"{name} failed with {code}")
    return cuda, context, memory


def _named(module: str, name: str) -> Any:
    return getattr(importlib.import_module(module), name)


_LIBRARIES: dict[str, Callable[[int], Any]] = {
    "CuPy": _cupy,
    "PyTorch": _torch,
    "JAX": _jax,
    "TensorFlow": _tensorflow,
    "the CUDA driver": _driver,
}

if __name__ == "__main__":
    main()
