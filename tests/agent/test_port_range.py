"""A member's port out of a range: one holder each, whoever else wants it at the same time (R8)."""

from __future__ import annotations

import errno
import os
import random
import socket
import subprocess
import sys
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from executor_agent import ports
from executor_agent.ports import HeldPort, NoFreePort

ROOT = Path(__file__).parents[2]


def free_range(size: int) -> tuple[int, int]:
    """Ports in a row that nobody has, outside of those that the kernel gives to anybody."""
    for _ in range(100):
        first = random.randrange(20_000, 32_000)
        with ExitStack() as stack:
            try:
                for port in range(first, first + size):
                    stack.enter_context(closing(socket.socket())).bind(("0.0.0.0", port))
            except OSError:
                continue
        return first, first + size - 1
    raise AssertionError(f"no {size} free ports in a row")


def test_ports_of_a_range_go_to_one_holder_each_and_then_there_are_none() -> None:
    """R8: they are all of one user, whom the kernel would let share."""
    first, last = free_range(3)
    with ExitStack() as stack:
        held = [stack.enter_context(closing(HeldPort((first, last)))).port for _ in range(3)]
        assert sorted(held) == [first, first + 1, last]
        with pytest.raises(NoFreePort) as caught:
            HeldPort((first, last))
    expected = f"no free port in {first}-{last} on {socket.gethostname()} (3 of 3 taken)"
    assert str(caught.value) == expected


HOLDER = """
import sys
from executor_agent.ports import HeldPort, NoFreePort

print("ready", flush=True)
sys.stdin.readline()
held = []
try:
    for _ in range(int(sys.argv[1])):
        held.append(HeldPort(eval(sys.argv[2])))
except NoFreePort:
    pass
print(*(each.port for each in held), flush=True)
sys.stdin.readline()
"""


def ports_of_many_at_once(processes: int, each: int, allowed: tuple[int, int] | None) -> list[int]:
    """What so many processes get that all take ports at the same time and hold them."""
    with ExitStack() as stack:
        holders = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", HOLDER, str(each), repr(allowed)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    env={**os.environ, "PYTHONPATH": str(ROOT)},
                )
            )
            for _ in range(processes)
        ]
        for holder in holders:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "ready\n"
        for holder in holders:
            tell(holder)
        got = [holder.stdout.readline() for holder in holders if holder.stdout is not None]
        for holder in holders:
            tell(holder)
    return [int(port) for line in got for port in line.split()]


def tell(holder: subprocess.Popen[str]) -> None:
    assert holder.stdin is not None
    holder.stdin.write("go\n")
    holder.stdin.flush()


@pytest.mark.slow
def test_many_processes_at_once_never_share_a_port_and_leave_none_of_the_range_unused() -> None:
    """R8: the race between looking and taking."""
    first, last = free_range(12)
    got = ports_of_many_at_once(16, 2, (first, last))
    assert sorted(got) == list(range(first, last + 1))


@pytest.mark.slow
def test_many_processes_at_once_never_share_a_port_that_the_kernel_chose() -> None:
    """R8."""
    got = ports_of_many_at_once(16, 50, None)
    assert len(set(got)) == len(got) == 16 * 50


@pytest.mark.parametrize("step", [socket.SO_REUSEADDR, socket.SO_REUSEPORT])
def test_who_comes_while_another_is_taking_the_port_does_not_get_it(
    monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """R8: the race above, at its worst moments."""
    first, last = free_range(1)
    bound = ports._bound
    late: list[str] = []

    def bound_after_another_tried(port: int, *options: int) -> socket.socket:
        if options == (step,) and not late:
            late.append("tries")
            with pytest.raises(NoFreePort):
                HeldPort((first, last))
            late.append("was refused")
        return bound(port, *options)

    monkeypatch.setattr(ports, "_bound", bound_after_another_tried)
    with closing(HeldPort((first, last))) as held:
        assert held.port == first
    assert late == ["tries", "was refused"]


@pytest.mark.parametrize("flags", [(), (socket.SO_REUSEADDR,), (socket.SO_REUSEPORT,)])
def test_a_port_of_the_range_on_which_somebody_listens_is_passed_over(
    flags: tuple[int, ...],
) -> None:
    """R8: also when it is a program of the same user that would share, as TensorFlow itself."""
    first, last = free_range(2)
    for taken, left in ((first, last), (last, first)):
        with closing(socket.socket()) as somebody:
            for flag in flags:
                somebody.setsockopt(socket.SOL_SOCKET, flag, 1)
            somebody.bind(("127.0.0.1", taken))
            somebody.listen()
            with closing(HeldPort((first, last))) as held:
                assert held.port == left


def test_closed_connections_of_an_earlier_member_do_not_use_up_the_range() -> None:
    """The kernel remembers them for a minute, and refuses a plain bind as long."""
    first, last = free_range(1)
    with closing(HeldPort((first, last))), closing(socket.socket()) as member:
        for flag in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
            member.setsockopt(socket.SOL_SOCKET, flag, 1)
        member.bind(("127.0.0.1", first))
        member.listen()
        with closing(socket.create_connection(("127.0.0.1", first), timeout=5)) as peer:
            member.accept()[0].close()  # the first to close is the one that is remembered
            assert peer.recv(1) == b""
    with closing(socket.socket()) as plain, pytest.raises(OSError, match="in use"):
        plain.bind(("127.0.0.1", first))
    with closing(HeldPort((first, last))) as held:
        assert held.port == first
        with closing(socket.socket()) as stranger, pytest.raises(OSError, match="in use"):
            stranger.bind(("127.0.0.1", first))


def test_a_port_of_a_range_is_shared_with_the_member_like_any_other() -> None:
    """As TensorFlow with TF_GRPC_REUSE_PORT=true."""
    with closing(HeldPort(free_range(1))) as held, closing(socket.socket()) as listener:
        for flag in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
            listener.setsockopt(socket.SOL_SOCKET, flag, 1)
        listener.bind(("0.0.0.0", held.port))
        listener.listen()
        listener.settimeout(5)
        for _ in range(20):
            with closing(socket.create_connection(("127.0.0.1", held.port), timeout=5)):
                listener.accept()[0].close()


def test_members_of_one_host_begin_at_different_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []
    for pid in (1000, 1001, 1002):
        monkeypatch.setattr(ports.os, "getpid", lambda pid=pid: pid)
        tried.append(list(ports._spread(7000, 7002)))
    assert all(sorted(each) == [7000, 7001, 7002] for each in tried)
    assert len({each[0] for each in tried}) == 3


def test_a_range_that_is_not_ours_to_take_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(port: int) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(ports, "_take", refused)
    with pytest.raises(NoFreePort, match=r"\(0 of 2 taken; Permission denied\)$"):
        HeldPort((1, 2))
