"""A coordinator under faults for twenty minutes, or as long as is wished: does its memory stay as
it is, and does what must always hold, hold?

Members with a GPU each attend all the while, by way of a relay that delays and cuts; runs come and
go, and so do other users of GPUs. Every few seconds something goes wrong: connections are cut, or
delayed, the coordinator is stopped for a while (SIGSTOP), or killed and started again. Kills come
near the end only: a new process has a new memory.

Before all that runs and leases come and go as fast as they can, until what a coordinator remembers
of those that are over is at its bound, and all connections are cut as often as they will be: memory
that fills up to there is no leak.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.client_process import ClientProcess, ClientTrouble
from benchmarks.cores import cores
from benchmarks.daemon import Daemon, has_journal
from benchmarks.figure import Figure, Result, Settings
from benchmarks.soak_churn import Churn
from benchmarks.soak_faults import Faults
from benchmarks.soak_result import FILLING_CUTS, Measured, result
from coordinator.client import RunClient
from coordinator.core.errors import TfleaseError
from coordinator.core.gpu import LeaseState
from coordinator.core.model import MemberPhase, Roles, RunPhase, RunSpec
from coordinator.gpu_client import GpuClient

MINUTES = 20.0
MEMBERS = 200
FAULT_INTERVAL = 15.0
"""Seconds between two faults."""

CYCLE = 0.25
"""Seconds from one run to the next at least: below what a daemon takes in a minute by default."""

KILLS_FROM = 0.8
"""Share of the soak after which the coordinator may be killed."""

SEED = 20_261_123
_TIMEOUT = 120.0
_BACK_TIMEOUT = 60.0  # seconds for all members to attend again


def measure(settings: Settings) -> Result:
    """One soak."""
    seconds = (settings.minutes or MINUTES) * 60
    measured = Measured(seconds, settings.members or MEMBERS, is_durable=has_journal())
    with tempfile.TemporaryDirectory(prefix="tflease-soak-") as name, ExitStack() as stack:
        core, others = cores()
        daemon = Daemon(Path(name), core)
        daemon.start()
        stack.callback(daemon.kill)
        try:
            _Soak(settings, daemon, others, measured, stack).run(seconds)
        except (ClientTrouble, RuntimeError, TfleaseError) as trouble:
            measured.trouble.append(f"{type(trouble).__name__}: {trouble}")
        measured.journal = sum(file.stat().st_size for file in Path(name).glob("journal*"))
    return result(measured)


class _Soak:
    """One daemon, its members, and what happens to them."""

    def __init__(
        self,
        settings: Settings,
        daemon: Daemon,
        others: list[int],
        measured: Measured,
        stack: ExitStack,
    ) -> None:
        self._settings = settings
        self._daemon = daemon
        self._measured = measured
        self._owner = RunClient(daemon.address, daemon.token)
        stack.callback(self._owner.close)
        self._book = GpuClient(daemon.address, daemon.token)
        stack.callback(self._book.close)
        where = {"host": daemon.host, "port": daemon.port}
        relay = stack.enter_context(ClientProcess("benchmarks.relay", where, others))
        port = relay.hear(_TIMEOUT)["port"]
        members = measured.members
        spec = RunSpec(Roles(worker=members), gpus=Roles(worker=1))
        self._run_id = self._owner.create(spec).run_id
        slots = [(self._run_id, f"worker:{index}") for index in range(members)]
        crew = {"address": f"{daemon.host}:{port}", "token": daemon.token, "members": slots}
        self._crew = stack.enter_context(ClientProcess("benchmarks.reattach", crew, others))
        self._crew.hear(_TIMEOUT)
        self._faults = Faults(daemon, relay, random.Random(SEED))
        self._churn = Churn(daemon, self._owner, self._book)
        stack.callback(self._churn.close)

    def run(self, seconds: float) -> None:
        """Raises ClientTrouble, TfleaseError when something does not go on at all."""
        began_at = time.monotonic()
        self._churn.fill()
        for _ in range(FILLING_CUTS):
            cut_at = time.monotonic()
            self._faults.cut()
            self._all_attend_since(cut_at)
        self._check()
        self._measured.filling = time.monotonic() - began_at
        resident = self._daemon.resident / 2**20
        self._settings.say(f"filled in {self._measured.filling:.0f} s; {resident:.1f} MiB")
        began_at = time.monotonic()
        fault_at = began_at + FAULT_INTERVAL
        while (now := time.monotonic()) < began_at + seconds:
            if now >= fault_at:
                is_late = now - began_at > seconds * KILLS_FROM
                self._fault(may_kill=self._measured.is_durable and is_late)
                fault_at = time.monotonic() + FAULT_INTERVAL
            self._churn.cycle()
            time.sleep(max(0.0, now + CYCLE - time.monotonic()))
            self._measured.cycles += 1
            at = time.monotonic() - began_at
            self._measured.memory.append((self._daemon.starts, at, self._daemon.resident))
        self._check()

    def _fault(self, *, may_kill: bool) -> None:
        began_at = time.monotonic()
        name, cuts = self._faults.inject(may_kill=may_kill)
        self._measured.faults[name] = self._measured.faults.get(name, 0) + 1
        if cuts:
            self._all_attend_since(began_at)
        took = time.monotonic() - began_at
        resident = self._daemon.resident / 2**20
        self._settings.say(f"{name}: all well again after {took:.1f} s; {resident:.1f} MiB")
        self._check()

    def _all_attend_since(self, instant: float) -> None:
        self._until(lambda report: min(report["attended_at"]) > instant)

    def _until(self, condition: Callable[[dict[str, Any]], bool]) -> None:
        deadline = time.monotonic() + _BACK_TIMEOUT
        while True:
            self._crew.tell({"tell": True})
            report = self._crew.hear(_TIMEOUT)
            if report["trouble"]:
                raise ClientTrouble(report["trouble"][0])
            if condition(report):
                return
            if time.monotonic() > deadline:
                raise ClientTrouble(f"not all members have come back within {_BACK_TIMEOUT:g} s")
            time.sleep(0.2)

    def _check(self) -> None:
        """What must hold whatever has happened."""
        self._crew.tell({"tell": True})
        report = self._crew.hear(_TIMEOUT)
        trouble = list(report["trouble"])
        view = self._owner.get(self._run_id)
        if view.phase is not RunPhase.RUNNING:
            trouble.append(f"the run is {view.phase.value}: {view.failure or view.stop_reason}")
        missed = [str(each.id) for each in view.members if each.phase is not MemberPhase.RUNNING]
        if missed:
            trouble.append(f"no longer running: {', '.join(missed[:5])}")
        leases = self._book.list()
        held = {
            lease.uuid: lease.token.number
            for lease in leases
            if lease.state is LeaseState.HELD and lease.token is not None
        }
        for uuid, number in report["tokens"]:
            if held.get(uuid) != number:
                trouble.append(f"{uuid}: its holder has {number}, the book {held.get(uuid)}")
        if len(set(held.values())) < len(held):
            trouble.append("two leases have the same token")
        if trouble:
            raise ClientTrouble("; ".join(trouble[:5]))


FIGURE = Figure(
    name="soak",
    summary="twenty minutes of faults (--minutes): memory stays, nobody is lost, no GPU is doubled",
    measure=measure,
    repeats=1,
)
