"""The task's side of supervision: start the sentinel, hold its pipes, wait for the proof; or hand
the member over to the executor and leave.

Owns: the writing ends of lifeline and dead-man pipes, and the sentinel as long as it is ours. Must
not know Spark, the coordinator or what the agent and the member do. To be used on the task's main
thread, where KeyboardInterrupt arrives.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import partial
from types import TracebackType

from executor_agent.core import story
from executor_agent.core.supervision import (
    ENTERED,
    HAND_OVER,
    MARKER_VARIABLE,
    SENTINEL_MODULE,
    SENTINEL_START,
    TOMBSTONE,
    SentinelConfig,
    Tombstone,
)
from executor_agent.linux import anonymous_file
from executor_agent.member_launch import Descriptors, MemberLaunch
from executor_agent.parent_thread import started_by_a_thread
from executor_agent.processes import ProcessIdentity
from executor_agent.sentinel_handle import AttachedSentinel, DetachedSentinel
from executor_agent.sudden_death import SuddenDeath, sweep_after_sudden_death
from executor_agent.supervision_log import SupervisionLog, label_of

_SLACK = 5.0  # on top of everything the sentinel may take: a starved machine, a slow disk
_SPARK_INTERVAL = 1.0  # seconds between two looks at whether Spark still wants the task
_LOOK_INTERVAL = 0.1  # at whether the member has entered; its end wakes us at once


class SentinelProcess:
    """A sentinel and, through it, one member's whole tree.

    The task is the anchor: while it holds this object's pipes, the tree may live. When `finish` has
    returned nothing of it is left, or the tombstone names what is. A detached one can be handed
    over; from then on it is none of ours.
    """

    def __init__(
        self, launch: MemberLaunch, is_abandoned: Callable[[], bool] = lambda: False
    ) -> None:
        """``is_abandoned``: whether nobody waits any more for what the task returns; it is looked
        at once a second, and then the member is stopped as if the task had died."""
        self._launch = launch
        self._is_abandoned = is_abandoned
        self._sentinel: AttachedSentinel | DetachedSentinel | None = None
        self._asked_to_hand_over = False
        self._handed_over = False
        # Writing ends. The lifeline is closed first, it asks for a stop; the dead-man pipes when
        # the sentinel has ended.
        self._lifeline: int | None = None
        self._dead_man_pipes: list[int] = []
        self._hung = False  # we had to kill the sentinel
        self._give_up_at: float | None = None
        self._tombstone: Tombstone | None = None
        self._log = SupervisionLog(str(launch.directory), launch.marker, "task")

    def start(self) -> ProcessIdentity:
        """Exec the sentinel, which starts agent and member. Returns the sentinel's identity."""
        if self._sentinel is not None:
            raise RuntimeError("the sentinel was started already")
        launch = self._launch
        # given: what the sentinel gets and we do not keep. It has to be closed before we listen:
        # only so does the voice end with the sentinel.
        with ExitStack() as given, ExitStack() as undo:
            heard, voice = _pipe_to_us(given, undo) if launch.detached else (None, None)
            config = launch.configuration(self._descriptors(given, voice))
            config_fd = _file(given, "sentinel-config", config.to_json().encode())
            exec_it = partial(_exec_sentinel, config, config_fd)
            # A detached one is nobody's child and has no parent to be told of.
            process = exec_it() if launch.detached else started_by_a_thread(exec_it)
            undo.pop_all()
        if heard is None:
            self._sentinel = AttachedSentinel(process)
        else:
            self._sentinel = DetachedSentinel(process, heard)
        return self.identity

    def _descriptors(self, given: ExitStack, voice: int | None) -> Descriptors:
        lifeline, self._lifeline = _pipe(given)
        shared_dead_man, shared_dead_man_end = _pipe(given)
        task_dead_man: int | None = None
        if self._launch.detached:
            # D1 is the sentinel's alone, and D2 cannot be disarmed: we are going to leave.
            given.callback(os.close, shared_dead_man_end)
        else:
            task_dead_man, task_dead_man_end = _pipe(given)
            self._dead_man_pipes = [task_dead_man_end, shared_dead_man_end]
        return Descriptors(
            lifeline=lifeline,
            shared_dead_man_read=shared_dead_man,
            shared_dead_man_write=shared_dead_man_end,
            task_dead_man=task_dead_man,
            voice=voice,
            agent_config=_file(given, "agent-config", self._launch.agent_config),
            payload=_file(given, "payload", self._launch.payload),
        )

    @property
    def identity(self) -> ProcessIdentity:
        """The sentinel's process."""
        if self._sentinel is None:
            raise RuntimeError("the sentinel was never started")
        return self._sentinel.identity

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the sentinel's end. False: it still runs after `timeout` seconds."""
        return self._sentinel is None or self._sentinel.wait(timeout)

    def watch(self) -> None:
        """Wait for the sentinel's end, or until nobody wants the task any more."""
        while not (self.wait(_SPARK_INTERVAL) or self._is_dropped()):
            pass

    def _is_dropped(self) -> bool:
        dropped = self._is_abandoned()
        if dropped:
            self._log.say("Spark has dropped this task without killing it: lets go of the member")
        return dropped

    def hold(self) -> bool:
        """Be the anchor until the member has entered main_fun, then hand over to the executor.

        True: the sentinel has taken over, and nothing that becomes of this process touches the
        member any more. False: sentinel or member ended before that, or the sentinel hangs; to be
        finished.
        """
        entered = self._launch.directory / ENTERED
        while not self.wait(_LOOK_INTERVAL) and not self._is_dropped():
            if entered.exists():
                return self._hand_over()
        return False

    def _hand_over(self) -> bool:
        sentinel = self._sentinel
        if self._lifeline is None or not isinstance(sentinel, DetachedSentinel):
            raise RuntimeError("only a detached sentinel can be handed over")
        self._asked_to_hand_over = True
        with suppress(BrokenPipeError):  # it has just ended
            os.write(self._lifeline, HAND_OVER)
        # Not before it has answered: until then our end is the member's.
        self._handed_over = sentinel.takes_over(self._launch.hand_over_timeout)
        if self._handed_over:
            self._log.note("sentinel has taken over; the member lives as long as the executor")
            self._log.flush()
            self._let_go()
        return self._handed_over

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
                self._log.flush()
            except KeyboardInterrupt as error:
                interrupt = error
        if interrupt is not None:
            raise interrupt
        return self._tombstone

    def run(self) -> Tombstone | None:
        """Start, wait as long as it takes, and finish whatever comes in between. None: the member
        lives and was handed over."""
        with self:
            if not self._launch.detached:
                self.watch()
            elif self.hold():
                return None
        return self.finish()

    def __enter__(self) -> SentinelProcess:
        try:
            sentinel = self.start()
            self._log.say(f"pid {os.getpid()} started the sentinel (pid {sentinel.pid})")
            self._log.flush()
        except BaseException:
            if self._sentinel is not None:
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
        if not self._handed_over:
            self.finish()  # also on GeneratorExit: so Spark ends the generator of a task

    def _finish(self) -> Tombstone:
        """One attempt, to be repeated when interrupted: every step may be done twice."""
        sentinel, launch = self._sentinel, self._launch
        if sentinel is None:
            raise RuntimeError("the sentinel was never started")
        if self._lifeline is not None:
            lifeline, self._lifeline = self._lifeline, None
            os.close(lifeline)
        if self._asked_to_hand_over and isinstance(sentinel, DetachedSentinel):
            sentinel.terminate()  # it may have taken over after all, and then heeds no lifeline
        if self._give_up_at is None:
            # The tree is killed within one kill_timeout, the agent within another.
            patience = launch.grace + launch.term_timeout + 2 * launch.kill_timeout
            self._give_up_at = time.monotonic() + patience + launch.report_timeout + _SLACK
        if not self.wait(max(0.0, self._give_up_at - time.monotonic())):
            self._hung = True
            self._log.say(f"sentinel (pid {sentinel.identity.pid}) did not end in time: SIGKILL")
            sentinel.kill()
            self.wait(launch.kill_timeout)
        self._let_go()  # at once: if the sentinel is dead, the kernel now kills the member's group
        tombstone = self._read_tombstone()
        if tombstone is None or self._is_the_agents(tombstone):
            return self._sweep(sentinel)
        self._log.note(f"sentinel ended: {tombstone.reason} (proof: {tombstone.proof})")
        return tombstone

    def _is_the_agents(self, tombstone: Tombstone) -> bool:
        """It sweeps as well, and has then seen to all but itself: so the claim still stands."""
        swept = tombstone.proof == "sweep" and not tombstone.survivors
        return swept and self._launch.claim.exists()

    def _sweep(self, sentinel: AttachedSentinel | DetachedSentinel) -> Tombstone:
        launch = self._launch
        self._log.say("sentinel ended without a tombstone; sweeping what it has left")
        tombstone = sweep_after_sudden_death(
            SuddenDeath(
                member=launch.member,
                run_id=launch.run_id,
                incarnation=launch.incarnation,
                marker=launch.marker,
                directory=launch.directory,
                claim=launch.claim,
                exit_code=sentinel.exit_code,
                hung=self._hung,
            ),
            agent_timeout=launch.report_timeout,
            kill_timeout=launch.kill_timeout,
        )
        labels = [label_of(each.pid) for each in tombstone.survivors[: story.MOST_NAMED]]
        self._log.say(f"{tombstone.reason}: {story.ended(tombstone, labels).text}")
        return tombstone

    def _let_go(self) -> None:
        if self._sentinel is not None:
            self._sentinel.close()
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


def _pipe_to_us(given: ExitStack, undo: ExitStack) -> tuple[int, int]:
    """As `_pipe`, the other way round; the reading end is ours once all has gone well."""
    read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
    undo.callback(os.close, read_fd)
    given.callback(os.close, write_fd)
    return read_fd, write_fd


def _file(given: ExitStack, name: str, content: bytes) -> int:
    fd = anonymous_file(name, content)
    given.callback(os.close, fd)
    return fd


def _exec_sentinel(config: SentinelConfig, config_fd: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [
            *(sys.executable, "-S", "-c", SENTINEL_START),
            *(SENTINEL_MODULE, folder_of("executor_agent"), "--config-fd", str(config_fd)),
        ],
        stdin=subprocess.DEVNULL,
        stdout=2,  # the executor's stderr
        stderr=2,
        env=_sentinel_environment(),
        pass_fds=(config_fd, *config.descriptors()),
        start_new_session=True,
    )


def _sentinel_environment() -> dict[str, str]:
    """Ours, without what the sentinel must not have: Spark's secret, a marker that would make it
    the prey of a sweep, and folders in which a user's `json.py` would be found first."""
    removed = ("PYTHON_WORKER_FACTORY_SECRET", MARKER_VARIABLE, "PYTHONPATH", "PYTHONSTARTUP")
    environment = {name: value for name, value in os.environ.items() if name not in removed}
    return {**environment, "PYTHONSAFEPATH": "1"}


def folder_of(package: str) -> str:
    """Where it is imported from, absolute; a zip that Spark has shipped is a folder, too. Raises
    RuntimeError, ImportError when it is not."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise RuntimeError(f"cannot tell where {package} is imported from")
    folder = os.path.abspath(spec.origin)
    for _ in range(package.count(".") + 2):  # its __init__.py, and itself
        folder = os.path.dirname(folder)
    return folder
