"""Machines of one's own: network namespaces with names, links and addresses, for tests of what
happens between hosts. They are held by descriptors alone, so the kernel takes them away with their
links when the test closes them and its processes have ended."""

from __future__ import annotations

import ctypes
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from types import TracebackType

import pytest

_KINDS = {"net": 0x40000000, "uts": 0x04000000}
_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


class Machine:
    """A network of its own (loopback up, ports all free) and a host name of its own."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._descriptors: dict[str, int] = {}
        self._in_a_thread_of_its_own(self._make)
        self.ip("link set lo up")

    def _make(self) -> None:
        """The thread is in the new namespaces, and ends."""
        _check(_libc.unshare(_KINDS["net"] | _KINDS["uts"]), "unshare")
        name = self.name.encode()
        _check(_libc.sethostname(name, len(name)), "sethostname")
        self._descriptors = _open_own()

    @staticmethod
    def _in_a_thread_of_its_own(work: Callable[[], None]) -> None:
        problems: list[OSError] = []

        def run() -> None:
            try:
                work()
            except OSError as error:
                problems.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        if problems:
            raise problems[0]

    @contextmanager
    def inside(self) -> Iterator[None]:
        """This thread, and what it starts or opens, is on the machine. Not to be held across an
        ``await``: other tasks would be there too."""
        own = _open_own()
        try:
            _enter(self._descriptors)
            yield
        finally:
            _enter(own)
            _close(own)

    def run(self, *command: str) -> str:
        with self.inside():
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    def ip(self, arguments: str) -> str:
        return self.run("ip", *arguments.split())

    def set_kernel(self, name: str, value: str) -> None:
        """A setting below /proc/sys/net."""
        self.run("sh", "-c", f"echo '{value}' > /proc/sys/net/{name}")

    def drop(self, port: int) -> None:
        """What arrives here for this TCP port is thrown away without an answer, as by a firewall.
        The table of own addresses is otherwise the first to be asked, so it is moved back."""
        self.ip("rule add pref 100 lookup local")
        self.ip(f"rule add pref 10 ipproto tcp dport {port} blackhole")
        self.ip("rule del pref 0")

    def close(self) -> None:
        _close(self._descriptors)

    def __enter__(self) -> Machine:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def connect(one: Machine, other: Machine, network: str, addresses: tuple[str, str]) -> None:
    """A cable between the two: an interface called ``network`` on both."""
    there = f"/proc/{os.getpid()}/fd/{other._descriptors['net']}"
    one.ip(f"link add name {network} type veth peer name {network} netns {there}")
    for machine, address in zip((one, other), addresses, strict=True):
        machine.ip(f"address add {address}/24 dev {network}")
        machine.ip(f"link set {network} up")


def _open_own() -> dict[str, int]:
    return {kind: os.open(f"/proc/thread-self/ns/{kind}", os.O_RDONLY) for kind in _KINDS}


def _enter(descriptors: dict[str, int]) -> None:
    for kind, descriptor in descriptors.items():
        _check(_libc.setns(descriptor, _KINDS[kind]), f"setns of {kind}")


def _close(descriptors: dict[str, int]) -> None:
    for descriptor in descriptors.values():
        os.close(descriptor)


@cache
def missing() -> str:
    """Why there can be no machines here, or ""."""
    try:
        with ExitStack() as stack:
            one, other = (stack.enter_context(Machine(name)) for name in ("one", "other"))
            connect(one, other, "net", ("10.0.0.1", "10.0.0.2"))
    except (OSError, AssertionError) as error:
        return f"no network namespaces here (they need root and iproute2): {error}"
    return ""


@pytest.fixture
def machines() -> Iterator[Callable[[str], Machine]]:
    """Makes machines that are gone after the test."""
    if missing():
        pytest.skip(missing())
    with ExitStack() as stack:
        yield lambda name: stack.enter_context(Machine(name))
