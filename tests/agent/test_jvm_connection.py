"""O1: whether Spark still wants a task shows in the connection to the executor's JVM."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from executor_agent.jvm_connection import JvmConnection
from executor_agent.processes import identity_of

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture(params=["unix", "tcp"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    """The worker's end, and the JVM's."""
    if request.param == "unix":
        ours, theirs = socket.socketpair()
    else:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            ours = socket.create_connection(listener.getsockname())
            theirs, _ = listener.accept()
    with ours, theirs:
        yield ours, theirs


def test_an_open_connection_is_not_closed_whatever_is_in_it(pair: Pair) -> None:
    ours, theirs = pair
    jvm = JvmConnection(ours.fileno())
    assert not jvm.is_closed
    theirs.send(b"rows that nobody has read yet")
    ours.send(b"rows that nobody has taken yet")
    assert not jvm.is_closed


def test_it_is_closed_when_the_jvm_has_closed_it_even_with_rows_unread(pair: Pair) -> None:
    ours, theirs = pair
    jvm = JvmConnection(ours.fileno())
    theirs.send(b"rows")
    theirs.close()
    assert jvm.is_closed
    assert jvm.is_closed, "and stays so"


PEER = """
import socket, sys
if sys.argv[1] == "unix":
    end = socket.socket(socket.AF_UNIX)
    end.connect(sys.argv[2])
else:
    end = socket.create_connection(("127.0.0.1", int(sys.argv[2])))
sys.stdin.read()
"""


@pytest.mark.parametrize("family", ["unix", "tcp"])
def test_the_jvm_is_known_by_its_connection(family: str, tmp_path: Path) -> None:
    """O3. A worker that has outlived its daemon is used again, and is nobody's child by then."""
    if family == "unix":
        listener = socket.socket(socket.AF_UNIX)
        address = str(tmp_path / "socket")
        listener.bind(address)
        listener.listen()
    else:
        listener = socket.create_server(("127.0.0.1", 0))
        address = str(listener.getsockname()[1])
    command = [sys.executable, "-c", PEER, family, address]
    listener.settimeout(30)
    with listener, subprocess.Popen(command, stdin=subprocess.PIPE) as jvm:
        ours, _ = listener.accept()
        with ours:
            assert JvmConnection(ours.fileno()).peer() == identity_of(jvm.pid)


FIND = """
import os, socket, sys
from executor_agent.jvm_connection import JvmConnection
if len(sys.argv) > 2:
    os.dup2(int(sys.argv[2]), 3)  # a worker has it from its fork, before all others
    os.close(int(sys.argv[2]))
jvm = JvmConnection.of_this_worker()
print(None if jvm is None else jvm.is_closed, flush=True)
if jvm is not None:
    mine = socket.create_connection(("127.0.0.1", int(sys.argv[1])))  # as a user's function may
    mine.shutdown(socket.SHUT_RDWR)
    print(JvmConnection.of_this_worker().is_closed, flush=True)
    sys.stdin.readline()
    print(JvmConnection.of_this_worker().is_closed, flush=True)
"""


def test_it_is_the_one_that_the_worker_has_had_from_its_start() -> None:
    """A user's function may have left a connection open in a worker that is used again; what
    becomes of that one is nobody's business here."""
    ours, theirs = socket.socketpair()
    with theirs, socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
        with ours:
            worker = subprocess.Popen(
                [sys.executable, "-c", FIND, port, str(ours.fileno())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                pass_fds=(ours.fileno(),),
            )
        assert worker.stdin is not None
        assert worker.stdout is not None
        assert worker.stdout.readline() == "False\n"
        assert worker.stdout.readline() == "False\n"
        theirs.close()
        out, _ = worker.communicate("\n", timeout=30)
        assert out == "True\n"


def test_where_there_is_none_there_is_nothing_to_watch() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FIND, "0"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
        env={**os.environ},
    )
    assert done.stdout == "None\n"
