"""The GPUs of this host: which there are, which are free, and claiming them.

Owns: a look at a GPU, made of its claim and of NVML's answer, and what follows from both. Every
method may block, for a bounded time, and belongs in a thread; none of them raises because of a GPU,
its driver or its files: that is said in a `GpuSight` or a `GpuOffer`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from coordinator.core.gpu import GpuOffer, GpuSight, LeaseToken
from executor_agent.core.gpu_choice import MENDING, Device, Surroundings, choose, in_use
from executor_agent.gpu_answers import GpuAnswers
from executor_agent.gpu_claims import PATIENCE, VARIABLE, ClaimRefused, HostClaims, Lock, Remembered
from executor_agent.nvml import Nvml, NvmlError, open_nvml
from executor_agent.processes import identity_of, is_running, name_of

FIRST_ANSWER = 20.0
"""Seconds that NVML gets to wake the driver: about two for each GPU that nobody uses."""

ANSWER = 1.0
"""Seconds for every other answer, which takes milliseconds."""

_INTERVAL = 0.02


class HostGpus:
    """``nvml``: or why there is none. ``assigned``: what Spark has given to the task, None where
    it knows of no GPUs. ``visible``: CUDA_VISIBLE_DEVICES; ``order`` and ``container`` as in
    `Surroundings`."""

    def __init__(
        self,
        nvml: Nvml | str,
        claims: HostClaims,
        *,
        assigned: Sequence[str] | None,
        visible: str | None,
        order: str | None = None,
        container: str | None = None,
    ) -> None:
        self._answers = GpuAnswers((_Missing(nvml) if isinstance(nvml, str) else nvml).devices)
        self._claims = claims
        self._assigned = None if assigned is None else tuple(assigned)
        self._surroundings = Surroundings(visible, order, container)
        self._known: dict[str, Device] = {}  # as last seen

    @classmethod
    def here(
        cls, assigned: Sequence[str] | None, environ: Mapping[str, str] = os.environ
    ) -> HostGpus:
        """This machine's. Asks nobody yet."""
        directory = environ.get(VARIABLE)
        return cls(
            _Later(environ),
            HostClaims(Path(directory) if directory else None),
            assigned=assigned,
            visible=environ.get("CUDA_VISIBLE_DEVICES"),
            order=environ.get("CUDA_DEVICE_ORDER"),
            container=environ.get("NVIDIA_VISIBLE_DEVICES"),
        )

    def close(self) -> None:
        """Whoever waits for NVML is told that there is no answer. Any thread may."""
        self._answers.close()

    # -- looking ---------------------------------------------------------------------------

    def offer(self) -> GpuOffer:
        """What a member can have here, and why not more."""
        seen = self._ask_or_problem(ANSWER if self._known else FIRST_ANSWER)
        if isinstance(seen, str) and not self._known:
            return GpuOffer((), self._assigned is not None, seen)
        devices = self._known if isinstance(seen, str) else seen
        choice = choose(list(devices.values()), self._assigned, self._surroundings)
        sights = self._look(choice.uuids, ANSWER)
        return GpuOffer(sights, choice.is_assigned, choice.problem)

    def look(self, uuids: Iterable[str]) -> tuple[GpuSight, ...]:
        """These, now."""
        return self._look(tuple(uuids), ANSWER)

    def await_free(self, uuids: Iterable[str], timeout: float) -> tuple[GpuSight, ...]:
        """Until all of them are free, by NVML's word as well, or the time is over. Where NVML has
        answered once, its silence later is no better news."""
        names, give_up_at = tuple(uuids), time.monotonic() + timeout
        told: dict[str, GpuSight] = {}
        while True:
            left = max(0.0, give_up_at - time.monotonic())
            sights = self._look(names, min(ANSWER, left))
            told |= {sight.uuid: sight for sight in sights if not _is_unanswered(sight)}
            is_proven = all(sight.is_free and not _is_unanswered(sight) for sight in sights)
            if is_proven or time.monotonic() + _INTERVAL > give_up_at:
                return tuple(told.get(sight.uuid, sight) for sight in sights)
            time.sleep(_INTERVAL)

    def lost(self, uuids: Iterable[str]) -> tuple[str, ...]:
        """Those that no process can use any more, a phrase each. By NVML's own word alone: that it
        does not answer, or cannot say, proves nothing."""
        devices = self._ask_or_problem(ANSWER)
        if isinstance(devices, str):
            return ()
        found = []
        for uuid in uuids:
            device = devices.get(uuid)
            if device is not None and device.is_lost:
                found.append(f"{self._sight(uuid, is_free=False)}: NVML says {device.error!r}")
            elif device is None and uuid in self._known:
                found.append(f"{self._sight(uuid, is_free=False)}: NVML shows it no more")
        return tuple(found)

    def _look(self, uuids: tuple[str, ...], timeout: float) -> tuple[GpuSight, ...]:
        # Claims first: what NVML says is to be of a time when nobody had them any more.
        give_up_at = time.monotonic() + min(PATIENCE, timeout)
        refused = {uuid: error for uuid in uuids if (error := self._refused(uuid, give_up_at))}
        devices = self._ask_or_problem(timeout) if uuids else {}
        return tuple(
            self._refusal(uuid, refused[uuid])
            if uuid in refused
            else self._judge(uuid, devices, self._claims.last(uuid))
            for uuid in uuids
        )

    def _refused(self, uuid: str, give_up_at: float) -> ClaimRefused | None:
        try:
            self._claims.check_free(uuid, give_up_at)
        except ClaimRefused as error:
            return error
        return None

    # -- claiming --------------------------------------------------------------------------

    def inspect(
        self, uuids: Iterable[str], coordinator_id: str, number: int
    ) -> tuple[GpuSight, ...]:
        """These, now; of those that are free no token of this coordinator up to ``number`` can be
        claimed any more, so that the answer proves something."""
        names = tuple(uuids)
        with ExitStack() as stack:
            # Without patience: who looks again soon must not keep free ones from others meanwhile.
            locks, refused = self._lock(names, stack, patience=0.0)
            devices = self._ask_or_problem(ANSWER) if locks else {}
            sights = []
            for uuid in names:
                sight = refused.get(uuid) or self._judge(uuid, devices, locks[uuid].last)
                if sight.is_free:
                    sight = self._fence(locks[uuid], sight, coordinator_id, number)
                sights.append(sight)
        return tuple(sights)

    def _fence(self, lock: Lock, sight: GpuSight, coordinator_id: str, number: int) -> GpuSight:
        try:
            lock.fence(coordinator_id, number)
        except ClaimRefused as error:
            return replace(sight, is_free=False, holder=error.holder)
        return sight

    def claim(
        self, grants: Mapping[str, LeaseToken], who: str
    ) -> tuple[dict[str, int], tuple[GpuSight, ...]]:
        """All of them or none: the locked descriptors by UUID, and what was refused. ``who``: for
        whoever finds them claimed. Whoever gets the descriptors closes them."""
        with ExitStack() as stack:
            locks, refused = self._lock(tuple(grants), stack, patience=PATIENCE)
            for uuid, lock in locks.items():
                try:
                    lock.check(grants[uuid])
                except ClaimRefused as error:
                    refused[uuid] = self._refusal(uuid, error)
            if not refused and grants:
                refused = self._record(locks, grants, who)
            if refused:
                return {}, tuple(refused.values())
            return {uuid: lock.keep() for uuid, lock in locks.items()}, ()

    def _record(
        self, locks: Mapping[str, Lock], grants: Mapping[str, LeaseToken], who: str
    ) -> dict[str, GpuSight]:
        """Writes down the claims of GPUs that are free; else says which are not."""
        devices = self._ask_or_problem(ANSWER)
        sights = {uuid: self._judge(uuid, devices, lock.last) for uuid, lock in locks.items()}
        refused = {uuid: sight for uuid, sight in sights.items() if not sight.is_free}
        if refused:
            return refused
        for uuid, lock in locks.items():
            try:
                lock.record(grants[uuid], who, _baseline(uuid, devices, lock.last))
            except ClaimRefused as error:
                refused[uuid] = self._refusal(uuid, error)
        return refused

    def _lock(
        self, uuids: tuple[str, ...], stack: ExitStack, patience: float
    ) -> tuple[dict[str, Lock], dict[str, GpuSight]]:
        """Those that can be had, until the stack unwinds, and the refusals. ``patience``: seconds,
        for all together."""
        give_up_at = time.monotonic() + patience
        locks: dict[str, Lock] = {}
        refused: dict[str, GpuSight] = {}
        for uuid in dict.fromkeys(uuids):
            try:
                locks[uuid] = stack.enter_context(self._claims.lock(uuid, give_up_at))
            except ClaimRefused as error:
                refused[uuid] = self._refusal(uuid, error)
        return locks, refused

    # -- one GPU ---------------------------------------------------------------------------

    def _judge(
        self, uuid: str, devices: Mapping[str, Device] | str, last: Remembered | None
    ) -> GpuSight:
        """A GPU whose claim can be had."""
        if isinstance(devices, str):
            return self._unanswered(uuid, devices)
        device = devices.get(uuid)
        if device is None:
            return self._sight(uuid, is_free=False, holder="nobody, but NVML does not show it here")
        if device.error and not device.is_lost:  # while it answers about the others
            holder = f"nobody, but NVML cannot say how it is: {device.error}; {MENDING}"
            return self._sight(uuid, is_free=False, holder=holder)
        living = _living(device)
        holder = in_use(device, living, last.baseline if last else None)
        if not holder:
            return self._sight(uuid, is_free=True)
        if living and device.pids_are_ours:
            holder += f" without a claim ({', '.join(map(name_of, living))})"
        elif last is not None and last.baseline is not None and not device.is_lost:
            path = self._claims.path(uuid)
            holder += f"; if they are to stay, remove {path} while nobody uses the GPU"
        return self._sight(uuid, is_free=False, holder=holder, pids=living)

    def _unanswered(self, uuid: str, problem: str) -> GpuSight:
        holder = f"nobody, as its claim says; NVML could not be asked: {problem}"
        return self._sight(uuid, is_free=True, holder=holder)

    def _refusal(self, uuid: str, refused: ClaimRefused) -> GpuSight:
        return self._sight(uuid, is_free=False, holder=refused.holder, pids=refused.pids)

    def _sight(
        self, uuid: str, *, is_free: bool, holder: str = "", pids: tuple[int, ...] = ()
    ) -> GpuSight:
        device = self._known.get(uuid) or Device(uuid, -1, "", 0, 0)
        return GpuSight(
            uuid,
            is_free,
            device.index,
            device.name,
            device.memory_total,
            device.memory_used,
            holder,
            pids,
        )

    # -- NVML ------------------------------------------------------------------------------

    def _ask(self, timeout: float) -> list[Device]:
        devices = self._answers.get(timeout)
        self._known = self._known | {device.uuid: device for device in devices if not device.error}
        return devices

    def _ask_or_problem(self, timeout: float) -> dict[str, Device] | str:
        try:
            return {device.uuid: device for device in self._ask(timeout)}
        except NvmlError as error:
            return str(error)


def _living(device: Device) -> tuple[int, ...]:
    """Of the processes that NVML names, those that are not over; in a container all, because we
    cannot tell."""
    if not device.pids_are_ours:
        return device.pids
    return tuple(filter(_lives, device.pids))


def _lives(pid: int) -> bool:
    who = identity_of(pid)
    if who is not None:
        return is_running(who)
    try:
        os.kill(pid, 0)  # /proc may hide other users' processes
    except PermissionError:
        return True
    except OSError:
        return False
    return True


def _is_unanswered(sight: GpuSight) -> bool:
    """Whether it is free by its claim's word alone."""
    return sight.is_free and bool(sight.holder)


def _baseline(
    uuid: str, devices: Mapping[str, Device] | str, last: Remembered | None
) -> int | None:
    """Memory in use before this claim. Never more than before the last one: what each use leaves
    behind would add up otherwise."""
    before = last.baseline if last else None
    device = None if isinstance(devices, str) else devices.get(uuid)
    if device is None or device.error:
        return before
    return device.memory_used if before is None else min(before, device.memory_used)


class _Missing:
    """No NVML, and why."""

    def __init__(self, problem: str) -> None:
        self._problem = problem

    def devices(self) -> list[Device]:
        raise NvmlError(self._problem)


class _Later:
    """NVML opened by the thread that asks: opening it may hang as well."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = dict(environ)
        self._nvml: Nvml | None = None

    def devices(self) -> list[Device]:
        if self._nvml is None:
            self._nvml = open_nvml(self._environ)
        return self._nvml.devices()
