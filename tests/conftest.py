"""What every test gets: Spark on this interpreter, marks by folder, a check for leaked processes.

The check is the product's own promise turned on its tests: when a test ends, nothing that it
started is left. It looks at /proc once before and once after each test, a few milliseconds each.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hypothesis
import pytest

# Executors otherwise pick the system's Python, which lacks our dependencies.
os.environ["PYSPARK_PYTHON"] = os.environ["PYSPARK_DRIVER_PYTHON"] = sys.executable

# Inherited by everything that a test starts. It finds orphans, which are nobody's descendants any
# more, and tells ours from those of another run of the tests on the same machine.
SESSION_MARK = "TFLEASE_TEST_SESSION"
os.environ[SESSION_MARK] = uuid.uuid4().hex

# Every process of a run's member carries this variable; nothing may keep one alive after its test.
MEMBER_MARK = "TFLEASE_MEMBER"

# A loaded machine may take its time over one example; pytest-timeout catches what hangs.
hypothesis.settings.register_profile("tflease", deadline=None, print_blob=True)
hypothesis.settings.load_profile("tflease")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addini(
        "leak_deadline", "seconds a test's processes have to go away after it", default="5"
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    spark_tests = Path(__file__).parent / "spark"
    for item in items:
        if spark_tests in item.path.parents:
            item.add_marker(pytest.mark.spark)


@dataclass(frozen=True)
class Process:
    pid: int
    parent: int
    started: int  # in clock ticks since boot: with the pid, an identity that is never reused
    ours: bool  # carries this session's mark
    member: bool  # carries the mark of a run's member

    @property
    def identity(self) -> tuple[int, int]:
        return self.pid, self.started

    def __str__(self) -> str:
        return f"pid {self.pid} (parent {self.parent}): {_command(self.pid)}"


@dataclass
class LongLived:
    """Processes that outlive a test by design; a session fixture that starts one says so here."""

    roots: set[int] = field(default_factory=set)

    def allow_tree(self, pid: int) -> None:
        """Let `pid` and its descendants stay, except those that belong to a run's member."""
        self.roots.add(pid)

    def current_roots(self) -> set[int]:
        return self.roots | _spark_jvm()


@pytest.fixture(scope="session")
def long_lived() -> LongLived:
    return LongLived()


@pytest.fixture(scope="session", autouse=True)
def _session_leaves_nothing(long_lived: LongLived, pytestconfig: pytest.Config) -> Iterator[None]:
    """Catches what fixtures of modules and of the session leave behind."""
    yield from _leaves_nothing(long_lived, pytestconfig)


@pytest.fixture(autouse=True)
def _test_leaves_nothing(
    _session_leaves_nothing: None, long_lived: LongLived, pytestconfig: pytest.Config
) -> Iterator[None]:
    yield from _leaves_nothing(long_lived, pytestconfig)


def _leaves_nothing(long_lived: LongLived, config: pytest.Config) -> Iterator[None]:
    before = {process.identity for process in _scan()}
    yield
    deadline = time.monotonic() + float(config.getini("leak_deadline"))

    def leaked() -> list[Process]:
        return [p for p in _leaks(_scan(), long_lived.current_roots()) if p.identity not in before]

    while (left := leaked()) and time.monotonic() < deadline:
        _wait_for_any(left, deadline)
    if left:
        report = "\n".join(f"  {process}" for process in left)
        _kill(leaked)
        pytest.fail(f"processes left behind (killed now):\n{report}", pytrace=False)


def _leaks(processes: list[Process], long_lived: set[int]) -> list[Process]:
    """Descendants of this process and orphans of this session, less what may stay."""
    by_pid = {process.pid: process for process in processes}

    def under(process: Process, roots: set[int]) -> bool:
        pid = process.pid
        while pid not in roots:
            if pid not in by_pid or by_pid[pid].parent == pid:
                return False
            pid = by_pid[pid].parent
        return True

    me = os.getpid()
    return [
        process
        for process in processes
        if process.pid != me
        and (process.ours or under(process, {me}))
        and (process.member or not under(process, long_lived))
        and not _is_tracker(process.pid)
    ]


def _scan() -> list[Process]:
    """All processes but zombies, which hold nothing and wait for their parent's next Popen."""
    ours = f"{SESSION_MARK}={os.environ[SESSION_MARK]}".encode()
    member = f"{MEMBER_MARK}=".encode()
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            stat = Path(f"/proc/{name}/stat").read_text(errors="replace")
            # After the command's name, which may itself hold spaces and parentheses.
            fields = stat[stat.rindex(")") + 2 :].split()
            if fields[0] == "Z":
                continue
            variables = _read(f"/proc/{name}/environ").split(b"\0")
        except OSError:
            continue  # it ended while we looked
        found.append(
            Process(
                pid=int(name),
                parent=int(fields[1]),
                started=int(fields[19]),
                ours=ours in variables,
                member=any(variable.startswith(member) for variable in variables),
            )
        )
    return found


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except PermissionError:
        return b""  # another user's process is none of ours


def _command(pid: int) -> str:
    try:
        return _read(f"/proc/{pid}/cmdline").replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return "(gone)"


def _is_tracker(pid: int) -> bool:
    """The standard library's resource tracker lives as long as the process that needed it."""
    return "multiprocessing.resource_tracker" in _command(pid)


def _spark_jvm() -> set[int]:
    """The JVM that pyspark keeps until Python exits; executors and their daemons are under it."""
    pyspark = sys.modules.get("pyspark")
    gateway = getattr(getattr(pyspark, "SparkContext", None), "_gateway", None)
    process = getattr(gateway, "proc", None)
    return set() if process is None else {process.pid}


def _wait_for_any(processes: list[Process], deadline: float) -> None:
    """Wait until one of them ends, at most a quarter second: new ones may appear meanwhile."""
    poller = select.poll()
    descriptors = []
    try:
        for process in processes:
            descriptors.append(os.pidfd_open(process.pid))
            poller.register(descriptors[-1], select.POLLIN)
        poller.poll(1000 * max(0.0, min(0.25, deadline - time.monotonic())))
    except ProcessLookupError:
        pass  # one has ended: that is what we wait for
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def _kill(leaked: Callable[[], list[Process]]) -> None:
    """SIGKILL in rounds: one of them may be starting another."""
    for _ in range(20):
        left = leaked()
        if not left:
            return
        for process in left:
            _signal(process)
        _wait_for_any(left, time.monotonic() + 0.25)


def _signal(process: Process) -> None:
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return
    try:
        # The pid may have passed to somebody else between the scan and the pidfd.
        if process.identity in {found.identity for found in _scan()}:
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    except ProcessLookupError:
        pass
    finally:
        os.close(descriptor)


@pytest.fixture(scope="session")
def tf() -> Any:
    """TensorFlow in the tests' own process, for all that use it there. It has two CPUs, for
    strategies: once it has been used it takes no more."""
    import tensorflow

    cpu = tensorflow.config.list_physical_devices("CPU")[0]
    two = [tensorflow.config.LogicalDeviceConfiguration()] * 2
    tensorflow.config.set_logical_device_configuration(cpu, two)
    return tensorflow
