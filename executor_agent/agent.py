"""The agent: one per member, between its sentinel, its process and the coordinator.

Owns gRPC, the token, the port, the logs, and the question whether the other members can be
reached. No user code runs here. It starts nothing and kills nothing while the sentinel lives: it
asks. When the sentinel is gone it sweeps what carries the member's marker, reports, and leaves.

``python -m executor_agent.agent``, with the descriptors of ``core.supervision``.
"""

from __future__ import annotations

import asyncio
import errno
import os
import platform
import socket
import sys
from collections.abc import Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

from coordinator.core.access import tls_of
from coordinator.core.model import (
    VERSION,
    Cause,
    ExecutorInfo,
    IncarnationId,
    MemberId,
    RunId,
)
from coordinator.member_client import ReservationClient, Start, Stop
from executor_agent import claims, endpoint, framing, leftovers, logs, reach, stacks
from executor_agent.agent_gpus import AgentGpus
from executor_agent.attendance import Membership, MustStop
from executor_agent.bounded_log import BoundedLog, LogTrimmer
from executor_agent.core import peers, supervision
from executor_agent.core.agent_config import AgentConfig
from executor_agent.core.claim import MEMBER
from executor_agent.core.start_command import start_command
from executor_agent.core.story import Line
from executor_agent.core.supervision import ExitFacts
from executor_agent.event_files import EventFiles
from executor_agent.linux import boot_id
from executor_agent.marks import Marks
from executor_agent.member_directory import read_outcome
from executor_agent.member_reports import Ended, Leaving, report_from
from executor_agent.oom import OomWatch
from executor_agent.processes import ProcessIdentity
from executor_agent.report import exit_report, with_lost_gpus
from executor_agent.sentinel_link import MAX_REASON, SentinelLink
from executor_agent.supervision_log import SupervisionLog
from executor_agent.sweep import take_away

_MEMBER_IS_GONE = (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN, errno.EBADF)

_DELIVERY_TIMEOUT = 2.5
"""Seconds for the last report: less than the sentinel's patience (``report_timeout``)."""

_FREE_TIMEOUT = 1.5
"""Seconds of these for the member's GPUs to be seen free: a process that is gone leaves its memory
on the device for a moment."""

_LOG_TIMEOUT = 0.5
_FILES_TIMEOUT = 1.5
_MARKS_TIMEOUT = 0.3

_MAX_LEFTOVERS = 20  # told to the coordinator; all of them stand in the executor's stderr


class Agent:
    """One member's agent. ``run`` returns when the member has ended and that was reported, or
    could not be."""

    def __init__(self, config: AgentConfig) -> None:
        self._config = config
        self._loop = asyncio.get_running_loop()
        self._member = MemberId.parse(config.member)
        self._directory = Path(config.directory)
        self._log = self._directory / supervision.MEMBER_LOG
        self._story = SupervisionLog(config.directory, config.marker, "agent")
        self._bounded = BoundedLog.of(self._log, os.environ, self._complain)
        control = socket.socket(fileno=supervision.AGENT_CONTROL_FD)
        self._sentinel = SentinelLink(control, config, tell=self._tell)
        self._marks = Marks(self._directory, self._complain)
        self._client = ReservationClient(config.coordinator, config.token, tls_of(config.tls))
        who = (RunId(config.run_id), self._member, IncarnationId(config.incarnation))
        self._membership = Membership(
            self._client,
            who,
            coordinator=config.coordinator,
            connect_timeout=config.connect_timeout,
            on_start=self._start,
            on_stop=self._stop,
            read_log=lambda asked: logs.read(self._bounded, asked.offset, asked.max_bytes),
            on_gpus=lambda command: self._gpus.obey(command),  # noqa: PLW0108 not there yet
            leases=lambda: self._gpus.tokens(),  # noqa: PLW0108
            tell=self._tell,
            dump_stack=self._dump_stack,
            on_reserved=self._marks.reserved,
            predecessor=config.predecessor,
        )
        self._gpus = AgentGpus(config, report=self._membership.report, complain=self._complain)
        events = self._directory / supervision.EVENTS_DIRECTORY
        self._files = EventFiles(events, lambda: self._client.send_files(*who), self._complain)
        self._oom = OomWatch()
        self._channel = socket.socket(fileno=supervision.AGENT_CHANNEL_FD)
        self._copier = logs.LogCopier(self._bounded, f"[{config.member}] ")
        self._trimmer = LogTrimmer(self._bounded, self._complain)
        self._to_member: asyncio.StreamWriter | None = None
        self._ports: endpoint.HeldPorts | None = None
        self._address = ""  # what the member advertises
        self._started: Start | None = None
        self._starting: asyncio.Task[None] | None = None
        self._generation = 0
        self._unreachable: tuple[str, str] | None = None  # why we stopped it: reason, message
        self._stop_asked = False
        self._complained = False
        self._leftovers: list[str] = []

    async def run(self) -> None:
        """The member's whole life. Never raises for what a peer does."""
        reader, self._to_member = await asyncio.open_connection(sock=self._channel)
        attending = asyncio.create_task(self._or_stop(self._attend()))
        background = [
            attending,
            asyncio.create_task(self._listen_to_member(reader)),
            asyncio.create_task(self._sentinel.watch()),
        ]
        self._copier.start()
        self._trimmer.start()
        try:
            facts = await self._sentinel.end()
            await self._report_end(facts, attending)
            attending.cancel()  # before it misses the coordinator, which hangs up by now
            await self._marks.written(_MARKS_TIMEOUT)
            self._sentinel.leave()
        finally:
            self._trimmer.close()
            background += [self._starting] if self._starting is not None else []
            for task in background:
                task.cancel()
            await asyncio.wait(background)
            await self._files.close()
            await self._client.close()
            self._gpus.close()  # else the loop would wait for a look at an NVML that hangs
            if self._ports is not None:
                self._ports.close()

    @property
    def is_last(self) -> bool:
        """The sentinel is gone, and we have seen to all the others."""
        return self._sentinel.has_swept_all

    # -- the coordinator -------------------------------------------------------------------

    async def _attend(self) -> None:
        """Raises MustStop."""
        # First of all: what an earlier member has left may hold what this one needs (O14).
        await asyncio.to_thread(self._clean_up)
        self._ports = await endpoint.hold_ports(self._config)
        self._marks.ports(self._ports.numbers)
        self._address = await endpoint.own_address(self._config)
        here = self._ports.at(self._address)
        await self._membership.run(self._executor(), here, await self._gpus.offer())

    async def _or_stop(self, work: Coroutine[Any, Any, None]) -> None:
        """What our own work fails of is the member's end, with a reason."""
        try:
            await work
        except MustStop as error:
            self._sentinel.ask_to_stop(0.0, str(error))
        except Exception as error:
            self._sentinel.ask_to_stop(0.0, f"the agent failed: {type(error).__name__}: {error}")
            raise

    def _clean_up(self) -> None:
        mine = Path(self._config.claim)
        try:
            leftovers.reap_all(mine.parent, by=f"[{self._config.marker}]", say=self._tell_of)
        except OSError as error:
            self._complain(f"cannot look for leftovers in {mine.parent}: {error}")

    def _tell_of(self, leftover: str) -> None:
        self._complain(leftover)
        if len(self._leftovers) < _MAX_LEFTOVERS:
            self._leftovers.append(leftover[:MAX_REASON])

    def _executor(self) -> ExecutorInfo:
        return ExecutorInfo(
            hostname=socket.gethostname(),
            boot_id=boot_id(),
            pid=os.getpid(),
            executor_id=self._config.executor_id,
            python_version=platform.python_version(),
            tflease_version=VERSION,
            directory=self._config.directory,
            leftovers=tuple(self._leftovers),
        )

    def _start(self, command: Start) -> None:
        if self._started is not None and command.generation <= self._started.generation:
            return  # said again after a lost session
        self._started, self._generation = command, command.generation
        self._tell(Line(f"told to start generation {command.generation}", routine=True))
        self._starting = asyncio.create_task(self._or_stop(self._start_if_reachable(command)))

    async def _start_if_reachable(self, command: Start) -> None:
        """TensorFlow would hang on a peer that it cannot reach, and name nobody (R9)."""
        to_check = peers.to_check(command.cluster_spec, self._member.role.value, self._member.index)
        unreached = await reach.unreached(to_check)
        if unreached:
            here = f"{socket.gethostname()} ({self._address})"
            ways = peers.ways_that_fail(unreached)
            reason = f"{self._member} on {here} cannot reach {ways}"[:MAX_REASON]
            self._unreachable = reason, f"from {here} to {ways}"
            self._sentinel.ask_to_stop(0.0, reason)
        else:
            self._tell_start(command)

    def _tell_start(self, command: Start) -> None:
        """Raises MustStop."""
        claimed = self._gpus.claimed()
        local_dir = str(self._directory / supervision.LOCAL_DIRECTORY)
        spec, generation = command.cluster_spec, command.generation
        gpus, port = tuple(claimed), self._ports.feed_port if self._ports is not None else 0
        told = start_command(
            self._config,
            generation,
            spec,
            local_dir=local_dir,
            log_dir=self._make_log_dir(),
            gpus=gpus,
            feed_port=port,
        )
        data = framing.encode(told)
        # It is all that the member is ever told, so that nothing is waiting before it.
        sent = 0
        try:
            sent = framing.send_with_descriptors(self._channel, data, tuple(claimed.values()))
        except OSError as error:
            if error.errno not in _MEMBER_IS_GONE:  # of which its sentinel will tell
                raise
        self._gpus.handed_over()
        if self._to_member is not None:
            self._to_member.write(data[sent:])

    def _make_log_dir(self) -> str | None:
        """What the member writes there is streamed to the driver."""
        if not self._config.has_log_dir:
            return None
        path = self._directory / supervision.EVENTS_DIRECTORY
        path.mkdir(mode=0o700, exist_ok=True)
        self._files.start()
        return str(path)

    def _stop(self, command: Stop) -> None:
        self._stop_asked = True
        if command.again:
            self._marks.to_follow()
        if self._starting is not None:
            self._starting.cancel()
        self._sentinel.ask_to_stop(command.grace, command.reason)

    def _dump_stack(self) -> str:
        """In a thread. Raises OSError."""
        claim = claims.read(Path(self._config.claim))
        if claim is None or MEMBER not in claim.processes:
            raise ProcessLookupError("the member's process is not known, or is gone")
        return stacks.dump(self._directory, ProcessIdentity(*claim.processes[MEMBER]))

    # -- the member's process --------------------------------------------------------------

    async def _listen_to_member(self, reader: asyncio.StreamReader) -> None:
        decoder = framing.Decoder()
        try:
            while data := await reader.read(64 * 1024):
                for message in decoder.feed(data):
                    self._on_member(message)
        except (OSError, framing.FramingError) as error:
            self._complain(f"{self._member}: {error}")

    def _on_member(self, message: framing.Message) -> None:
        """A report that makes no sense costs that report, not the training."""
        try:
            report = report_from(message, self._generation)
        except ValueError as error:
            if not self._complained:  # once: it may come with every step
                self._complained = True
                self._complain(f"{self._member}: ignored: {error}")
        else:
            if report is not None:
                self._membership.report(report)

    # -- for people ------------------------------------------------------------------------

    def _complain(self, text: str) -> None:
        self._tell(Line(text))

    def _tell(self, line: Line) -> None:
        self._story.tell(line)
        # Not here: a disk that hangs must not hold up the beats.
        self._loop.call_soon_threadsafe(self._loop.run_in_executor, None, self._story.flush)

    # -- the end ---------------------------------------------------------------------------

    async def _report_end(self, facts: ExitFacts, attending: asyncio.Task[None]) -> None:
        give_up_at = self._loop.time() + _DELIVERY_TIMEOUT
        report = exit_report(
            facts,
            read_outcome(self._directory),
            stop_asked=self._stop_asked,
            log_tail=logs.tail(self._log),
            oom=self._oom.verdict(facts),
        )
        if self._unreachable is not None and facts.reason == self._unreachable[0]:
            report = replace(report, cause=Cause.UNREACHABLE, message=self._unreachable[1])
        # Beside the delivery, which may fail: then this is all that is left to read.
        copied = asyncio.create_task(asyncio.to_thread(self._copier.finish, _LOG_TIMEOUT))
        sent = asyncio.create_task(self._files.finish(_FILES_TIMEOUT))
        report = replace(report, gpus=await self._gpus.end(_FREE_TIMEOUT))
        report = with_lost_gpus(report, self._gpus.lost)
        # Also when the slot is not reserved yet: a process may fail faster than we connect.
        if self._membership.is_reserved or facts.reason == supervision.MEMBER_EXITED:
            await self._deliver(Ended(self._generation, report), attending, give_up_at)
        await copied
        await sent

    async def _deliver(self, end: Ended, attending: asyncio.Task[None], give_up_at: float) -> None:
        self._membership.report(end)
        self._membership.report(Leaving("its member has ended"))
        delivered = asyncio.create_task(self._membership.delivered())
        await asyncio.wait(
            (delivered, attending),  # who is refused for good delivers nothing any more
            timeout=give_up_at - self._loop.time(),
            return_when=asyncio.FIRST_COMPLETED,
        )
        if delivered.done():
            self._tell(Line("reported the end", routine=True))
            self._marks.told(end.report.cause.value)
        else:
            self._complain("could not report the end: the task's row has to tell it")
        delivered.cancel()


def main() -> int:
    """The process."""
    os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"  # nothing here ever forks
    with open(supervision.AGENT_CONFIG_FD, "rb", closefd=False) as file:
        file.seek(0)
        config = AgentConfig.from_json(file.read())
    if asyncio.run(_run(config)):
        take_away(Path(config.claim))  # nothing of ours can hang any more
    return 0


async def _run(config: AgentConfig) -> bool:
    """Whether the claim is ours to take away."""
    agent = Agent(config)  # made inside the loop, which gRPC's channel binds to
    await agent.run()
    return agent.is_last


if __name__ == "__main__":
    sys.exit(main())
