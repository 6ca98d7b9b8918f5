"""The coordinator dies by kill -9 under a thousand members, and is started again: how soon all are
back, and that nobody was lost and no GPU granted twice.

The members are the package's fake executors, each with a GPU of its own. While the coordinator
dies, others ask for GPUs as fast as they are answered; all of their requests are repeated when it
is back, so that every grant that was answered before must be told again, with the same token.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.client_process import ClientProcess, ClientTrouble
from benchmarks.cores import cores
from benchmarks.daemon import Daemon, has_journal
from benchmarks.figure import Figure, Result, Settings, Table
from benchmarks.spread import verdict_on
from coordinator.client import RunClient
from coordinator.core.errors import TfleaseError
from coordinator.core.gpu import GpuSight, LeaseState
from coordinator.core.model import MemberPhase, Roles, RunPhase, RunSpec
from coordinator.gpu_client import GpuClient

BOUND = 5.0
"""Seconds. What was promised: from the start of the new process until all attend again."""

MEMBERS = 1_000
PROCESSES = 3
DOWN = 6.0
"""Seconds between death and start: by then everybody's back-off is as long as it gets."""

ASKED = 2_000
OUTSTANDING = 100
_KILLED_AFTER = 0.4  # seconds into the grants
_TIMEOUT = 120.0


@dataclass(frozen=True, slots=True)
class Sample:
    """One death. ``listening``, ``attended``: seconds from the start of the new process until it
    listened, and until the last member attended. ``answered``: grants told before the death."""

    listening: float
    attended: float
    lost: int
    answered: int
    doubled: int
    trouble: tuple[str, ...] = ()


def measure(settings: Settings) -> Result:
    """Each repetition with a journal of its own."""
    if not has_journal():
        return _without_journal()
    samples: list[Sample] = []
    for _ in range(settings.repeats):
        with tempfile.TemporaryDirectory(prefix="tflease-restart-") as name:
            sample = take(Path(name), settings.members or MEMBERS)
        samples.append(sample)
        settings.say(_spelled(sample))
    return result(samples, settings.members or MEMBERS)


def take(folder: Path, members: int) -> Sample:
    """One death and return."""
    core, others = cores()
    daemon = Daemon(folder, core)
    daemon.start()
    try:
        return _under(daemon, members, others)
    except (ClientTrouble, RuntimeError, TfleaseError) as trouble:
        return Sample(0.0, 0.0, 0, 0, 0, (str(trouble),))
    finally:
        daemon.kill()


def _under(daemon: Daemon, members: int, others: Sequence[int]) -> Sample:
    owner, book = RunClient(daemon.address, daemon.token), GpuClient(daemon.address, daemon.token)
    with ExitStack() as stack:
        stack.callback(owner.close)
        stack.callback(book.close)
        roles = Roles(worker=members)
        run_id = owner.create(RunSpec(roles, gpus=Roles(worker=1))).run_id
        crews = [
            stack.enter_context(ClientProcess("benchmarks.reattach", crew, others))
            for crew in _crews(daemon, run_id, members)
        ]
        before = [crew.hear(_TIMEOUT) for crew in crews]
        known = {"kind": "gpus", "host": daemon.host, "port": daemon.port, "token": daemon.token}
        asking = stack.enter_context(ClientProcess("benchmarks.grant_load", known, others))
        names = [f"GPU-asked-{number:05}" for number in range(ASKED)]
        for first in range(0, ASKED, 100):
            sights = [GpuSight(uuid, True) for uuid in names[first : first + 100]]
            book.report(f"asked{first}", "boot", sights)
        asking.tell({"outstanding": OUTSTANDING, "names": names})
        time.sleep(_KILLED_AFTER)
        daemon.kill()
        answered = asking.hear(_TIMEOUT)
        time.sleep(DOWN)
        began_at = daemon.start()
        listening = time.monotonic() - began_at
        attended, after = _all_back(crews, began_at)
        asking.tell({"outstanding": OUTSTANDING, "names": names})
        again = asking.hear(_TIMEOUT)
        view = owner.get(run_id)
        held = {
            lease.uuid: lease.token.number
            for lease in book.list()
            if lease.state is LeaseState.HELD and lease.token is not None
        }
        trouble = [text for report in (*before, *after) for text in report["trouble"]]
        if view.phase is not RunPhase.RUNNING:
            trouble.append(f"the run is {view.phase.value}: {view.failure or view.stop_reason}")
        lost = sum(member.phase is not MemberPhase.RUNNING for member in view.members)
        doubled, told = doubled_in(before, after, answered["grants"], again["grants"], held)
        return Sample(
            listening, attended, lost, len(answered["grants"]), doubled, (*trouble[:5], *told[:5])
        )


def _crews(daemon: Daemon, run_id: str, members: int) -> list[dict[str, Any]]:
    slots = [(run_id, f"worker:{index}") for index in range(members)]
    known = {"address": daemon.address, "token": daemon.token}
    return [{**known, "members": slots[first::PROCESSES]} for first in range(PROCESSES)]


def _all_back(
    crews: Sequence[ClientProcess], began_at: float
) -> tuple[float, list[dict[str, Any]]]:
    """Seconds until the last one attended, and what all said then."""
    deadline = time.monotonic() + _TIMEOUT
    while True:
        for crew in crews:
            crew.tell({"tell": True})
        reports = [crew.hear(_TIMEOUT) for crew in crews]
        instants = [instant for report in reports for instant in report["attended_at"]]
        if min(instants) > began_at:
            return max(instants) - began_at, reports
        if any(report["trouble"] for report in reports) or time.monotonic() > deadline:
            away = sum(instant <= began_at for instant in instants)
            said = [text for report in reports for text in report["trouble"]]
            raise ClientTrouble(f"{away} members have not come back: {'; '.join(said[:3])}")
        time.sleep(0.2)


def doubled_in(
    before: Sequence[dict[str, Any]],
    after: Sequence[dict[str, Any]],
    answered: Sequence[tuple[str, int]],
    again: Sequence[tuple[str, int]],
    held: dict[str, int],
) -> tuple[int, list[str]]:
    """How many GPUs have, or had, two holders; and in words."""
    first = dict(answered) | _tokens(before)
    now = dict(again) | _tokens(after)
    wrong = [
        f"{uuid} was granted as {number}, then as {now.get(uuid)}"
        for uuid, number in first.items()
        if now.get(uuid) != number
    ]
    wrong += [
        f"{uuid}: its holder has {number}, the book {held.get(uuid)}"
        for uuid, number in now.items()
        if held.get(uuid) != number
    ]
    twice = len(now) - len(set(now.values()))
    if twice:
        wrong.append(f"{twice} tokens were given twice")
    return len(wrong), wrong


def _tokens(reports: Sequence[dict[str, Any]]) -> dict[str, int]:
    return {uuid: number for report in reports for uuid, number in report["tokens"]}


# --- what it means --------------------------------------------------------------------------------


def result(samples: Sequence[Sample], members: int) -> Result:
    """Table and verdict."""
    trouble = [text for sample in samples for text in sample.trouble]
    worst = max(sample.attended for sample in samples)
    lost = sum(sample.lost for sample in samples)
    doubled = sum(sample.doubled for sample in samples)
    return Result(
        what=(
            f"kill -9 of the coordinator under {members:,} attended members with a GPU each and "
            f"{OUTSTANDING} requests for more under way; {DOWN:g} s later it is started again on "
            "the same port and journal."
        ),
        tables=(
            Table(
                "Seconds from the start of the new process",
                ("it listens", "all attend", "members lost", "grants before", "granted twice"),
                tuple(
                    (
                        f"{sample.listening:.2f}",
                        f"{sample.attended:.2f}",
                        str(sample.lost),
                        f"{sample.answered:,}",
                        str(sample.doubled),
                    )
                    for sample in samples
                ),
            ),
        ),
        notes=(
            "Members come back with the pauses of a real agent (0.2 to 1 s) on gRPC's own client, "
            f"which has a back-off of its own, from {PROCESSES} processes on the other cores.",
            "Grants before: answered before the death. Granted twice: a GPU whose token is another "
            "one than was told before the death, or than its holder has, or a token given twice.",
            *(f"WENT WRONG: {line}" for line in trouble),
        ),
        verdict=(
            f"all back within {BOUND:g} s: {verdict_on(worst, BOUND)} (worst {worst:.2f} s); "
            f"lost {lost}, granted twice {doubled}"
            if not trouble
            else f"NOT SOUND: {trouble[0]}"
        ),
        is_sound=not (trouble or lost or doubled),
    )


def _without_journal() -> Result:
    return Result(
        what="kill -9 of the coordinator under its members.",
        tables=(),
        notes=("The daemon of this version has no journal: nothing was measured.",),
        verdict="NOT MEASURED",
        is_sound=True,
    )


def _spelled(sample: Sample) -> str:
    if sample.trouble:
        return f"WENT WRONG: {sample.trouble[0]}"
    return (
        f"it listens after {sample.listening:.2f} s, all attend after {sample.attended:.2f} s; "
        f"{sample.lost} lost, {sample.doubled} granted twice"
    )


FIGURE = Figure(
    name="restart",
    summary="kill -9 of the coordinator under 1,000 members: how soon all are back",
    measure=measure,
    repeats=3,
)
