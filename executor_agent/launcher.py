"""The task's side of supervision: start the sentinel, hold its pipes, wait for the proof.

Owns: the writing ends of lifeline and dead-man pipes, and the sentinel as our child. Must not know
Spark, the coordinator or what the agent and the member do. To be used on the task's main thread,
where KeyboardInterrupt arrives.
"""

from __future__ import annotations

import importlib.util
import os
import select
import site
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from executor_agent.core.supervision import (
    MARKER_VARIABLE,
    TOMBSTONE,
    AnchorName,
    SentinelConfig,
    Tombstone,
)
from executor_agent.linux import anonymous_file
from executor_agent.processes import ProcessIdentity, identity_of, oom_kill_count
from executor_agent.sudden_death import SuddenDeath, sweep_after_sudden_death

_SLACK = 5.0  # on top of everything the sentinel may take: a starved machine, a slow disk


@dataclass(frozen=True, slots=True)
class MemberLaunch:
    """What is to be started and supervised for one member (blueprint of a SentinelProcess)."""

    member: str  # "worker:1"
    run_id: str
    incarnation: str
    marker: str
    directory: Path  # exists, 0700, absolute
    watch: Mapping[AnchorName, ProcessIdentity]  # see processes.spark_chain
    grace: float  # seconds that the member gets when it is stopped because its task ends
    agent_argv: tuple[str, ...]
    agent_env: Mapping[str, str]  # complete
    agent_config: bytes = field(repr=False)  # the agent reads it from descriptor 5; has secrets
    member_argv: tuple[str, ...]
    member_env: Mapping[str, str]  # complete
    payload: bytes = field(repr=False)  # the member reads it from descriptor 5
    cwd: Path
    term_timeout: float = 1.0
    kill_timeout: float = 10.0
    report_timeout: float = 3.0


class SentinelProcess:
    """A sentinel and, through it, one member's whole tree.

    The task is the anchor: while it holds this object's pipes, the tree may live. When `finish` has
    returned nothing of it is left, or the tombstone names what is.
    """

    def __init__(self, launch: MemberLaunch) -> None:
        self._launch = launch
        self._process: subprocess.Popen[bytes] | None = None
        self._identity: ProcessIdentity | None = None
        # Writing ends. The lifeline is closed first, it asks for a stop; the dead-man pipes when
        # the sentinel has ended.
        self._lifeline: int | None = None
        self._dead_man_pipes: list[int] = []
        self._hung = False  # we had to kill the sentinel
        self._give_up_at: float | None = None
        self._oom_before = oom_kill_count()
        self._tombstone: Tombstone | None = None

    def start(self) -> ProcessIdentity:
        """Exec the sentinel, which starts agent and member. Returns the sentinel's identity."""
        if self._process is not None:
            raise RuntimeError("the sentinel was started already")
        launch = self._launch
        with ExitStack() as given:  # what the sentinel gets and we do not keep
            lifeline, self._lifeline = _pipe(given)
            task_dead_man, task_dead_man_end = _pipe(given)
            shared_dead_man, shared_dead_man_end = _pipe(given)
            self._dead_man_pipes = [task_dead_man_end, shared_dead_man_end]
            config = SentinelConfig(
                member=launch.member,
                run_id=launch.run_id,
                incarnation=launch.incarnation,
                marker=launch.marker,
                directory=str(launch.directory),
                watch={name: (who.pid, who.create_time) for name, who in launch.watch.items()},
                grace=launch.grace,
                agent_argv=launch.agent_argv,
                agent_env=launch.agent_env,
                member_argv=launch.member_argv,
                member_env=launch.member_env,
                cwd=str(launch.cwd),
                shared_dead_man_read_fd=shared_dead_man,
                shared_dead_man_write_fd=shared_dead_man_end,
                agent_config_fd=_file(given, "agent-config", launch.agent_config),
                payload_fd=_file(given, "payload", launch.payload),
                lifeline_fd=lifeline,
                task_dead_man_fd=task_dead_man,
                term_timeout=launch.term_timeout,
                kill_timeout=launch.kill_timeout,
                report_timeout=launch.report_timeout,
            )
            config_fd = _file(given, "sentinel-config", config.to_json().encode())
            self._process = subprocess.Popen(
                [sys.executable, "-m", "executor_agent.sentinel", "--config-fd", str(config_fd)],
                stdin=subprocess.DEVNULL,
                stdout=2,  # the executor's stderr
                stderr=2,
                env=_sentinel_environment(),
                pass_fds=(config_fd, *config.descriptors()),
                start_new_session=True,
            )
        # Not waited for yet, so that it has an identity even if it is dead already.
        self._identity = identity_of(self._process.pid)
        return self.identity

    @property
    def identity(self) -> ProcessIdentity:
        """The sentinel's process."""
        if self._identity is None:
            raise RuntimeError("the sentinel was never started")
        return self._identity

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the sentinel's end. False: it still runs after `timeout` seconds."""
        process = self._process
        if process is None or process.poll() is not None:
            return True
        if timeout is None:
            process.wait()
            return True
        try:
            pidfd = os.pidfd_open(process.pid)
        except OSError:  # refused here: subprocess polls instead
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout)
        else:
            poll = select.poll()
            poll.register(pidfd, select.POLLIN)
            try:
                poll.poll(timeout * 1000)
            finally:
                os.close(pidfd)
        return process.poll() is not None

    def finish(self) -> Tombstone:
        """Stop what still runs and say what is proven. Idempotent.

        On return the sentinel is gone, our pipes are closed, and nothing of the member is left but
        what the tombstone names. Bounded by the grace, the timeouts and some slack. An interrupt is
        passed on only then: to leave early would be to leave the tree behind.
        """
        interrupt: KeyboardInterrupt | None = None
        while self._tombstone is None:
            try:
                self._tombstone = self._finish()
            except KeyboardInterrupt as error:
                interrupt = error
        if interrupt is not None:
            raise interrupt
        return self._tombstone

    def run(self) -> Tombstone:
        """Start, wait as long as it takes, and finish whatever comes in between."""
        with self:
            self.wait()
        return self.finish()

    def __enter__(self) -> SentinelProcess:
        try:
            self.start()
        except BaseException:
            if self._process is not None:
                self.finish()
            self._let_go()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.finish()  # also on GeneratorExit: so Spark ends the generator of a task

    def _finish(self) -> Tombstone:
        """One attempt, to be repeated when interrupted: every step may be done twice."""
        process, launch = self._process, self._launch
        if process is None:
            raise RuntimeError("the sentinel was never started")
        if self._lifeline is not None:
            lifeline, self._lifeline = self._lifeline, None
            os.close(lifeline)
        if self._give_up_at is None:
            # The tree is killed within one kill_timeout, the agent within another.
            patience = launch.grace + launch.term_timeout + 2 * launch.kill_timeout
            self._give_up_at = time.monotonic() + patience + launch.report_timeout + _SLACK
        if not self.wait(max(0.0, self._give_up_at - time.monotonic())):
            self._hung = True
            process.kill()
            self.wait(launch.kill_timeout)
        self._let_go()  # at once: if the sentinel is dead, the kernel now kills the member's group
        return self._read_tombstone() or sweep_after_sudden_death(
            SuddenDeath(
                member=launch.member,
                run_id=launch.run_id,
                incarnation=launch.incarnation,
                marker=launch.marker,
                directory=launch.directory,
                exit_code=process.returncode,
                hung=self._hung,
                oom_kills_before=self._oom_before,
            ),
            agent_timeout=launch.report_timeout,
            kill_timeout=launch.kill_timeout,
        )

    def _let_go(self) -> None:
        while self._dead_man_pipes:
            os.close(self._dead_man_pipes.pop())
        if self._lifeline is not None:
            lifeline, self._lifeline = self._lifeline, None
            os.close(lifeline)

    def _read_tombstone(self) -> Tombstone | None:
        try:
            tombstone = Tombstone.from_json((self._launch.directory / TOMBSTONE).read_bytes())
        except (OSError, ValueError):
            return None
        launch = self._launch
        ours = (launch.member, launch.run_id, launch.incarnation)
        return tombstone if ours == _subject(tombstone) else None


def _subject(tombstone: Tombstone) -> tuple[str, str, str]:
    return tombstone.member, tombstone.run_id, tombstone.incarnation


def _pipe(given: ExitStack) -> tuple[int, int]:
    read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
    given.callback(os.close, read_fd)
    return read_fd, write_fd


def _file(given: ExitStack, name: str, content: bytes) -> int:
    fd = anonymous_file(name, content)
    given.callback(os.close, fd)
    return fd


def _sentinel_environment() -> dict[str, str]:
    """Ours, without what the sentinel must not have: Spark's secret, a marker that would make it
    the prey of a sweep, and folders in which a user's `json.py` would be found first."""
    removed = ("PYTHON_WORKER_FACTORY_SECRET", MARKER_VARIABLE, "PYTHONPATH", "PYTHONSTARTUP")
    environment = {name: value for name, value in os.environ.items() if name not in removed}
    user_site = [site.getusersitepackages()] if site.ENABLE_USER_SITE else []
    found_anyway = {os.path.realpath(folder) for folder in (*site.getsitepackages(), *user_site)}
    folders = [
        folder
        for folder in dict.fromkeys(map(_folder_of, ("executor_agent", "psutil")))
        if os.path.realpath(folder) not in found_anyway
    ]
    return {**environment, "PYTHONPATH": os.pathsep.join(folders), "PYTHONSAFEPATH": "1"}


def _folder_of(package: str) -> str:
    """Where it is imported from, absolute; a zip that Spark has shipped is a folder, too."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise RuntimeError(f"cannot tell where {package} is imported from")
    return os.path.dirname(os.path.dirname(os.path.abspath(spec.origin)))
