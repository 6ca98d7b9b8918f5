"""How the sentinel starts the agent and the member: fork, arrange, arm, exec.

Owns: what holds in a child at the moment of exec: its session, signals, descriptors, and the
kernel's promises to kill it; and the wires between the three. Must only be used by a
single-threaded process: it forks, and the parent-death signal is bound to the forking thread (O8).
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import NoReturn

from executor_agent.core.record import Record
from executor_agent.core.supervision import (
    AGENT_CHANNEL_FD,
    AGENT_CONFIG_FD,
    AGENT_CONTROL_FD,
    MARKER_VARIABLE,
    MEMBER_CHANNEL_FD,
    MEMBER_LOG,
    MEMBER_PAYLOAD_FD,
    MEMBER_SHARED_DEAD_MAN_FD,
    MEMBER_STOP_FD,
    MEMBER_TASK_DEAD_MAN_FD,
    SentinelConfig,
)
from executor_agent.linux import arm_dead_man, die_with_parent, prefer_for_oom
from executor_agent.supervision_log import first_line

_OOM_POINTS = 500
_TEMPORARY_FD = 64  # above every fixed number, so that placing one cannot overwrite another


class Program(Record):
    """What to exec. `descriptors` maps the number in the child to ours; all others are closed."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: str
    descriptors: Mapping[int, int]


def spawn(program: Program, arm: Callable[[], bool] | None = None) -> int:
    """Start the program as the leader of its own session and return its pid.

    `arm` runs in the child, when only the child's own descriptors are open; False means that
    whoever it should die with is gone already. A program that cannot be started says so on its
    stderr and exits with 127.
    """
    pid = os.fork()
    if pid == 0:
        _become(program, arm)
    return pid


def detach() -> None:
    """Go on as nobody's child, in a session of our own, while the process that was exec'ed ends.

    For a sentinel that outlives its task: Spark reuses the task's worker, which would otherwise
    keep us as a zombie that it does not know of, for as long as it lives.
    """
    if os.fork() != 0:
        os._exit(0)
    os.setsid()


class Wiring(Record):
    """The descriptors made for one agent and one member."""

    null: int
    log: int
    control: socket.socket  # stays with the sentinel
    agent_control: socket.socket
    agent_channel: socket.socket
    member_channel: socket.socket
    stop_read: int
    stop_write: int  # stays with the sentinel

    def close_given(self, config: SentinelConfig) -> None:
        """Close what both children have by now. Open remain, besides the two above: the lifeline,
        our voice to the task, the writing end of D1, and the reading end of D2, which shows whether
        the task let go."""
        given = (self.null, self.log, self.stop_read, config.shared_dead_man_read_fd)
        for fd in (*given, config.agent_config_fd, config.payload_fd):
            os.close(fd)
        for end in (self.agent_control, self.agent_channel, self.member_channel):
            end.close()


def wire(config: SentinelConfig) -> Wiring:
    """Make the sockets and the pipe between sentinel, agent and member; open the member's log."""
    log_flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    log = os.open(os.path.join(config.directory, MEMBER_LOG), log_flags, 0o600)
    control, agent_control = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    agent_channel, member_channel = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    stop_read, stop_write = os.pipe2(os.O_CLOEXEC)
    # Our ends only: neither a stuck agent nor a stuck member may block the sentinel.
    control.setblocking(False)
    os.set_blocking(stop_write, False)
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    return Wiring(
        null=null,
        log=log,
        control=control,
        agent_control=agent_control,
        agent_channel=agent_channel,
        member_channel=member_channel,
        stop_read=stop_read,
        stop_write=stop_write,
    )


def start_agent(config: SentinelConfig, wiring: Wiring) -> int:
    """Start the agent. It does not die with the sentinel: it has to report that."""
    return spawn(
        Program(
            argv=config.agent_argv,
            env={**config.agent_env, MARKER_VARIABLE: config.marker},
            cwd=config.cwd,
            descriptors={
                0: wiring.null,
                1: 2,
                2: 2,
                AGENT_CONTROL_FD: wiring.agent_control.fileno(),
                AGENT_CHANNEL_FD: wiring.agent_channel.fileno(),
                AGENT_CONFIG_FD: config.agent_config_fd,
            },
        )
    )


def start_member(config: SentinelConfig, wiring: Wiring, kill_with_task: bool) -> int:
    """Start the member's process, bound to our life and to its task's."""
    task_dead_man = config.task_dead_man_fd
    if task_dead_man is None:  # it will be handed over: the number is taken all the same
        task_dead_man = wiring.null
    return spawn(
        Program(
            argv=config.member_argv,
            env={**config.member_env, MARKER_VARIABLE: config.marker},
            cwd=config.cwd,
            descriptors={
                0: wiring.null,
                1: wiring.log,
                2: wiring.log,
                MEMBER_CHANNEL_FD: wiring.member_channel.fileno(),
                MEMBER_STOP_FD: wiring.stop_read,
                MEMBER_PAYLOAD_FD: config.payload_fd,
                MEMBER_SHARED_DEAD_MAN_FD: config.shared_dead_man_read_fd,
                MEMBER_TASK_DEAD_MAN_FD: task_dead_man,
            },
        ),
        arm=partial(_arm_member, os.getpid(), kill_with_task, config.marker),
    )


def _arm_member(sentinel_pid: int, kill_with_task: bool, marker: str) -> bool:
    """The kernel's promises about the member, armed in its child before exec: it dies with the
    sentinel; its group dies with sentinel and task together (D1) and, where the grace is 0, with
    the task alone (D2), which also covers a sentinel that hangs."""
    with suppress(OSError):  # a full disk
        os.write(2, first_line(marker, "member"))
    prefer_for_oom(_OOM_POINTS)
    group = os.getpid()
    return (
        die_with_parent(sentinel_pid)
        and arm_dead_man(MEMBER_SHARED_DEAD_MAN_FD, group)
        and (not kill_with_task or arm_dead_man(MEMBER_TASK_DEAD_MAN_FD, group))
    )


def _become(program: Program, arm: Callable[[], bool] | None) -> NoReturn:
    try:
        os.setsid()
        _restore_signals()
        _place_descriptors(program.descriptors)
        if arm is None or arm():
            os.chdir(program.cwd)
            os.execvpe(program.argv[0], program.argv, program.env)
    except BaseException as error:
        with suppress(OSError):  # a full disk must not let us out of here: we are a copy
            os.write(2, f"cannot start {program.argv[0]}: {error!r}\n".encode())
    finally:
        os._exit(127)


def _place_descriptors(descriptors: Mapping[int, int]) -> None:
    moved = {
        target: fcntl.fcntl(source, fcntl.F_DUPFD_CLOEXEC, _TEMPORARY_FD)
        for target, source in descriptors.items()
    }
    for target, source in moved.items():
        os.dup2(source, target)
    # Exec would close ours too. But arming asks whether a pipe still has writers, so our copies of
    # write ends go now; and nothing that came in by mistake stays, for one leaked write end would
    # disarm a dead-man pipe for good.
    for name in os.listdir("/proc/self/fd"):
        fd = int(name)
        if fd not in descriptors:
            with suppress(OSError):  # the listing's own descriptor is in the list
                os.close(fd)


def _restore_signals() -> None:
    signal.set_wakeup_fd(-1)
    # Python ignores some at start-up, the sentinel others; ignoring would be inherited over exec.
    for number in (
        signal.SIGHUP,
        signal.SIGINT,
        signal.SIGPIPE,
        signal.SIGXFSZ,
        signal.SIGTERM,
        signal.SIGCHLD,
        signal.SIGUSR1,
    ):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
