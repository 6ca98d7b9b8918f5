"""The agent's conduct with GPUs: offer, look, claim, hand over, see them free.

Owns the claims between their grant and the start of the member's process, and the question whether
they are free at its end. Whatever asks NVML or takes a lock is done in a thread, one call at a
time. Must not know gRPC or the sentinel.

An agent whose member asked for no GPUs makes none of these calls and never opens NVML.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Protocol

from coordinator.core.gpu import NO_GPUS, GpuOffer, GpuSight, LeaseToken
from coordinator.member_client import ClaimGpus, InspectGpus
from executor_agent.attendance import MustStop
from executor_agent.core.agent_config import AgentConfig
from executor_agent.member_reports import Claimed, Inspected

_LOOK_INTERVAL = 0.5
_TOLERANCE = 0.3  # seconds that a look may take beyond its time
_SAME_NEWS_INTERVAL = 5.0
"""Seconds until the same GPUs in the same hands are reported once more, because the words for it
have changed (how much memory, say)."""


class Host(Protocol):
    """What there is on this host, as ``gpus.HostGpus`` has it. Calls block, but not for ever."""

    def offer(self) -> GpuOffer: ...

    def inspect(
        self, uuids: Sequence[str], coordinator_id: str, number: int
    ) -> tuple[GpuSight, ...]: ...

    def claim(
        self, grants: Mapping[str, LeaseToken], who: str
    ) -> tuple[dict[str, int], tuple[GpuSight, ...]]: ...

    def await_free(self, uuids: Sequence[str], timeout: float) -> tuple[GpuSight, ...]: ...

    def lost(self, uuids: Sequence[str]) -> tuple[str, ...]: ...

    def close(self) -> None: ...


class AgentGpus:
    """One member's GPUs. Used inside the agent's event loop alone."""

    def __init__(
        self,
        config: AgentConfig,
        *,
        report: Callable[[Inspected | Claimed], None],
        complain: Callable[[str], None],
        open_host: Callable[[], Host] | None = None,
    ) -> None:
        """``report`` and ``complain`` must not block. ``open_host``: may, and is called in a
        thread, the first time that it is needed."""
        self._count = config.gpus
        self._who = config.marker
        self._report = report
        self._complain = complain
        self._open_host = open_host or _opener(config)
        self._host: Host | None = None
        self._command: InspectGpus | ClaimGpus | None = None  # the latest
        self._commanded = asyncio.Event()
        self._working: asyncio.Task[None] | None = None
        self._held: dict[str, LeaseToken] = {}
        self._descriptors: dict[str, int] = {}  # of what is held, until they are handed over
        self._is_handed_over = False
        self._is_over = False
        self._has_complained = False
        self.lost: tuple[str, ...] = ()
        """Of the member's GPUs those that nobody can use any more, a phrase each; once it has
        ended."""

    async def offer(self) -> GpuOffer:
        """What a member that asked for GPUs can have here."""
        if not self._count:
            return NO_GPUS
        try:
            return await asyncio.to_thread(lambda: self._on_host().offer())
        except Exception as error:
            return GpuOffer(problem=f"the GPUs of this host cannot be looked at: {_words(error)}")

    def _on_host(self) -> Host:
        """In the thread."""
        if self._host is None:
            self._host = self._open_host()
        return self._host

    def tokens(self) -> tuple[LeaseToken, ...]:
        """Of what is held, from the claim until it is let go of."""
        return tuple(self._held.values())

    # -- what the coordinator says ---------------------------------------------------------

    def obey(self, command: InspectGpus | ClaimGpus) -> None:
        """The latest command counts, and ends what an earlier one has begun. Said again after a
        lost session, it is answered again."""
        if self._is_over:
            return
        if self._is_handed_over:
            self._answer_again(command)
            return
        self._command = command
        self._commanded.set()
        if self._working is None:
            self._working = asyncio.create_task(self._work())

    def _answer_again(self, command: InspectGpus | ClaimGpus) -> None:
        if isinstance(command, ClaimGpus) and dict(command.grants) == self._held:
            self._report(Claimed(command.number))
        else:
            self._complain(f"ignored, because its GPUs are in use by now: {command}")

    async def _work(self) -> None:
        while not self._is_over:
            self._commanded.clear()
            command = self._command
            try:
                match command:
                    case ClaimGpus():
                        await self._claim(command)
                    case InspectGpus():
                        await self._inspect(command)
            except Exception as error:  # a host that is out of descriptors, say
                if not self._has_complained:
                    self._has_complained = True
                    self._complain(f"cannot see to the GPUs: {_words(error)}; tries again")
                await self._another_command(_LOOK_INTERVAL)
            else:
                await self._commanded.wait()

    async def _another_command(self, timeout: float) -> bool:
        """Whether one came within so many seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout * random.uniform(0.8, 1.2)):
                await self._commanded.wait()
        return self._commanded.is_set()

    async def _claim(self, command: ClaimGpus) -> None:
        """Whatever else is held goes first, so that a claim of our own is never in the way."""
        grants = dict(command.grants)
        if grants and grants == self._held:
            self._report(Claimed(command.number))
            return
        self._let_go()
        if not grants:
            return  # nobody waits for an answer
        try:
            taken, refused = await asyncio.to_thread(
                lambda: self._on_host().claim(grants, self._who)
            )
        except OSError as error:
            why = f"nobody known; the claim cannot be made: {_words(error)}"
            taken, refused = {}, tuple(GpuSight(uuid, False, holder=why) for uuid in grants)
        if self._is_over or self._command != command:  # said again, it is equal
            _close(taken)  # meanwhile it was taken back
            return
        if not refused:
            self._held, self._descriptors = grants, taken
        self._report(Claimed(command.number, refused))

    async def _inspect(self, command: InspectGpus) -> None:
        """Until all are free, or something else is to be done."""
        self._let_go()  # to be looked for is what this gang does not have
        told: tuple[GpuSight, ...] = ()
        told_at = 0.0
        while not self._commanded.is_set() and not self._is_over:
            sights = await asyncio.to_thread(
                lambda: self._on_host().inspect(
                    command.uuids, command.coordinator_id, command.number
                )
            )
            if self._commanded.is_set() or self._is_over:
                return
            is_old = time.monotonic() - told_at >= _SAME_NEWS_INTERVAL
            if _news(sights) != _news(told) or (is_old and sights != told):
                told, told_at = sights, time.monotonic()
                self._report(Inspected(command.number, sights))
            if all(sight.is_free for sight in sights):
                return
            await self._another_command(_LOOK_INTERVAL)

    def _let_go(self) -> None:
        _close(self._descriptors)
        self._held, self._descriptors = {}, {}

    # -- the member's process --------------------------------------------------------------

    def claimed(self) -> dict[str, int]:
        """The locked descriptors by UUID, for the member's process: it is about to start. Raises
        MustStop: asked for n, it gets n or does not start (G4)."""
        if len(self._held) < self._count:
            raise MustStop(
                f"told to start without the {self._count} GPUs of its role: "
                f"{len(self._held)} are claimed here"
            )
        if len(self._held) > 1 and any(uuid.startswith("MIG-") for uuid in self._held):
            raise MustStop(
                "CUDA shows a process no more than one MIG device, and this member has "
                f"{', '.join(self._held)}: ask for 1 GPU for each member, or switch MIG off"
            )
        return dict(self._descriptors)

    def handed_over(self) -> None:
        """The member's process has them now. Ours are closed: a claim is to last exactly as long as
        somebody is left who may use the GPU."""
        self._is_handed_over = True
        _close(self._descriptors)
        self._descriptors = {}

    async def end(self, timeout: float) -> tuple[GpuSight, ...]:
        """Nothing of the member is left, as far as anybody knows: what is seen of its GPUs within
        that time. From here on none of them is renewed."""
        give_up_at = time.monotonic() + timeout
        self._is_over = True
        self._commanded.set()
        if self._working is not None:
            await asyncio.wait((self._working,), timeout=timeout)  # a look that hangs
        held = tuple(self._held)
        self._let_go()
        if not held:
            return ()
        left = max(0.0, give_up_at - time.monotonic())
        looking = asyncio.create_task(asyncio.to_thread(self._last_look, held, left))
        await asyncio.wait((looking,), timeout=left + _TOLERANCE)
        if not looking.done():
            looking.cancel()
            return _unseen(held, f"nobody known; no answer within {timeout:g} s")
        if (error := looking.exception()) is not None:
            return _unseen(held, f"nobody known; it cannot be looked at: {_words(error)}")
        sights, self.lost = looking.result()
        return sights

    def _last_look(
        self, uuids: tuple[str, ...], timeout: float
    ) -> tuple[tuple[GpuSight, ...], tuple[str, ...]]:
        """In the thread."""
        host = self._on_host()
        sights = host.await_free(uuids, timeout)
        return sights, () if all(sight.is_free for sight in sights) else host.lost(uuids)

    def close(self) -> None:
        """Nothing is looked at any more: a look that still waits ends."""
        if self._host is not None:
            self._host.close()


def _opener(config: AgentConfig) -> Callable[[], Host]:
    def open_host() -> Host:
        from executor_agent.gpus import HostGpus  # late: most members have no GPUs

        return HostGpus.here(config.gpu_addresses, os.environ)

    return open_host


def _news(sights: Sequence[GpuSight]) -> list[tuple[str, bool, tuple[int, ...]]]:
    """What is worth a word at once."""
    return [(sight.uuid, sight.is_free, sight.pids) for sight in sights]


def _unseen(uuids: Sequence[str], why: str) -> tuple[GpuSight, ...]:
    return tuple(GpuSight(uuid, False, holder=why) for uuid in uuids)


def _words(error: BaseException) -> str:
    return str(error) or type(error).__name__


def _close(descriptors: Mapping[str, int]) -> None:
    for descriptor in descriptors.values():
        with suppress(OSError):
            os.close(descriptor)
