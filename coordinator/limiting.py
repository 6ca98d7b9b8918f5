"""What is more than the coordinator takes is refused, or slowed down, before it costs anything.

Refused are calls: whoever makes them can ask for less, or later. Slowed down are sessions: what a
member sends too fast is not read, so that HTTP/2 stops its sender, and nobody else waits for it.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from coordinator.calls import Aspect, Call, scoped
from coordinator.core.census import Census
from coordinator.core.errors import LimitExceeded
from coordinator.limits import KIB, Limits
from coordinator.rates import Bucket

STREAMS = frozenset({
    "RunService/WatchRun", "RunService/OwnRun", "ReservationService/Attend",
    "EventService/WatchEvents", "GpuLeaseService/UseGpus", "FileService/SendFiles",
    "FileService/ReceiveFiles",
})  # fmt: skip
"""Calls that stay open; a test holds it against the contract."""

_SIZES = {
    "RunService/ReportScheduling": "message_bytes",  # grows with the run
    "RunService/ReportTaskEnd": "report_bytes",
}
_MESSAGE_SIZES = {"log_chunk": "message_bytes", "process_exited": "report_bytes"}
"""The limits of what is larger than ``request_bytes``: by call, and by a session's message."""

_COUNTED = {
    "ReservationService/Attend": "sessions",
    "FileService/SendFiles": "file_senders",
    "FileService/ReceiveFiles": "file_receivers",
}
"""The limits of streams that are counted by themselves."""

_MESSAGE_UNIT = 4 * KIB
"""Bytes of a session's message that count as one message."""

_LOG_PATIENCE = 2.0
"""Seconds that a reader of a log waits for its turn."""

_ADVICE = {
    "members": "wait until another run has ended",
    "runs": "wait until another run has ended",
    "runs_per_minute": "ask again in a minute",
    "members_per_run": "ask for fewer",
    "request_bytes": "send less at once",
    "report_bytes": "send less at once",
    "gpu_patience": "ask for a shorter time, and again when it is over",
    "log_bytes_per_second": "ask again in a few seconds",
    "file_bytes": "send it again in a few seconds",
    "commands": "read what the coordinator sends, and attend again",
}
_OTHERWISE = "close some that are not needed, or come again later"

Claim = tuple[str, str]
"""A limit that counts things, and for whom it counts; empty: for all together."""


class Runs(Protocol):
    """What there is already: an engine."""

    def census(self) -> Census:
        """How many runs and members."""

    def knows_request(self, request_id: str) -> bool:
        """Whether a run was created by this request."""


class Limiter(Aspect):
    """Holds all that calls and sessions do against the limits. One for each server, in its event
    loop. ``refused`` counts the refusals, and ``slowed`` the waits, by the limit's name."""

    def __init__(
        self, limits: Limits, runs: Runs, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.limits = limits
        self.refused: Counter[str] = Counter()
        self.slowed: Counter[str] = Counter()
        self._clock = clock
        self._used: Counter[Claim] = Counter()
        self._held: dict[Call, list[Claim]] = {}
        self._new_runs = _NewRuns(self, runs, clock)
        rate = limits.log_bytes_per_second
        self._logs = Bucket(rate, rate, clock())

    # -- calls -----------------------------------------------------------------------------

    def begin(self, call: Call) -> None:
        if call.name in STREAMS:
            claims = [("streams_per_connection", call.peer)]
            if call.name in _COUNTED:
                claims.append((_COUNTED[call.name], ""))
        else:
            claims = [("calls", "")]
            if call.name == "GpuLeaseService/AcquireGpus":
                claims.append(("gpu_waits", ""))
        self._claim(call, claims)

    def parsed(self, call: Call, request: Any) -> None:
        self.check(_SIZES.get(call.name, "request_bytes"), request.ByteSize())
        if call.name == "RunService/WatchRun":  # an owner's session is no luxury
            self._claim(call, [("watchers_per_run", request.run_id)])
        elif call.name == "EventService/WatchEvents" and request.follow:
            self._claim(call, [("followers", "")])
        elif call.name == "LogService/ReadLog":
            member = f"{request.run_id} {request.member.role}:{request.member.index}"
            self._claim(call, [("log_readers_per_member", member)])
        elif call.name == "GpuLeaseService/AcquireGpus":
            self.check("gpu_patience", request.patience.seconds)
        elif call.name == "RunService/CreateRun":
            roles = request.spec.roles
            size = sum(max(0, getattr(roles, name)) for name in roles.DESCRIPTOR.fields_by_name)
            self._new_runs.admit(scoped(request.request_id), size)

    def end(self, call: Call, code: object) -> None:
        for claim in self._held.pop(call, ()):
            self._used[claim] -= 1
            if not self._used[claim]:
                del self._used[claim]

    def in_use(self, name: str) -> int:
        """How much of a limit that counts is used, for everybody together."""
        return sum(count for (limit, _), count in self._used.items() if limit == name)

    def _claim(self, call: Call, claims: Sequence[Claim]) -> None:
        """All of them or none."""
        for claim in claims:
            self.check(claim[0], self._used[claim] + 1)
        self._used.update(claims)
        self._held.setdefault(call, []).extend(claims)

    def check(self, name: str, value: float) -> None:
        """Raises LimitExceeded when that is more than the limit of this name."""
        allowed = getattr(self.limits, name)
        if value > allowed:
            raise self.exceeded(name, value, allowed)

    def exceeded(self, name: str, value: float, allowed: float) -> LimitExceeded:
        """Counts it, and says it."""
        self.refused[name] += 1
        return LimitExceeded(
            f"{name.replace('_', ' ')}: {value:.15g}, and at most {allowed:.15g} are taken; "
            f"{_ADVICE.get(name, _OTHERWISE)}, or have the limit raised (tflease serve --limit "
            f"{name}=...)",
            {"limit": name, "value": f"{value:.15g}", "allowed": f"{allowed:.15g}"},
        )

    # -- sessions --------------------------------------------------------------------------

    def pace(self) -> Pace:
        """For one new session."""
        return Pace(self, self._clock)

    async def log_turn(self, size: int) -> None:
        """Waits until so many bytes of log may be asked for. Raises LimitExceeded when that
        would take too long. What does not come: ``log_spared``."""
        now = self._clock()
        if self._logs.wait_for(size, now) > _LOG_PATIENCE:
            allowed = self.limits.log_bytes_per_second
            raise self.exceeded("log_bytes_per_second", allowed * _LOG_PATIENCE + size, allowed)
        delay = self._logs.take(size, now)
        if delay:
            self.slowed["log_bytes_per_second"] += 1
            await asyncio.sleep(delay)

    def log_spared(self, size: int) -> None:
        """So much of what was asked for did not come."""
        self._logs.give_back(size)


class Pace:
    """How fast one session may be read."""

    __slots__ = ("_clock", "_files", "_limiter", "_logs", "_messages")

    def __init__(self, limiter: Limiter, clock: Callable[[], float]) -> None:
        limits = limiter.limits
        now = clock()
        self._limiter = limiter
        self._clock = clock
        self._messages = Bucket(limits.messages_per_second, limits.message_burst, now)
        rate = limits.session_log_bytes_per_second
        self._logs = Bucket(rate, rate, now)
        rate = limits.session_file_bytes_per_second
        self._files = Bucket(rate, rate, now)

    def check(self, message: Any) -> None:
        """Raises LimitExceeded for a message that is too large for what it is."""
        kind = message.WhichOneof("message")
        self._limiter.check(_MESSAGE_SIZES.get(kind, "request_bytes"), message.ByteSize())

    async def after(self, message: Any) -> None:
        """Returns when the next message may be read."""
        now = self._clock()
        size = message.ByteSize()
        if message.HasField("log_chunk"):
            await self._wait("session_log_bytes_per_second", self._logs.take(size, now))
            size = 0
        delay = self._messages.take(1 + size // _MESSAGE_UNIT, now)
        await self._wait("messages_per_second", delay)

    async def after_piece(self, size: int) -> None:
        """The same for so many bytes of a file."""
        now = self._clock()
        await self._wait("session_file_bytes_per_second", self._files.take(size, now))
        await self._wait("messages_per_second", self._messages.take(1, now))

    async def _wait(self, name: str, delay: float) -> None:
        if delay > 0:
            self._limiter.slowed[name] += 1
            await asyncio.sleep(delay)


class _NewRuns:
    """Whether there is room for one more."""

    def __init__(self, limiter: Limiter, runs: Runs, clock: Callable[[], float]) -> None:
        per_minute = limiter.limits.runs_per_minute
        self._limiter = limiter
        self._runs = runs
        self._clock = clock
        self._rate = Bucket(per_minute / 60.0, per_minute, clock())

    def admit(self, request_id: str, members: int) -> None:
        """Raises LimitExceeded. One that was admitted before is asked for again, and is no more
        than it was."""
        if request_id and self._runs.knows_request(request_id):
            return
        limits = self._limiter.limits
        self._limiter.check("members_per_run", members)
        now = self._clock()
        if self._rate.wait_for(1, now) > 0:
            allowed = limits.runs_per_minute
            raise self._limiter.exceeded("runs_per_minute", allowed + 1, allowed)
        self._rate.take(1, now)
        there = self._runs.census()
        alive = sum(count for phase, count in there.runs.items() if not phase.is_terminal)
        self._limiter.check("runs", alive + 1)
        self._limiter.check("members", sum(there.members.values()) + members)
