"""What is counted, as Prometheus reads it: names, units, help texts, and labels of few values.

Whoever serves them is in another thread than the event loop: all that is read here is a snapshot,
or a tally that another thread may read. No label is a run's id, a member's or anybody's name.
docs/metrics.md lists the names; a test holds it against this file.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import TypeVar

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from coordinator.core.gpu import LeaseState
from coordinator.core.model import VERSION, MemberPhase, RunPhase
from coordinator.event_kinds import EVENTS_MISSED, KINDS
from coordinator.snapshot import Snapshot
from coordinator.tallies import Distribution, Tallies

E = TypeVar("E", bound=Enum)

SESSIONS = "ReservationService/Attend"
FOLLOWERS = "EventService/WatchEvents"
WATCHERS = ("RunService/WatchRun", "RunService/OwnRun")


def registry(look: Callable[[], Snapshot], tallies: Tallies) -> CollectorRegistry:
    """All of a coordinator's metrics, and those of its process (memory, descriptors, CPU)."""
    made = CollectorRegistry(auto_describe=False)
    made.register(CoordinatorCollector(look, tallies))
    ProcessCollector(registry=made)
    return made


class CoordinatorCollector(Collector):
    """``look``: the latest snapshot. Called by another thread."""

    def __init__(self, look: Callable[[], Snapshot], tallies: Tallies) -> None:
        self._look = look
        self._tallies = tallies

    def collect(self) -> Iterator[Metric]:
        snapshot = self._look()
        yield InfoMetricFamily(
            "tflease_coordinator", "The coordinator's version.", {"version": VERSION}
        )
        yield _gauge(
            "tflease_ready", "1 while it takes work, 0 while it ends or cannot write its journal.",
            float(not snapshot.not_ready),
        )  # fmt: skip
        yield from _of_things(snapshot)
        yield _counter(
            "tflease_restarts", "Restarts of gangs or single members, by the failure's cause.",
            "cause", self._tallies.restarts.copy(),
        )  # fmt: skip
        yield from _of_calls(self._tallies)
        yield from _of_journal(snapshot, self._tallies)


def _of_things(snapshot: Snapshot) -> Iterator[Metric]:
    census = snapshot.census
    yield _by_phase("tflease_runs", "Runs that it remembers, by phase.", RunPhase, census.runs)
    yield _by_phase(
        "tflease_members", "Members of runs that have not ended, by phase.", MemberPhase,
        census.members,
    )  # fmt: skip
    yield _by_phase(
        "tflease_gpus", "GPUs in its book, by the state of their lease.", LeaseState, census.gpus,
        label="state",
    )  # fmt: skip
    yield _gauge(
        "tflease_gpu_requests_waiting", "Requests for GPUs of others than runs that wait.",
        snapshot.gpu_waits,
    )  # fmt: skip
    yield _counter(
        "tflease_events", "Events of the record, by kind.", "kind",
        {kind: snapshot.events.get(kind, 0) for kind in KINDS if kind != EVENTS_MISSED},
    )  # fmt: skip
    yield _counter("tflease_refused", "Refusals, by the limit.", "limit", snapshot.refused)
    yield _counter(
        "tflease_slowed", "Waits of sessions that send too fast, by the limit.", "limit",
        snapshot.slowed,
    )  # fmt: skip


def _of_calls(tallies: Tallies) -> Iterator[Metric]:
    calls = CounterMetricFamily(
        "tflease_calls", "Calls that are over, by method and gRPC code.", labels=["method", "code"]
    )
    for (method, code), count in sorted(tallies.calls.copy().items()):
        calls.add_metric([method, code], count)
    yield calls
    yield _histogram(
        "tflease_call_duration_seconds", "How long answers took, streams apart.",
        {(method,): tallies.durations[method] for method in sorted([*tallies.durations])},
        ["method"],
    )  # fmt: skip
    still = tallies.open_calls.copy()
    yield _gauge("tflease_sessions", "Open sessions of members.", still[SESSIONS])
    yield _gauge(
        "tflease_watchers", "Open streams of watchers and owners of runs.",
        sum(still[name] for name in WATCHERS),
    )  # fmt: skip
    yield _gauge("tflease_event_followers", "Open streams of events.", still[FOLLOWERS])
    yield CounterMetricFamily("tflease_beats", "Heartbeats of members.", value=tallies.beats)
    yield _histogram(
        "tflease_beat_answer_seconds",
        "From the arrival of a heartbeat to the writing of its acknowledgement.",
        {(): tallies.beat_answers},
    )
    yield _histogram(
        "tflease_event_loop_lag_seconds", "How late the event loop comes to what is due.",
        {(): tallies.lag},
    )  # fmt: skip


def _of_journal(snapshot: Snapshot, tallies: Tallies) -> Iterator[Metric]:
    """Also without a journal, so that an alert need not know."""
    yield _gauge("tflease_journal_backlog", "Changes that are not on disk yet.", snapshot.backlog)
    yield _gauge(
        "tflease_journal_failing", "1 while the journal cannot be written, else 0.",
        float(bool(snapshot.journal_problem)),
    )  # fmt: skip
    yield _histogram(
        "tflease_journal_commit_seconds", "How long commits took that went well.",
        {(): tallies.commits},
    )  # fmt: skip
    yield CounterMetricFamily(
        "tflease_journal_failed_commits", "Commits that failed; each is tried again.",
        value=tallies.failed_commits,
    )  # fmt: skip
    size = GaugeMetricFamily(
        "tflease_journal_size_bytes", "The journal on disk: itself, and its write-ahead log.",
        labels=["file"],
    )  # fmt: skip
    if snapshot.journal_path is not None:
        path = snapshot.journal_path
        size.add_metric(["main"], _size(path))
        size.add_metric(["wal"], _size(path.with_name(f"{path.name}-wal")))
    yield size


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)


def _by_phase(
    name: str, text: str, kind: type[E], counts: Mapping[E, int], label: str = "phase"
) -> Metric:
    """Also those of which there are none."""
    family = GaugeMetricFamily(name, text, labels=[label])
    for phase in kind:
        family.add_metric([phase.value], counts.get(phase, 0))
    return family


def _counter(name: str, text: str, label: str, counts: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(name, text, labels=[label])
    for value, count in sorted(counts.items()):
        family.add_metric([value], count)
    return family


def _histogram(
    name: str,
    text: str,
    distributions: Mapping[tuple[str, ...], Distribution],
    labels: Iterable[str] = (),
) -> Metric:
    family = HistogramMetricFamily(name, text, labels=list(labels))
    for values, distribution in distributions.items():
        counts = itertools.accumulate(distribution.counts[:])
        bounds = [*map(str, distribution.bounds), "+Inf"]
        buckets = list(zip(bounds, map(float, counts), strict=True))
        family.add_metric(list(values), buckets, sum_value=distribution.total)
    return family
