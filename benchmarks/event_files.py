"""The figure ``event-files``: how soon a scalar that a member writes is on the driver, and what the
coordinator between them has to do for that.

A real coordinator process, the agents' and the driver's real code here, TensorFlow in a process
that writes for all members. The time of its writing stands in each scalar's record.
"""

from __future__ import annotations

import asyncio
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from benchmarks.daemon import Daemon
from benchmarks.figure import Figure, Result, Settings, Table
from benchmarks.latency import percentile
from benchmarks.spread import verdict_on
from coordinator.client import RunClient
from coordinator.core.file_values import Held, Piece
from coordinator.core.model import Roles, RunId, RunSpec
from coordinator.file_client import FileClient, Origin
from coordinator.member_client import ReservationClient
from coordinator.spark.event_files import EventFileMirror
from coordinator.spark.mirrored_files import MirroredFiles
from coordinator.testing import FakeGang
from executor_agent.event_files import LOOK_INTERVAL, EventFiles

MEMBERS = 8
RATE = 10.0
"""Scalars a second of each member."""

SECONDS, IDLE_SECONDS = 30.0, 5.0

LATENCY_BOUND = 3.0
"""Seconds. What was promised: a scalar is in TensorBoard that soon, which itself looks once a
second at the files that this figure is about."""

CPU_BOUND = 0.05
"""Cores. What was promised of the coordinator."""

_HEADER = struct.Struct("<QI")
_FOOTER = 4
_WALL_TIME = 0x09
"""The tag of an event's first field, a double: Unix time."""


class TimedFiles(MirroredFiles):
    """A mirror that looks when each record was written, and when it is there as a whole."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.delays: list[float] = []
        self._rests: dict[tuple[Origin, str], bytes] = {}

    def take(self, origin: Origin, piece: Piece) -> Held:
        held = super().take(origin, piece)
        now = time.time()
        rest = self._rests.get((origin, piece.path), b"") + piece.data
        while len(rest) >= _HEADER.size:
            end = _HEADER.size + _HEADER.unpack_from(rest)[0] + _FOOTER
            if len(rest) < end:
                break
            if rest[_HEADER.size] == _WALL_TIME:
                (written_at,) = struct.unpack_from("<d", rest, _HEADER.size + 1)
                self.delays.append(now - written_at)
            rest = rest[end:]
        self._rests[origin, piece.path] = rest
        return held


@dataclass(slots=True)
class Round:
    """One measuring. ``cpu``: of the coordinator, in cores; ``idle_cpu``: before anybody wrote."""

    delays: list[float]
    cpu: float
    idle_cpu: float
    trouble: list[str] = field(default_factory=list)


def measure(settings: Settings) -> Result:
    """A daemon and a run for each repetition."""
    rounds = []
    for number in range(settings.repeats):
        with tempfile.TemporaryDirectory(prefix="tflease-event-files-") as folder:
            rounds.append(asyncio.run(_round(Path(folder), settings.members or MEMBERS)))
        one = rounds[-1]
        settings.say(
            f"  {number + 1}: {len(one.delays)} scalars, half of them within "
            f"{percentile(one.delays, 0.5):.2f} s, the last of them {max(one.delays):.2f} s; "
            f"coordinator {one.cpu:.1%} of a core"
        )
    return result(rounds, settings.members or MEMBERS)


async def _round(folder: Path, members: int) -> Round:
    with Daemon(folder / "daemon", None) as daemon:
        client = RunClient(daemon.address, daemon.token)
        roles = Roles(worker=members)
        created = await asyncio.to_thread(client.create, RunSpec(roles, owner_timeout=600.0))
        files = TimedFiles(folder / "mirror")
        mirror = EventFileMirror(
            FileClient(daemon.address, created.owner_token, created.run_id), files
        )
        async with FakeGang(daemon.address, created.agent_token, created.run_id, roles) as gang:
            mirror.start()
            try:
                return await _write(daemon, gang, created.run_id, files, folder)
            finally:
                await asyncio.to_thread(mirror.close)
                client.close()


async def _write(
    daemon: Daemon, gang: FakeGang, run_id: RunId, files: TimedFiles, folder: Path
) -> Round:
    directories = [folder / f"member-{number}" for number in range(len(gang.members))]
    clients, senders, trouble = [], [], list[str]()
    for member, directory in zip(gang, directories, strict=True):
        directory.mkdir()
        await member.reserve()
        await member.attend()
        agent = ReservationClient(daemon.address, daemon.token)
        who = (run_id, member.member, member.incarnation)
        clients.append(agent)
        senders.append(EventFiles(directory, partial(agent.send_files, *who), trouble.append))
        senders[-1].start()
    idle = await _cpu_during(daemon, IDLE_SECONDS)
    writer = await asyncio.to_thread(_start_writer, directories)
    try:
        cpu = await _cpu_during(daemon, SECONDS)
    finally:
        await asyncio.to_thread(writer.communicate)  # which ends it
    for sender in senders:
        await sender.finish(5.0)
    for agent in clients:
        await agent.close()
    written = sum(path.stat().st_size for each in directories for path in each.rglob("*tfevents*"))
    kept = sum(path.stat().st_size for path in files.directory.rglob("*tfevents*"))
    if kept != written:
        trouble.append(f"{written:,} bytes were written, and {kept:,} are on the driver")
    return Round(list(files.delays), cpu, idle, trouble)


def _start_writer(directories: Sequence[Path]) -> subprocess.Popen[str]:
    """It writes by the time that this returns."""
    module = (sys.executable, "-m", "benchmarks.event_files_writer")
    writer = subprocess.Popen(
        [*module, str(RATE), *map(str, directories)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert writer.stdout is not None
    if writer.stdout.readline() != "ready\n":
        writer.kill()
        writer.communicate()
        raise RuntimeError("the process that writes did not start")
    return writer


async def _cpu_during(daemon: Daemon, seconds: float) -> float:
    """Of the coordinator, in cores."""
    before, began_at = daemon.cpu, time.monotonic()
    await asyncio.sleep(seconds)
    return (daemon.cpu - before) / (time.monotonic() - began_at)


def result(rounds: Sequence[Round], members: int) -> Result:
    """Tables and verdict. Pure."""
    delays = [delay for one in rounds for delay in one.delays]
    cpu = max(one.cpu for one in rounds)
    trouble = [line for one in rounds for line in one.trouble]
    worst = max(delays, default=float("inf"))
    rows = tuple(
        (
            f"{number}",
            f"{len(one.delays):,}",
            f"{percentile(one.delays, 0.5):.2f}",
            f"{percentile(one.delays, 0.99):.2f}",
            f"{max(one.delays, default=float('inf')):.2f}",
            f"{one.cpu:.1%}",
            f"{one.idle_cpu:.1%}",
        )
        for number, one in enumerate(rounds, 1)
    )
    columns = ("round", "scalars", "median", "p99", "longest", "coordinator", "before the writing")
    return Result(
        what=(
            f"{members} members write {RATE:g} scalars a second each with tf.summary's defaults, "
            f"for {SECONDS:g} s: from the writing of a scalar to its bytes in the driver's file."
        ),
        tables=(Table("seconds, and the coordinator's share of a core", columns, rows),),
        notes=(
            "TensorFlow itself keeps up to ten scalars of a writer back, which is a second here; "
            f"an agent looks every {LOOK_INTERVAL:g} s. The way from there is the rest.",
            "Nothing is lost: after the end the driver has as many bytes as were written.",
            "TensorBoard's own interval (1 s as we start it) is not in here.",
            *(f"WENT WRONG: {line}" for line in trouble),
        ),
        verdict=(
            f"the longest {worst:.2f} s of {LATENCY_BOUND:g} s: "
            f"{verdict_on(worst, LATENCY_BOUND)}; the coordinator {cpu:.1%} of a core, of "
            f"{CPU_BOUND:.0%}: {verdict_on(cpu, CPU_BOUND)}"
        ),
        is_sound=not trouble,
    )


FIGURE = Figure(
    "event-files", "a scalar from a member to the driver, and what that costs", measure, repeats=3
)
