"""What others are shown of a run: everything of a gang of the usual size, and of a large one as
much as fits into a message.

A large gang that fails does so all at once, with thousands of tracebacks and logs. Its driver needs
the first of them, and a picture that does not fit is none at all. What is left out of it can still
be had: the end of each log by ``LogService.ReadLog``, all of it on the executor.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from coordinator import wire
from coordinator.core.errors import UnknownRun
from coordinator.core.model import ExecutorInfo, ExitReport, Failure, MemberView, RunId, RunView
from coordinator.limits import MIB
from coordinator.wire import MemberMessage, RunMessage

if TYPE_CHECKING:
    from coordinator.engine import Engine

MOST_REPORTS = 8 * MIB
"""Bytes of reports in one picture that are told in full; those after them in short."""

MOST_MEMBERS = 24 * MIB
"""Bytes of members in one picture, after which hardly more than their phases is told."""

MOST_LISTED = 48 * MIB
"""Bytes of a list, after which runs are told without their members."""

_MOST_SENTENCES = MIB
"""Characters of sentences that are told in full; those after them are cut."""

_MOST_OTHERS = 20
"""Other failures that a list tells of a run."""

_SHORT = 500
"""Characters of a text of a report in short."""

_SHORTEST = 100
"""Characters of a text where there are thousands of them."""

_SLICE = 100
"""Members that are made into messages before others have their turn in the event loop."""


class RunPictures:
    """The messages of one coordinator's runs."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._ended: dict[RunId, bytes] = {}  # what a list tells of it

    async def of(self, run_id: RunId) -> RunMessage:
        """The run as it is now. Raises UnknownRun."""
        return await self.picture(self._engine.view(run_id))

    async def picture(self, run: RunView) -> RunMessage:
        """The run as it was then."""
        short = replace(run, failure=_clipped(run.failure), diagnosis=_sentences(run.diagnosis))
        room = _Room(MOST_REPORTS, MOST_MEMBERS)
        return await self._message(short, room)

    async def listing(self) -> list[RunMessage]:
        """All runs, newest last, without logs and tracebacks. Of a run that has ended the members
        are little more than counted: it does not change any more, and is not looked at again."""
        run_ids = self._engine.run_ids()
        self._ended = {each: self._ended[each] for each in run_ids if each in self._ended}
        room = _Room(0, MOST_MEMBERS)
        messages: dict[RunId, RunMessage] = {}
        for run_id in reversed(run_ids):
            with suppress(UnknownRun):  # forgotten meanwhile
                messages[run_id] = await self._listed(run_id, room)
            await asyncio.sleep(0)
        size = 0
        for run_id in sorted(messages, key=self._ended.__contains__):  # those that are alive first
            size += messages[run_id].ByteSize()
            if size > MOST_LISTED:
                messages[run_id].ClearField("members")
        return [messages[run_id] for run_id in run_ids if run_id in messages]

    async def _listed(self, run_id: RunId, room: _Room) -> RunMessage:
        told = self._ended.get(run_id)
        if told is not None:
            return RunMessage.FromString(told)
        run = self._engine.view(run_id)
        if not run.phase.is_terminal:
            return await self._message(replace(run, failure=_brief(run.failure)), room)
        members = tuple(map(_counted, run.members))
        brief = replace(run, members=members, failure=_brief(run.failure))
        message = await self._message(brief, _Room(0, MOST_MEMBERS))
        self._ended[run_id] = message.SerializeToString()
        return message

    async def _message(self, run: RunView, room: _Room) -> RunMessage:
        offset = self._engine.wall_offset
        message = wire.run_to_pb(replace(run, members=()), offset)
        members: dict[int, MemberMessage] = {}
        for turn, (_, number) in enumerate(sorted(_ranks(run))):
            if turn % _SLICE == _SLICE - 1:
                await asyncio.sleep(0)
            members[number] = room.member_to_pb(run.members[number], offset)
        message.members.extend(members[number] for number in range(len(members)))
        return message


def _ranks(run: RunView) -> Iterable[tuple[int, int]]:
    """Who is told in full before whom, by number: the first cause, then others that failed."""
    first = run.failure.member if run.failure else None
    for number, member in enumerate(run.members):
        has_failed = member.exit is not None and member.exit.cause.is_failure
        yield (0 if member.id == first else 1 if has_failed else 2), number


class _Room:
    """What is left of a message, in bytes."""

    def __init__(self, reports: int, members: int) -> None:
        self._reports = reports
        self._members = members

    def member_to_pb(self, member: MemberView, offset: float) -> MemberMessage:
        """As much of it as there is room for."""
        if self._members <= 0:
            member = _bare(member)
        elif self._reports <= 0 and member.exit is not None:
            member = replace(member, exit=_in_short(member.exit))
        message = wire.member_to_pb(member, offset)
        self._members -= message.ByteSize()
        if message.HasField("exit"):
            self._reports -= message.exit.ByteSize()
        return message


def _in_short(report: ExitReport) -> ExitReport:
    return replace(
        report,
        log_tail="",
        traceback="",
        message=report.message[:_SHORT],
        reason=report.reason[:_SHORT],
    )


def _bare(member: MemberView) -> MemberView:
    """For one whose neighbours have filled the message: nothing in it can be long."""
    where, report = member.executor, member.exit
    return MemberView(
        id=member.id,
        phase=member.phase,
        phase_at=member.phase_at,
        step=member.step,
        executor=where
        and ExecutorInfo(
            hostname=where.hostname[:_SHORTEST],
            boot_id=where.boot_id[:_SHORTEST],
            pid=where.pid,
            executor_id=where.executor_id[:_SHORTEST],
            directory=where.directory[: 2 * _SHORTEST],
        ),
        exit=report
        and ExitReport(
            cause=report.cause,
            exit_code=report.exit_code,
            signal=report.signal,
            killed_by_us=report.killed_by_us,
            exception_type=report.exception_type[:_SHORTEST],
            message=report.message[:_SHORTEST],
            proof=report.proof,
        ),
    )


def _counted(member: MemberView) -> MemberView:
    """What is asked of a run that has ended, as long as nobody asks for this one."""
    return MemberView(member.id, member.phase, member.phase_at, gpus=member.gpus)


def _clipped(failure: Failure | None) -> Failure | None:
    return failure and replace(failure, others=_sentences(failure.others))


def _sentences(texts: Iterable[str]) -> tuple[str, ...]:
    """All of them, since their number tells something; but not all of each."""
    left, told = _MOST_SENTENCES, list[str]()
    for text in texts:
        told.append(text if left > 0 else text[:_SHORTEST])
        left -= len(text)
    return tuple(told)


def _brief(failure: Failure | None) -> Failure | None:
    if failure is None:
        return None
    others = tuple(text[:_SHORT] for text in failure.others[:_MOST_OTHERS])
    more = len(failure.others) - len(others)
    return replace(
        failure,
        exit=failure.exit and _in_short(failure.exit),
        others=(*others, f"and {more} more") if more else others,
    )
