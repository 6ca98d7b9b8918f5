"""How many members one coordinator hears on one core; and etcd and pickles over TCP beside it.

The peers speak HTTP/2 by hand (``grpc_by_hand``), each on a connection of its own, ours and those
of etcd alike, and have no process behind them.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks import etcd, heartbeats_result, pickle_server
from benchmarks.client_process import ClientTrouble
from benchmarks.cores import cores, running_on
from benchmarks.daemon import Daemon, cpu_of, has_journal
from benchmarks.figure import Figure, Result, Settings
from benchmarks.heartbeat_steps import Fleet, Server, Step, split
from benchmarks.heartbeats_result import INTERVAL, Measured, result
from coordinator.client import RunClient
from coordinator.core.model import MemberPhase, Roles, RunId, RunPhase, RunSpec

MEMBERS = 10_000
BESIDE = 1_000
"""So many peers where others are measured beside us."""

MEMBERS_PER_RUN = 100
RATES = (1_000, 5_000, 6_500, 8_000, 10_000)
"""Beats a second of all members together, beside the one of the default interval."""

_SECONDS = 30.0  # of the promised step: the probes' p99 needs a thousand beats
_SHORT = 12.0  # of a step of the curve
_FULL = 1.0  # seconds of p99 at which the core has no more to give
_LEFT_OVER = 256  # descriptors that are no connection
_WELL = (RunPhase.FORMING, RunPhase.RUNNING)
_MISSED = (MemberPhase.LOST, MemberPhase.FENCED)


def measure(settings: Settings) -> Result:
    """One repetition: a daemon for the curve, and one of each kind side by side."""
    members = _bearable(settings)
    measured = Measured(members, is_durable=has_journal(), with_tls=settings.tls)
    with tempfile.TemporaryDirectory(prefix="tflease-heartbeats-") as name:
        folder = Path(name)
        _our_curve(settings, folder / "curve", members, measured)
        beside = min(BESIDE, members)
        _ours_beside(settings, folder / "beside", beside, measured)
        _etcd_beside(settings, folder, beside, measured)
        _pickles_beside(settings, min(beside, pickle_server.MOST), measured)
    return result(measured)


def _bearable(settings: Settings) -> int:
    """As many members as descriptors allow."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = settings.members or MEMBERS
    members = min(wanted, hard - _LEFT_OVER) if hard != resource.RLIM_INFINITY else wanted
    if members < wanted:
        settings.say(
            f"only {members} members instead of {wanted}: this process may have {hard} "
            "descriptors (ulimit -Hn), and each member is a connection"
        )
    return members


class _Ours:
    """A daemon with runs, and their members."""

    def __init__(self, folder: Path, members: int, *, with_tls: bool) -> None:
        self._core, self._others = cores()
        self._daemon = Daemon(folder, self._core, with_tls=with_tls)
        self._members = members

    def __enter__(self) -> _Ours:
        self._daemon.start()
        try:
            self._begin()
        except BaseException:
            self._daemon.kill()
            raise
        return self

    def _begin(self) -> None:
        self._owner = RunClient(self._daemon.address, self._daemon.token, self._daemon.tls)
        slots: list[tuple[str, str]] = []
        self._runs: list[RunId] = []
        for first in range(0, self._members, MEMBERS_PER_RUN):
            count = min(MEMBERS_PER_RUN, self._members - first)
            run_id = self._owner.create(RunSpec(Roles(worker=count))).run_id
            self._runs.append(run_id)
            slots += [(run_id, f"worker:{index}") for index in range(count)]
        before = self._daemon.resident
        known = {"kind": "member", "host": self._daemon.host, "port": self._daemon.port}
        common = {**known, "token": self._daemon.token, "interval": INTERVAL, "tls": self._tls()}
        shares: list[Mapping[str, Any]] = []
        for size in split(self._members):
            shares.append({**common, "members": slots[:size]})
            slots = slots[size:]
        server = Server("tflease", lambda: self._daemon.cpu)
        self._fleet = Fleet(server, shares, self._members, self._others)
        self.bytes_per_member = (self._daemon.resident - before) / self._members
        self.settled_in = self._fleet.settled_in

    def _tls(self) -> dict[str, str]:
        """The files that a client process needs; none in plain text."""
        tls, folder = self._daemon.tls, self._daemon.folder
        if tls is None:
            return {}
        files = {"ca": "ca.pem", "certificate": "client.pem", "key": "client.key"}
        paths = {name: str(folder / file) for name, file in files.items()}
        return {**paths, "server_name": tls.server_name}

    def step(self, interval: float, seconds: float) -> Step:
        """With a look at all members: once lost, lost for good."""
        step = self._fleet.step(interval, seconds)
        return replace(step, lost=sum(map(self._lost, self._runs)))

    def _lost(self, run_id: RunId) -> int:
        view = self._owner.get(run_id)
        missed = sum(member.phase in _MISSED for member in view.members)
        return missed or (0 if view.phase in _WELL else len(view.members))

    def __exit__(self, *_: object) -> None:
        self._fleet.__exit__()
        self._owner.close()
        self._daemon.kill()  # the runs are not worth an orderly end


def _our_curve(settings: Settings, folder: Path, members: int, measured: Measured) -> None:
    try:
        with _Ours(folder, members, with_tls=settings.tls) as ours:
            measured.bytes_per_member = ours.bytes_per_member
            settings.say(
                f"{members} members attend after {ours.settled_in:.1f} s; "
                f"{ours.bytes_per_member / 1024:.1f} KiB each"
            )
            measured.promised = _take(settings, ours.step(INTERVAL, _SECONDS))
            measured.curve.append(measured.promised)
            for rate in RATES:
                step = ours.step(members / (rate * members / MEMBERS), _SHORT)
                measured.curve.append(_take(settings, step))
                if step.p99 > _FULL:  # what lies beyond is a longer queue, for minutes
                    measured.full_at = step.rate
                    break
    except ClientTrouble as trouble:
        measured.trouble.append(f"the curve: {trouble}")


def _ours_beside(settings: Settings, folder: Path, members: int, measured: Measured) -> None:
    try:
        with _Ours(folder, members, with_tls=settings.tls) as ours:
            for interval in (INTERVAL, 1.0):
                measured.beside.append(_take(settings, ours.step(interval, _SHORT)))
    except ClientTrouble as trouble:
        measured.trouble.append(f"{members} members: {trouble}")


def _etcd_beside(settings: Settings, folder: Path, leases: int, measured: Measured) -> None:
    if why := etcd.why_not():
        settings.say(f"etcd: skipped, {why}")
        measured.skipped.append(why)
        return
    core, others = cores()
    try:
        with etcd.Etcd(folder, core) as server:
            known = {"kind": "etcd", "host": server.host, "port": server.port}
            shares = [{**known, "count": size, "interval": INTERVAL} for size in split(leases)]
            who = Server(f"etcd {etcd.version()}", lambda: server.cpu)
            with Fleet(who, shares, leases, others) as fleet:
                for interval in (INTERVAL, 1.0):
                    measured.beside.append(_take(settings, fleet.step(interval, _SHORT)))
    except (ClientTrouble, RuntimeError) as trouble:
        measured.trouble.append(f"etcd: {trouble}")


def _pickles_beside(settings: Settings, clients: int, measured: Measured) -> None:
    core, others = cores()
    with running_on([core]):
        server = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.pickle_server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
    with server:
        assert server.stdout is not None
        assert server.stdin is not None
        try:
            known = {"kind": "poller", "host": "127.0.0.1", "port": int(server.stdout.readline())}
            shares = [{**known, "count": size, "interval": 1.0} for size in split(clients)]
            who = Server(heartbeats_result.PICKLES, lambda: cpu_of(server.pid))
            with Fleet(who, shares, clients, others) as fleet:
                measured.beside.append(_take(settings, fleet.step(1.0, _SHORT)))
        except ClientTrouble as trouble:
            measured.trouble.append(f"pickles over TCP: {trouble}")
        finally:
            server.kill()


def _take(settings: Settings, step: Step) -> Step:
    settings.say(heartbeats_result.spelled(step))
    return step


FIGURE = Figure(
    name="heartbeats",
    summary="10,000 members on one core, the curve to 10,000 beats a second, others beside it",
    measure=measure,
    repeats=1,
)
