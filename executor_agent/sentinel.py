"""The sentinel: the small trusted process between a Spark task and everything the task starts.

Owns: the agent and the member's process, both started here, and all their descendants; the watch
over task, daemon and executor; the end of the tree and the proof of it. One thread, one loop: what
happens becomes events, `StopSequence` decides, the effects are carried out here.

Must not know the network, the coordinator, TensorFlow or the user's code. It parses only its own
configuration and the commands of its own child, the agent. No threads, so that forking is safe and
the parent-death signal holds; no user code, so that nothing starves the watch (O8, O9).
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from executor_agent import claims, linux, parent_thread, spawn
from executor_agent.anchors import Anchors
from executor_agent.core import claim, story, supervision
from executor_agent.core import stop_events as on
from executor_agent.core.stop_sequence import Phase, StopSequence
from executor_agent.core.supervision import ExitFacts, Proof, SentinelConfig
from executor_agent.exit_record import ExitRecord, describe
from executor_agent.kill_rounds import KillRounds
from executor_agent.processes import (
    ProcessIdentity,
    descendants,
    is_running,
    name_of,
    signal_if_same,
)
from executor_agent.supervision_log import SupervisionLog, label_of, write_to_stderr


class Sentinel:
    """Carries out what the sequence decides for one member."""

    def __init__(self, config: SentinelConfig) -> None:
        self._config = config
        self._sequence = StopSequence(
            grace=config.grace,
            term_timeout=config.term_timeout,
            kill_timeout=config.kill_timeout,
            report_timeout=config.report_timeout,
        )
        self._selector = selectors.DefaultSelector()
        self._anchors = Anchors(self._selector)
        self._control: socket.socket | None = None  # our end to the agent
        self._stop_fd: int | None = None  # write end of the member's stop pipe
        self._agent_pid: int | None = None  # None before its start and once reaped
        self._member_pid: int | None = None  # stays, for the facts
        self._record = ExitRecord()
        self._rounds = KillRounds()
        self._log = SupervisionLog(config.directory, config.marker, "sentinel")
        self._story = story.Story(config.watch)
        self._untold: list[story.Line] = []
        # The kernel may kill on the task's end before we have noticed it.
        self._kill_with_task = config.grace == 0 and config.task_dead_man_fd is not None

    def run(self) -> None:
        """Start both, watch, and stop. On return the tombstone says what is left, if anything."""
        self._listen_to_signals()
        linux.become_subreaper()
        if self._config.voice_fd is None:  # before the task is looked for, which may be gone
            parent_thread.ask_for_word_of_its_end()
        self._start()
        while self._sequence.phase is not Phase.ENDED:
            self._turn(self._patience())

    def abandon(self) -> None:
        """The last resort after a mistake of our own: kill the member's tree, bounded, and leave
        the rest to the agent, which sees our end as EOF, and to the task."""
        give_up_at = time.monotonic() + 2.0
        while time.monotonic() < give_up_at:
            tree = descendants(os.getpid(), without=self._agent_pid)
            if not tree:
                break
            for identity in tree:
                signal_if_same(identity, signal.SIGKILL)
            self._reap()
            time.sleep(0.01)
        import traceback  # late: it is as long in loading as much of what is needed always

        self._log.say(traceback.format_exc())
        self._log.flush()

    # Starting.

    def _listen_to_signals(self) -> None:
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGPIPE):
            signal.signal(number, signal.SIG_IGN)
        read_fd, write_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(write_fd, warn_on_full_buffer=False)
        for number in (signal.SIGCHLD, signal.SIGTERM, parent_thread.PARENT_ENDED):
            signal.signal(number, lambda *_: None)  # the wakeup descriptor has the number
        if self._config.voice_fd is not None:  # nobody's child: whoever sends it is a stranger
            signal.signal(parent_thread.PARENT_ENDED, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])  # a JVM's threads may have blocked some
        self._selector.register(read_fd, selectors.EVENT_READ, partial(self._on_signal, read_fd))

    def _start(self) -> None:
        config = self._config
        try:
            with suppress(FileNotFoundError):
                os.unlink(self._path(supervision.TOMBSTONE))
            for name, (pid, create_time) in config.watch.items():
                for event in self._anchors.watch(name, ProcessIdentity(pid, create_time)):
                    self._feed(event)
            if config.lifeline_fd is not None:
                self._anchors.hold_lifeline(config.lifeline_fd)
            if config.voice_fd is not None:
                self._anchors.introduce(config.voice_fd)
            self._turn(0.0)  # whoever is gone already must not be started for
            if self._sequence.phase is Phase.WATCHING:
                self._start_children()
        except OSError as error:
            self._feed(on.StartFailed(str(error)))

    def _start_children(self) -> None:
        # Before anybody is started: who outlives us is found by it.
        claims.write(self._config, {claim.SENTINEL: os.getpid()})
        wiring = spawn.wire(self._config)
        self._control, self._stop_fd = wiring.control, wiring.stop_write
        self._agent_pid = spawn.start_agent(self._config, wiring)
        self._feed(on.AgentStarted())
        self._selector.register(wiring.control, selectors.EVENT_READ, self._on_control)
        pid = spawn.start_member(self._config, wiring, self._kill_with_task)
        self._member_pid = pid
        self._feed(on.MemberStarted())
        # Neither is reaped yet, so that each has its identity, were it dead already.
        pids = {claim.SENTINEL: os.getpid(), claim.AGENT: self._agent_pid, claim.MEMBER: pid}
        pid, create_time = claims.write(self._config, pids).processes[claim.MEMBER]
        wiring.close_given(self._config)
        self._tell_agent({"event": "started", "pid": pid, "create_time": create_time})
        host = os.uname().nodename
        self._log.tell(self._story.started(os.getpid(), pids[claim.AGENT], pid, host))
        # From here on the file waits for the end: a slow disk must not hold up a stop.
        self._log.flush()

    # What happens becomes events.

    def _patience(self) -> float:
        longest = self._anchors.longest_wait
        deadline = self._sequence.next_deadline()
        return longest if deadline is None else min(longest, deadline - time.monotonic())

    def _turn(self, patience: float) -> None:
        events: list[on.Event] = []
        for key, _ in self._selector.select(max(0.0, patience)):
            on_readable: Callable[[], list[on.Event]] = key.data
            events += on_readable()
        events += self._anchors.look()
        events += self._reap()[0]
        for event in (*events, on.Tick()):
            self._feed(event)

    def _on_signal(self, read_fd: int) -> list[on.Event]:
        numbers = os.read(read_fd, 4096)
        # The parent thread outlives us, unless its process, the task, was killed.
        gone: list[on.Event] = [on.LifelineClosed("the parent-death signal")] * (
            parent_thread.PARENT_ENDED in numbers
        )
        return [*gone, on.TerminateAsked()] if signal.SIGTERM in numbers else gone

    def _on_control(self) -> list[on.Event]:
        if self._control is None:
            return []
        try:
            datagram = self._control.recv(65536)
        except (BlockingIOError, ConnectionResetError):
            return []  # after a reset, what the agent had sent before it is still to be read
        if not datagram:
            self._selector.unregister(self._control)
            return [on.ControlClosed()]
        try:
            return [on.parse_command(datagram)]
        except ValueError as error:
            self._log.say(f"ignored a command of the agent: {error}")
            return []

    def _reap(self) -> tuple[list[on.Event], bool]:
        """Bury whoever is dead; True when we have no child left at all."""
        events: list[on.Event] = []
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return events, True
            if pid == 0:
                return events, False
            if pid == self._agent_pid:
                self._agent_pid = None
                events.append(on.AgentExited(describe(status)))
            elif pid == self._member_pid and not self._record.ended:
                self._record.end(status, usage)
                events.append(on.MemberExited(self._task_let_go(), describe(status)))

    def _task_let_go(self) -> bool:
        """A member that has a grace, and has not begun, leaves by itself as soon as it sees that
        its task is gone, which may be before we see it (`watcher`)."""
        fd = self._config.task_dead_man_fd
        let_go = fd is not None and linux.hung_up(fd)
        if let_go and self._kill_with_task:
            self._record.sent(signal.SIGKILL)  # by the kernel, on our behalf
        return let_go

    # Effects are carried out.

    def _feed(self, event: on.Event) -> None:
        events = deque([event])
        while events:
            event, now = events.popleft(), time.monotonic()
            effects = self._sequence.handle(event, now)
            self._untold += self._story.decided(event, effects, now)
            for effect in effects:
                events.extend(self._perform(effect))
            self._tell()

    def _perform(self, effect: on.Effect) -> list[on.Event]:
        match effect:
            case on.AnnounceStop(reason, grace):
                self._tell_agent({"event": "stopping", "reason": reason, "grace": grace})
                self._tell_member({"reason": reason, "grace": grace})
            case on.TerminateMember():
                if self._member_pid is not None and not self._record.ended:
                    self._record.sent(signal.SIGTERM)
                    with suppress(ProcessLookupError):  # its number is still its own: not reaped
                        os.killpg(self._member_pid, signal.SIGTERM)
            case on.KillRound(agent_too):
                return self._kill_round(None if agent_too else self._agent_pid)
            case on.ReportExit(proof):
                self._tell_agent({"event": "exited", **self._facts(proof).to_dict()})
            case on.TakeOver():
                return self._anchors.take_over()
            case on.Conclude(proof):
                self._conclude(proof)
        return []

    def _kill_round(self, spared: int | None) -> list[on.Event]:
        events, _ = self._reap()  # first, so that who ended by itself is not counted as killed
        if self._member_pid is not None and not self._record.ended:
            # Not reaped, so that the number is its own; first, as it takes longest to die.
            self._record.sent(signal.SIGKILL)
            with suppress(OSError):
                os.killpg(self._member_pid, signal.SIGKILL)
        killed = self._rounds.run(without=spared)
        if killed:
            # After the signals and before the burial: a zombie still has its name.
            labels = [f"{each.pid} {name_of(each.pid)}" for each in killed[: story.MOST_NAMED]]
            self._untold.append(story.killed(labels, len(killed)))
        buried, childless = self._reap()
        return [*events, *buried, on.Scanned(len(self._rounds.remaining), childless)]

    def _tell(self) -> None:
        # Never before the signals: whoever reads our stderr would be woken to compete with them.
        while self._untold:
            self._log.tell(self._untold.pop(0))

    def _conclude(self, proof: Proof) -> None:
        # The proof first: it must not wait for a slow disk.
        facts = self._facts(proof)
        linux.write_atomically(self._path(supervision.TOMBSTONE), facts.to_json())
        survivors = [label_of(each.pid) for each in facts.survivors[: story.MOST_NAMED]]
        self._log.tell(story.ended(facts, survivors))
        self._log.flush()
        # Else the claim stays: somebody has to look again, also for an agent that cannot be killed.
        if proof != "none" and not facts.survivors:
            with suppress(FileNotFoundError):
                os.unlink(self._config.claim)
        local = self._path(supervision.LOCAL_DIRECTORY)
        if os.path.exists(local):
            import shutil  # late: nobody is left who waits for us to act

            shutil.rmtree(local, ignore_errors=True)

    def _path(self, name: str) -> str:
        return os.path.join(self._config.directory, name)

    def _facts(self, proof: Proof) -> ExitFacts:
        # The dead whom a frozen parent does not bury are below us, but not left.
        left = () if proof == "kernel" else filter(is_running, self._rounds.remaining)
        return self._record.facts(
            self._config,
            pid=self._member_pid,
            reason=self._sequence.reason,
            proof=proof,
            survivors=tuple(left),
            stop_seconds=self._sequence.stop_seconds,
        )

    def _tell_agent(self, message: dict[str, object]) -> None:
        if self._control is not None:
            with suppress(OSError):  # it may be gone, or as stuck as a full socket
                self._control.send(json.dumps(message).encode())

    def _tell_member(self, message: dict[str, object]) -> None:
        if self._stop_fd is not None:
            with suppress(OSError):
                os.write(self._stop_fd, json.dumps(message).encode() + b"\n")


def load_config(argv: list[str]) -> SentinelConfig:
    """Read the configuration from the inherited descriptor; ValueError when it is not one."""
    match argv:
        case ["--config-fd", number] if number.isdecimal():
            try:
                with os.fdopen(int(number), "rb") as file:
                    config = SentinelConfig.from_json(file.read())
                for fd in config.descriptors():
                    os.set_inheritable(fd, False)  # each child gets exactly what it is given
            except OSError as error:
                raise ValueError(f"a descriptor is not open: {error}") from None
            return config
        case _:
            raise ValueError(f"usage: --config-fd N, not {argv}")


def main(argv: list[str]) -> int:
    """0: there is a tombstone. 1: a mistake of ours, no tombstone. 2: broken configuration."""
    try:
        config = load_config(argv)
    except ValueError as error:
        write_to_stderr(f"tflease sentinel: broken configuration: {error}\n".encode())
        return 2
    if config.voice_fd is not None:
        spawn.detach()
    os.chdir("/")  # pin no file system
    sentinel = Sentinel(config)
    try:
        sentinel.run()
    except Exception:
        sentinel.abandon()
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
