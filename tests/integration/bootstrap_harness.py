"""Starts `executor_agent.bootstrap` with the descriptors it expects, and plays agent, sentinel and
Spark task to it."""

import contextlib
import fcntl
import json
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cloudpickle

from executor_agent.core.outcome import Outcome
from executor_agent.framing import Channel, Message

ROOT = Path(__file__).resolve().parents[2]


def _high(descriptor: int) -> int:
    """A copy well above 3 to 7, so that the child's dup2 calls cannot overwrite one another."""
    copy = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 64)
    os.close(descriptor)
    return copy


class MemberProcess:
    """One bootstrap process. Use as a context manager: leaving it leaves no process behind."""

    def __init__(
        self,
        directory: Path,
        main_fun: Callable[..., Any] | bytes,
        args: object = None,
        *,
        preload: tuple[str, ...] = ("json",),
        env: dict[str, str] | None = None,
        without_task_pipe: bool = False,
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.log_path = directory / "member.log"
        # Programs of test modules go by value: the child cannot import those modules.
        if not isinstance(main_fun, bytes):
            main_fun = cloudpickle.dumps((main_fun, args))
        payload = os.memfd_create("payload", os.MFD_CLOEXEC)
        os.write(payload, main_fun)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        ours.settimeout(120)  # four imports of TensorFlow on a busy machine
        self.socket = ours
        self.channel = Channel(ours)
        stop_read, self.stop_write = os.pipe()
        shared_read, self.shared_write = os.pipe()
        task_read, self.task_write = os.pipe()
        reads = [theirs.detach(), stop_read, payload, shared_read, task_read]
        if without_task_pipe:  # as on an anchor that is the executor
            os.close(reads.pop())
        sources = [_high(descriptor) for descriptor in reads]
        log = os.open(self.log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        command = [sys.executable, "-m", "executor_agent.bootstrap", "--directory", str(directory)]
        for name in preload:
            command += ["--preload", name]
        self.pid = os.posix_spawn(
            sys.executable,
            command,
            {**os.environ, "PYTHONPATH": str(ROOT), **(env or {})},
            file_actions=[
                (os.POSIX_SPAWN_DUP2, log, 1),
                (os.POSIX_SPAWN_DUP2, log, 2),
                *((os.POSIX_SPAWN_DUP2, source, 3 + n) for n, source in enumerate(sources)),
            ],
            setsid=True,
        )
        self._pidfd = os.pidfd_open(self.pid)
        for descriptor in (*sources, log):
            os.close(descriptor)
        self.exit_code: int | None = None

    def __enter__(self) -> "MemberProcess":
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)  # also helpers that outlived their leader
        self.wait(30)
        self.socket.close()
        os.close(self._pidfd)
        for name in ("stop_write", "shared_write", "task_write"):
            self.close(name)

    def close(self, name: str) -> None:
        """Close one of the write ends, as the death of its owner would."""
        descriptor = getattr(self, name)
        if descriptor is not None:
            os.close(descriptor)
            setattr(self, name, None)

    def expect(self, event: str) -> Message:
        """The next message, which must be `event`."""
        message = self.channel.receive()
        assert message is not None, f"the process ended; its log:\n{self.log()}"
        assert message["event"] == event, f"{message}\n{self.log()}"
        return message

    def events_until(self, event: str) -> Iterator[Message]:
        """All messages up to and including `event`."""
        while True:
            message = self.channel.receive()
            assert message is not None, f"the process ended; its log:\n{self.log()}"
            yield message
            if message["event"] == event:
                return

    def start(self, **fields: Any) -> None:
        """Wait for ready, send the start command, wait for running."""
        self.expect("ready")
        self.send_start(**fields)
        self.expect("running")

    def send_start(self, **fields: Any) -> None:
        (self.directory / "local").mkdir(exist_ok=True)
        command: dict[str, Any] = {
            "command": "start",
            "run_id": "run-1",
            "generation": 1,
            "job_name": "worker",
            "task_index": 0,
            "cluster_spec": {"worker": ["127.0.0.1:4000"]},
            "executor_id": "7",
            "local_dir": str(self.directory / "local"),
            "log_dir": None,
            "model_dir": None,
            "env": {},
            "grace": 0.0,
            "roles": {"worker": 1},
        }
        self.channel.send(command | fields)

    def stop(self, reason: str = "test", grace: float = 0.0) -> None:
        """Write the line the sentinel writes."""
        line = json.dumps({"reason": reason, "grace": grace}) + "\n"
        os.write(self.stop_write, line.encode())

    def wait(self, timeout: float) -> int:
        """The exit code, negative for a signal."""
        if self.exit_code is None:
            poller = select.poll()
            poller.register(self._pidfd, select.POLLIN)
            if not poller.poll(timeout * 1000):
                raise TimeoutError(f"still alive after {timeout} s; its log:\n{self.log()}")
            self.exit_code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.exit_code

    def outcome(self) -> Outcome:
        """What the process left behind."""
        return Outcome.loads((self.directory / "outcome.json").read_bytes())

    def result(self) -> Any:
        """What `main_fun` returned."""
        return cloudpickle.loads((self.directory / "result.pkl").read_bytes())

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")


@contextmanager
def reserved_port() -> Iterator[int]:
    """A port held as the agent holds it: bound with SO_REUSEPORT, not listening."""
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


def wait_until(condition: Callable[[], bool], timeout: float = 20.0) -> None:
    """Poll `condition` until it holds; fail after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "the condition never held"
        time.sleep(0.01)


def can_connect(port: int) -> bool:
    """Whether something on this machine listens on `port`."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
