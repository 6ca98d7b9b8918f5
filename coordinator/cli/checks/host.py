"""The machine: kernel, /proc, memory, the members' directory, the network's settings."""

from __future__ import annotations

import os
import platform
import re
import resource
import signal
import socket
import stat
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path

from coordinator.cli.checks import Check, failed, note, ok

OLDEST_PYTHON = (3, 11)
OLDEST_KERNEL = (5, 3)  # pidfd_open

WANTED_MIB = 4096
"""What the demo takes, generously: three JVMs, and four TensorFlow processes of 700 MiB."""

_UNLIMITED = 1 << 60  # bytes; version 1 of cgroups writes "no limit" as a number above this


def python(version: tuple[int, ...] = sys.version_info[:3]) -> Check:
    """The interpreter that runs this."""
    found = f"{'.'.join(map(str, version))} ({sys.executable})"
    if version[:2] >= OLDEST_PYTHON:
        return ok("Python", found)
    return failed("Python", found, "install Python 3.11 or newer, and tflease with it")


def kernel(system: str | None = None, release: str | None = None) -> Check:
    """Linux, with pidfds: how a process's end is seen at once and for certain."""
    system, release = system or platform.system(), release or platform.release()
    found = f"{system} {release}"
    if system != "Linux":
        return note(
            "kernel", found, "a driver may run here, executors may not: they have to be Linux"
        )
    numbers = tuple(int(number) for number in re.findall(r"\d+", release)[:2])
    if numbers < OLDEST_KERNEL:
        return failed("kernel", found, "Linux 5.3 or newer is needed, for pidfds")
    if not hasattr(os, "pidfd_open") or not hasattr(signal, "pidfd_send_signal"):
        return failed(
            "kernel",
            f"{found}, but this Python was built without pidfds",
            "use a Python built against headers of Linux 5.3 or newer: your distribution's, say",
        )
    try:
        fd = os.pidfd_open(os.getpid())
        try:
            signal.pidfd_send_signal(fd, 0)
        finally:
            os.close(fd)
    except OSError as error:
        return note(
            "kernel",
            f"{found}, but it refuses pidfds ({error.strerror})",
            "probably a seccomp profile: let it allow pidfd_open and pidfd_send_signal; without "
            "them the end of a task is noticed up to a quarter second later",
        )
    return ok("kernel", f"{found}, with pidfds")


def proc(root: Path = Path("/proc"), system: str | None = None) -> Check:
    """Where descendants are found."""
    if (system or platform.system()) != "Linux":
        return note("/proc", "not on this system")
    if not (root / "self/stat").exists():
        return failed("/proc", "not mounted", f"mount it: mount -t proc proc {root}")
    if not (root / f"self/task/{threading.get_native_id()}/children").exists():
        return note("/proc", "without lists of children: descendants are searched for, more slowly")
    return ok("/proc", "lists the children of a process")


def memory(
    meminfo: Path = Path("/proc/meminfo"),
    cgroup: Path = Path("/sys/fs/cgroup"),
    wanted_mib: int = WANTED_MIB,
) -> Check:
    """What is free, also by the limit of the container."""
    free = [(value, "available") for value in _available(meminfo)]
    free += [(value, "left below the container's limit") for value in _below_limit(cgroup)]
    if not free:
        return note("memory", "unknown")
    value, how = min(free)
    found = f"{value >> 20} MiB {how}"
    if value >> 20 >= wanted_mib:
        return ok("memory", found)
    return note(
        "memory",
        found,
        f"the demo takes up to {wanted_mib} MiB, each member with TensorFlow about 700 MiB: start "
        "with fewer members, or give the container more",
    )


def _available(meminfo: Path) -> list[int]:
    try:
        found = re.search(r"^MemAvailable:\s+(\d+) kB", meminfo.read_text(), re.MULTILINE)
    except OSError:
        return []
    return [int(found[1]) << 10] if found else []


def _below_limit(cgroup: Path) -> list[int]:
    """In a container its own cgroup is mounted at the top, in version 2 or 1."""
    for limit, usage in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        try:
            most, used = (int((cgroup / name).read_text()) for name in (limit, usage))
        except (OSError, ValueError):  # "max" is no number: no limit
            continue
        if most < _UNLIMITED:
            return [max(0, most - used)]
    return []


def address_space(limit: int | None = None) -> Check:
    """TensorFlow maps far more memory than it uses."""
    if limit is None:
        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY:
        return ok("address space", "unlimited")
    return failed(
        "address space",
        f"limited to {limit >> 20} MiB",
        "TensorFlow would die in strange ways: ulimit -v unlimited",
    )


def member_directory(
    environment: Mapping[str, str] = os.environ, temporary: str | None = None
) -> Check:
    """Where members keep logs and scratch files: must be ours alone, or not be there yet."""
    name = "members' directory"
    configured = environment.get("TFLEASE_HOME")
    path = Path(configured or Path(temporary or tempfile.gettempdir(), f"tflease-{os.geteuid()}"))
    advice = "set TFLEASE_HOME, for the executors too, to a directory that only you can write to"
    try:
        found = path.lstat()
    except FileNotFoundError:
        above = next((each for each in path.absolute().parents if each.exists()), Path("/"))
        if above.is_dir() and os.access(above, os.W_OK | os.X_OK):
            return ok(name, f"{path} (made by the first run)")
        return failed(name, f"{path} cannot be made: {above} is not writable", advice)
    except OSError as error:
        return failed(name, f"{path}: {error.strerror}", advice)
    ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()
    if not ours or stat.S_IMODE(found.st_mode) & 0o077:
        mode = f"mode {stat.S_IMODE(found.st_mode):04o}, uid {found.st_uid}"
        return failed(
            name,
            f"{path} is not a directory of yours with mode 0700 ({mode})",
            f"chmod 700 {path} if it is yours, else remove it; or {advice}",
        )
    if not os.access(path, os.W_OK | os.X_OK):
        return failed(name, f"{path} is not writable", advice)
    return ok(name, str(path))


def proxy(environment: Mapping[str, str] = os.environ) -> Check:
    """gRPC by itself would send even loopback through it."""
    names = [each for each in ("http_proxy", "https_proxy", "grpc_proxy") if environment.get(each)]
    if not names:
        return ok("proxy", "none set")
    return note(
        "proxy", f"{' and '.join(names)} set: harmless, tflease's own connections do not use it"
    )


def host_name(name: str | None = None, environment: Mapping[str, str] = os.environ) -> Check:
    """What Spark takes for this machine's address, unless it is told another one."""
    name = name or socket.gethostname()
    configured = environment.get("SPARK_LOCAL_IP")
    if configured:
        return ok("host name", f"{name}; SPARK_LOCAL_IP={configured} is what Spark uses")
    try:
        address = socket.gethostbyname(name)
    except OSError:
        return failed(
            "host name",
            f"{name} cannot be resolved, and Spark would not start",
            f"add the line `127.0.1.1 {name}` to /etc/hosts, or set SPARK_LOCAL_IP",
        )
    if address.startswith("127."):
        return note(
            "host name",
            f"{name} is {address}, so Spark takes the address of a network interface instead",
            "fine on one machine; if executors elsewhere cannot reach this one, set "
            "spark.driver.host to the address by which they can",
        )
    return ok("host name", f"{name} is {address}")
