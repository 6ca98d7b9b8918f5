"""What a member's TensorFlow process runs, from exec to exit.

Owns: the order of things (import, ready, start command, unpickle, run), the watch over the two
pipes that say when to end, and the outcome left behind. Must not know gRPC, Spark or leases.

`python -m executor_agent.bootstrap --directory DIR --preload MODULE ...`, with the descriptors of
`core.supervision`. On the channel, one JSON object a message (`framing`):

    process -> agent   {"event": "ready", "versions": {"python": .., "tensorflow": ..}}
                       {"event": "running"}
                       {"event": "progress", "step": .., "metrics": {..}, "section": ".."}
                       {"event": "finished", "outcome": {..}}     as in outcome.json
    agent -> process   {"command": "start", ..}                   see `Start.parse`

Exit code: 0 returned (or stopped before the start, then without an outcome), 1 raised, whatever
`sys.exit` was given, 3 preload failed, 4 payload failed.
"""

import argparse
import atexit
import contextlib
import ctypes
import faulthandler
import importlib
import json
import os
import platform
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import cloudpickle

from executor_agent.context import Context, Start
from executor_agent.core import supervision as fds
from executor_agent.core.outcome import (
    Outcome,
    Status,
    describe,
    is_peer_lost,
    payload_message,
    preload_message,
)
from executor_agent.core.tf_config import proxy_exceptions
from executor_agent.framing import Channel, Message
from executor_agent.progress import ProgressReporter
from executor_agent.stack_signal import answer
from executor_agent.watcher import Watcher

if TYPE_CHECKING:
    from executor_agent.feed.server import FeedServer

OUTCOME_FILE = "outcome.json"
RESULT_FILE = "result.pkl"
RAISED, PRELOAD_FAILED, PAYLOAD_FAILED = 1, 3, 4  # exit codes; 2 is argparse's

# Nothing exec'ed by user code may keep these: a helper holding the channel would hide our end from
# the agent. The shared dead-man pipe is not ours to touch.
_OURS = (
    fds.MEMBER_CHANNEL_FD,
    fds.MEMBER_STOP_FD,
    fds.MEMBER_PAYLOAD_FD,
    fds.MEMBER_TASK_DEAD_MAN_FD,
)
_FAILED_UPLOADS_TIMEOUT = 30.0  # seconds without progress, where main_fun has failed
_FAREWELL_TIMEOUT = 2.0  # seconds an agent that does not read may hold up our exit, twice


class AgentLost(Exception):
    """The agent closed the channel before it sent the start command."""


class Bootstrap:
    """One process's life. `run` never raises: what goes wrong becomes the outcome."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._watcher = Watcher()
        self._channel: Channel | None = None
        self._progress = ProgressReporter(self._send)
        self._gpu_claims: list[int] = []  # open as long as we are, and as what we fork is

    def run(self, preload: Sequence[str]) -> Outcome:
        """Everything up to the outcome, which is not yet written."""
        try:
            for descriptor in _OURS:
                with contextlib.suppress(OSError):  # not every anchor has all of them
                    os.set_inheritable(descriptor, False)
            self._answer()
            self._watcher.start()
            self._channel = Channel(socket.socket(fileno=fds.MEMBER_CHANNEL_FD))
            return self._live(preload)
        except BaseException as error:
            return _describe(error, Status.RAISED, RAISED)

    def _answer(self) -> None:
        try:
            answer(self._directory)
        except (OSError, RuntimeError) as error:  # whoever asks where we stand is told nothing
            print(f"tflease: warning: no stacks of a stall: {error}", file=sys.stderr)

    def _live(self, preload: Sequence[str]) -> Outcome:
        versions = {"python": platform.python_version()}
        for name in preload:
            try:
                module = importlib.import_module(name)
            except BaseException as error:
                outcome = _describe(error, Status.PRELOAD_FAILED, PRELOAD_FAILED)
                where = (socket.gethostname(), sys.executable, platform.python_version())
                return replace(outcome, message=preload_message(name, *where, outcome))
            version = getattr(module, "__version__", None)
            if isinstance(version, str):
                versions[name] = version
        self._tell({"event": "ready", "versions": versions})
        start = Start.parse(self._wait_for_start())
        self._watcher.started(start.grace)
        self._take_gpus(start)
        feeds = self._open_feeds(start)
        context = Context(start.assignment, self._watcher.stop, self._progress, feeds)
        # CUDA reads it when it is first used, not when TensorFlow is imported. Until now it named
        # no GPU, with a lease to come or without: a module that was imported above could have
        # taken one, or all of them, that others hold. What is unpickled below may use CUDA at once.
        _set_environment(start, context)
        try:
            with open(fds.MEMBER_PAYLOAD_FD, "rb", closefd=False) as payload:
                payload.seek(0)  # the offset is shared with whoever wrote it
                main_fun, args = cloudpickle.load(payload)
        except BaseException as error:
            outcome = _describe(error, Status.PAYLOAD_FAILED, PAYLOAD_FAILED)
            message = payload_message(socket.gethostname(), sys.executable, outcome)
            return replace(outcome, message=message)
        self._tell({"event": "running"})
        with contextlib.suppress(OSError):  # who waits for it, waits on; nobody else minds
            (self._directory / fds.ENTERED).touch(mode=0o600)
        pid = os.getpid()
        outcome = self._call(main_fun, args, context)
        # A fork of user code that comes back here shares the sockets, and would end them for us.
        if feeds is not None and outcome.status is Status.RETURNED and os.getpid() == pid:
            # Of any other end the driver hears the cause, which must be what the feed says, too.
            feeds.close("main_fun has returned")
        return outcome

    def _wait_for_start(self) -> Message:
        assert self._channel is not None
        while (message := self._channel.receive()) is not None:
            if message.get("command") == "start":
                return message
        # In a stop the agent may end a moment before the sentinel's word gets here; then the
        # watcher ends this process.
        self._watcher.stop.wait(2.0)
        raise AgentLost("the agent closed the channel before it sent the start command")

    def _take_gpus(self, start: Start) -> None:
        """The locked descriptors that came with the start. The kernel gives a GPU's claim back when
        the last process that has its descriptor is gone, so they are never closed here."""
        assert self._channel is not None
        self._gpu_claims += self._channel.take_descriptors()
        gpus = start.assignment.gpus
        if len(self._gpu_claims) != len(gpus):
            raise RuntimeError(
                f"the start names {len(gpus)} GPUs and brings {len(self._gpu_claims)} claims"
            )

    def _open_feeds(self, start: Start) -> "FeedServer | None":
        """Rows may come from now on, whenever `main_fun` asks for them."""
        if start.feed_key is None:
            return None
        from executor_agent.feed.server import FeedServer  # with pyarrow, which others do not need

        member = f"{start.assignment.job_name}:{start.assignment.task_index}"
        feeds = FeedServer(
            self._directory,
            start.feed_port,
            start.feed_key,
            member=member,
            tell=self._progress.look,
        )
        feeds.start()
        self._progress.add_counters(feeds.counters)
        return feeds

    def _call(
        self, main_fun: Callable[[Any, Context], Any], args: Any, context: Context
    ) -> Outcome:
        pid = os.getpid()
        began = time.monotonic()
        try:
            result = main_fun(args, context)
        except SystemExit as error:
            outcome = _describe_exit(error)
        except BaseException as error:
            context._explain(error)
            outcome = _describe(error, Status.RAISED, RAISED, skip_frames=1)
            outcome = replace(outcome, peer_lost=is_peer_lost(error))
        else:
            outcome = Outcome(Status.RETURNED)
            if os.getpid() == pid:
                outcome = self._keep(result)
        if os.getpid() == pid:
            outcome = _wait_for_uploads(outcome, context)
        return replace(outcome, duration_seconds=time.monotonic() - began)

    def _keep(self, result: object) -> Outcome:
        try:
            _write(self._directory / RESULT_FILE, lambda file: cloudpickle.dump(result, file))
        except OSError as error:
            why = f"{RESULT_FILE} cannot be written ({error})"
        except Exception as error:
            why = f"{_culprit(result)} cannot be pickled ({type(error).__name__}: {error})"
        else:
            return Outcome(Status.RETURNED, has_result=True)
        message = f"what main_fun returned was not kept: {why}"
        print(f"tflease: warning: {message}", file=sys.stderr)
        return Outcome(Status.RETURNED, message=message)

    def finish(self, outcome: Outcome) -> int:
        """Leave the outcome behind, on disk and with the agent; the exit code."""
        self._progress.close(_FAREWELL_TIMEOUT)
        exit_code = outcome.exit_code
        try:
            _write(self._directory / OUTCOME_FILE, lambda f: f.write(outcome.dumps().encode()))
        except OSError as error:
            print(f"tflease: cannot write {OUTCOME_FILE}: {error}", file=sys.stderr)
            exit_code = exit_code or RAISED  # exit code 0 would claim an outcome that is not there
        # Said before the exit: from here on only the user's own threads can delay the end.
        self._tell({"event": "finished", "outcome": outcome.to_json()}, _FAREWELL_TIMEOUT)
        return exit_code

    def _tell(self, message: Mapping[str, object], timeout: float | None = None) -> None:
        # Without an agent the sentinel decides what becomes of this process, not a failed send.
        with contextlib.suppress(OSError, ValueError):
            self._send(message, timeout)

    def _send(self, message: Mapping[str, object], timeout: float | None = None) -> None:
        if self._channel is not None:
            self._channel.send(message, timeout)


def _set_environment(start: Start, context: Context) -> None:
    for name, value in start.env.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    os.environ["TF_CONFIG"] = json.dumps(context.tf_config)
    # The agent holds our port with SO_REUSEPORT until TensorFlow listens on it.
    os.environ["TF_GRPC_REUSE_PORT"] = "true"
    if exceptions := proxy_exceptions(context.cluster_spec, os.environ):
        os.environ["no_grpc_proxy"] = exceptions  # noqa: SIM112 gRPC reads it in this case


def _wait_for_uploads(outcome: Outcome, context: Context) -> Outcome:
    """A model that did not get to its place is a failure of who has made it (E6). Of a program that
    has failed already that is told first, but what it saved is what a restart goes on from."""
    has_returned = outcome.status is Status.RETURNED
    try:
        context._finish_uploads(None if has_returned else _FAILED_UPLOADS_TIMEOUT)
    except Exception as error:
        failure = _describe(error, Status.RAISED, RAISED, skip_frames=1)
        return failure if has_returned else outcome
    return outcome


def _describe(
    error: BaseException, status: Status, exit_code: int, *, skip_frames: int = 0
) -> Outcome:
    """An outcome for `error`, which is printed too: the log is what people read first.
    `skip_frames` of the outermost frames are ours and of no interest to the user."""
    trace = error.__traceback__
    for _ in range(skip_frames):
        trace = trace.tb_next if trace is not None else None
    text = "".join(traceback.format_exception(type(error), error, trace))
    with contextlib.suppress(OSError, ValueError):
        print(text, file=sys.stderr, end="", flush=True)
    return describe(error, text, status, exit_code)


def _describe_exit(error: SystemExit) -> Outcome:
    code = error.code
    if code is None or code == 0:
        return Outcome(Status.RETURNED)
    if isinstance(code, int):
        return Outcome(Status.EXITED, "SystemExit", f"sys.exit({code})", exit_code=code & 0xFF)
    print(code, file=sys.stderr, flush=True)  # as Python does
    return Outcome(Status.EXITED, "SystemExit", str(code), exit_code=1)


def _culprit(value: object) -> str:
    """What to name when `value` cannot be pickled: its own entry, if one of them is to blame."""
    entries: list[tuple[str, object]] = []
    if isinstance(value, dict):
        entries = [(f"the entry {key!r}", entry) for key, entry in value.items()]
    elif isinstance(value, list | tuple):
        entries = [(f"element {index}", entry) for index, entry in enumerate(value)]
    for name, entry in entries:
        try:
            cloudpickle.dumps(entry)
        except Exception:
            return f"{name}, a {type(entry).__qualname__},"
    return f"a {type(value).__qualname__}"


def _write(path: Path, fill: Callable[[IO[bytes]], object]) -> None:
    """Write `path` whole or not at all, readable by this user alone."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # 0600
    try:
        with open(descriptor, "wb") as file:
            fill(file)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _leave(pid: int, exit_code: list[int]) -> None:
    """The last atexit callback: end here, without the interpreter's finalization.

    By then Python has waited for the non-daemon threads and run every other callback: what
    asynchronous checkpoint writers rely on. What is skipped is the tearing down under TensorFlow's
    live native threads. A `tf.distribute.Server` cannot be shut down (TF_ServerStop is "not
    implemented"): left to a normal exit, a ps whose workers had gone first hung in it for more
    than 20 s, and chief and workers took 0.9 to 1.2 s instead of 0.05.
    """
    if os.getpid() != pid:
        return  # a fork of user code that got here ends as any Python process does
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    ctypes.CDLL(None).fflush(None)  # what native code printed: os._exit would drop it
    os._exit(exit_code[0])


def main(argv: Sequence[str] | None = None) -> int:
    """The process. Returns the exit code; the interpreter's end then calls `_leave`."""
    faulthandler.enable()
    parser = argparse.ArgumentParser(prog="executor_agent.bootstrap")
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--preload", action="append", default=[], metavar="MODULE")
    arguments = parser.parse_args(argv)
    pid = os.getpid()
    exit_code = [RAISED]
    atexit.register(_leave, pid, exit_code)  # registered first, so called last
    bootstrap = Bootstrap(arguments.directory)
    outcome = bootstrap.run(arguments.preload)
    if os.getpid() != pid:
        return outcome.exit_code  # user code forked and came back twice: not our outcome
    exit_code[0] = bootstrap.finish(outcome)
    return exit_code[0]


if __name__ == "__main__":
    sys.exit(main())
