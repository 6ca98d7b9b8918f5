"""The numbers that a coordinator shows: their names, what they count, and what they cost."""

from __future__ import annotations

import asyncio
import re
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any

import grpc
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from coordinator import metrics, metrics_server, monitoring, snapshot
from coordinator.calls import Call
from coordinator.core import events
from coordinator.core.access import Principal, Role
from coordinator.core.errors import CoordinatorUnavailable
from coordinator.core.model import (
    Endpoint,
    ExecutorInfo,
    IncarnationId,
    MemberId,
    Roles,
    RunId,
    RunSpec,
)
from coordinator.engine import Engine
from coordinator.event_kinds import KINDS
from coordinator.event_log import EventQuery, EventRecord
from coordinator.journal_values import JournalUnusable
from coordinator.limiting import Limiter
from coordinator.limits import Limits
from coordinator.metrics_aspect import MetricsAspect
from coordinator.metrics_server import MetricsServer, Page
from coordinator.monitoring import Monitoring
from coordinator.server import Server
from coordinator.tallies import Distribution, Tallies

DOCS = Path(__file__).parents[2] / "docs"
WORKER = MemberId.parse("worker:0")
ATTEMPT = IncarnationId("attempt")


def registry_of(engine: Engine, limiter: Limiter | None = None) -> CollectorRegistry:
    counts = limiter or Limiter(Limits(), engine)
    return metrics.registry(lambda: snapshot.take(engine, counts, ""), engine.tallies)


def value(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    return registry.get_sample_value(name, labels)


def reserve(engine: Engine, run_id: RunId) -> None:
    where = ExecutorInfo("host", "boot", 1)
    engine.feed(
        events.ReservationRequested(run_id, WORKER, ATTEMPT, where, Endpoint("10.0.0.1", 2222))
    )


# --- what is counted ------------------------------------------------------------------------------


async def test_runs_and_members_are_counted_by_phase() -> None:
    engine = Engine()
    registry = registry_of(engine)
    first = engine.create_run("", RunSpec(Roles(worker=3)))
    engine.create_run("", RunSpec(Roles(worker=2)))
    reserve(engine, first)
    assert value(registry, "tflease_runs", phase="forming") == 2
    assert value(registry, "tflease_members", phase="expected") == 4
    assert value(registry, "tflease_members", phase="reserved") == 1
    assert value(registry, "tflease_members", phase="lost") == 0
    engine.feed(events.ProcessReady(first, WORKER, ATTEMPT))
    assert value(registry, "tflease_members", phase="ready") == 1
    assert value(registry, "tflease_events_total", kind="member.reserved") == 1
    assert value(registry, "tflease_events_total", kind="run.formed") == 0


async def test_members_of_runs_that_have_ended_are_not_counted() -> None:
    engine = Engine()
    registry = registry_of(engine)
    run_id = engine.create_run("", RunSpec(Roles(worker=3)))
    engine.feed(events.StopRequested(run_id, "enough"))
    assert value(registry, "tflease_runs", phase="cancelled") == 1
    assert value(registry, "tflease_members", phase="stopped") == 0


async def test_beats_are_counted() -> None:
    engine = Engine()
    run_id = engine.create_run("", RunSpec(Roles(worker=1)))
    reserve(engine, run_id)
    for _ in range(3):
        engine.feed(events.Heard(run_id, WORKER, ATTEMPT))
    assert value(registry_of(engine), "tflease_beats_total") == 3


def test_calls_are_counted_by_method_and_code_and_streams_have_no_duration() -> None:
    tallies = Tallies()
    aspect = MetricsAspect(tallies)
    somebody = Principal(Role.OPERATOR)
    listing = Call("/coordinator.v1.RunService/ListRuns", "peer", somebody)
    attending = Call("/coordinator.v1.ReservationService/Attend", "peer", somebody)
    aspect.begin(listing)
    aspect.begin(attending)
    assert tallies.open_calls["ReservationService/Attend"] == 1
    aspect.end(listing, grpc.StatusCode.OK)
    aspect.end(attending, grpc.StatusCode.CANCELLED)
    assert tallies.open_calls["ReservationService/Attend"] == 0
    assert tallies.calls["RunService/ListRuns", "OK"] == 1
    assert tallies.calls["ReservationService/Attend", "CANCELLED"] == 1
    assert set(tallies.durations) == {"RunService/ListRuns"}


async def test_refusals_are_counted_by_limit() -> None:
    engine = Engine()
    limiter = Limiter(Limits(), engine)
    limiter.refused["runs"] += 2
    limiter.slowed["messages_per_second"] += 1
    registry = registry_of(engine, limiter)
    assert value(registry, "tflease_refused_total", limit="runs") == 2
    assert value(registry, "tflease_slowed_total", limit="messages_per_second") == 1


@pytest.mark.parametrize(
    "observed, bucket", [(0.0, 0), (1.0, 0), (1.01, 1), (2.0, 1), (3.0, 2), (1e9, 2)]
)
def test_a_bound_belongs_to_the_bucket_below_it(observed: float, bucket: int) -> None:
    distribution = Distribution((1.0, 2.0))
    distribution.observe(observed)
    assert distribution.counts[bucket] == 1
    assert sum(distribution.counts) == 1


async def test_buckets_are_cumulative_and_the_last_has_everything() -> None:
    engine = Engine()
    for seconds in (0.0002, 0.3, 99.0):
        engine.tallies.lag.observe(seconds)
    registry = registry_of(engine)
    name = "tflease_event_loop_lag_seconds"
    assert value(registry, f"{name}_bucket", le="0.00025") == 1
    assert value(registry, f"{name}_bucket", le="0.5") == 2
    assert value(registry, f"{name}_bucket", le="+Inf") == 3
    assert value(registry, f"{name}_count") == 3
    assert value(registry, f"{name}_sum") == pytest.approx(99.3002)


# --- the journal ----------------------------------------------------------------------------------


class Disk:
    """A journal in memory; writes end when the test says so."""

    def __init__(self, path: Path) -> None:
        self.coordinator_id, self.next_event_id, self.path = "c", 1, path
        self.writing: list[Future[None]] = []

    def load(self) -> Mapping[tuple[str, str], Mapping[str, Any]]:
        return {}

    def events(self, query: EventQuery) -> list[EventRecord]:
        return []

    def write(
        self,
        put: Mapping[tuple[str, str], Mapping[str, Any]],
        removed: Collection[tuple[str, str]],
        told: Sequence[EventRecord],
    ) -> Future[None]:
        self.writing.append(Future())
        return self.writing[-1]


async def test_commits_are_timed_and_failures_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coordinator.durability.RETRY_INTERVAL", 0.0)
    disk = Disk(tmp_path / "journal.sqlite")
    disk.path.write_bytes(b"x" * 5_000)
    engine = Engine(journal=disk)
    registry = registry_of(engine)
    engine.create_run("", RunSpec(Roles(worker=1)))
    assert value(registry, "tflease_journal_backlog") == 1
    await until(lambda: len(disk.writing) == 1)
    disk.writing[0].set_exception(JournalUnusable("no space left"))
    await until(lambda: len(disk.writing) == 2)
    assert value(registry, "tflease_journal_failing") == 1
    disk.writing[1].set_result(None)
    await engine.durable()
    assert value(registry, "tflease_journal_failing") == 0
    assert value(registry, "tflease_journal_backlog") == 0
    assert value(registry, "tflease_journal_failed_commits_total") == 1
    assert value(registry, "tflease_journal_commit_seconds_count") == 1
    assert value(registry, "tflease_journal_size_bytes", file="main") == 5_000
    assert value(registry, "tflease_journal_size_bytes", file="wal") == 0


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 it is about another thread's futures, too
            await asyncio.sleep(0)


# --- names ----------------------------------------------------------------------------------------


async def samples() -> set[str]:
    """The names of all samples, with something in each family."""
    engine = Engine()
    limiter = Limiter(Limits(), engine)
    limiter.refused["runs"] += 1
    limiter.slowed["commands"] += 1
    aspect = MetricsAspect(engine.tallies)
    call = Call("/coordinator.v1.RunService/ListRuns", "peer", Principal(Role.OPERATOR))
    aspect.begin(call)
    aspect.end(call, grpc.StatusCode.OK)
    seen = snapshot.take(engine, limiter, "")
    registry = metrics.registry(lambda: seen, engine.tallies)
    text = generate_latest(registry).decode()
    families = set(re.findall(r"^# TYPE (\S+)", text, re.MULTILINE))
    return families | {sample.name for family in registry.collect() for sample in family.samples}


async def test_every_metric_is_in_the_docs_and_the_docs_name_no_other() -> None:
    engine = Engine()
    text = generate_latest(registry_of(engine)).decode()
    families = set(re.findall(r"^# TYPE (\S+)", text, re.MULTILINE))
    documented = set(re.findall(r"^\| `(\w+)`", (DOCS / "metrics.md").read_text(), re.MULTILINE))
    assert documented == families


def test_every_kind_of_event_is_in_the_docs_and_the_docs_name_no_other() -> None:
    text = (DOCS / "metrics.md").read_text()
    assert dict(re.findall(r"^\| `(\w+\.\w+)` \| (.+) \|$", text, re.MULTILINE)) == KINDS


@pytest.mark.parametrize("page", ["metrics.md", "operations.md"])
async def test_what_the_docs_alert_on_exists(page: str) -> None:
    text = (DOCS / page).read_text()
    used = set(re.findall(r"\b((?:tflease|process)_[a-z_]+?)(?=[\[{\s`)]|$)", text, re.MULTILINE))
    assert used <= await samples()


async def test_every_metric_has_a_help_text_and_no_label_names_anybody() -> None:
    engine = Engine()
    run_id = engine.create_run("", RunSpec(Roles(worker=1), name="secret-name"))
    reserve(engine, run_id)
    text = generate_latest(registry_of(engine)).decode()
    assert run_id not in text
    assert "secret-name" not in text
    labels = set(re.findall(r'[{,](\w+)="', text))
    assert labels <= {"phase", "state", "kind", "limit", "method", "code", "le", "file", "version"}
    assert not re.findall(r"^# HELP \S+ *$", text, re.MULTILINE)


# --- HTTP -----------------------------------------------------------------------------------------


@asynccontextmanager
async def monitored(
    engine: Engine | None = None, is_ending: Callable[[], bool] = lambda: False
) -> AsyncIterator[tuple[Monitoring, str]]:
    engine = engine or Engine()
    watching = Monitoring(Server(engine, "token"), is_ending)
    async with watching.running(("127.0.0.1", 0)) as url:
        yield watching, url


async def get(url: str) -> tuple[int, str]:
    def ask() -> tuple[int, str]:
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    return await asyncio.to_thread(ask)


async def test_numbers_and_health_are_served() -> None:
    async with monitored() as (_, url):
        status, text = await get(f"{url}/metrics")
        assert status == HTTPStatus.OK
        assert 'tflease_coordinator_info{version="' in text
        assert "process_resident_memory_bytes" in text
        assert await get(f"{url}/healthz") == (HTTPStatus.OK, "ok\n")
        assert await get(f"{url}/readyz?now") == (HTTPStatus.OK, "ok\n")
        status, text = await get(f"{url}/")
        assert (status, text) == (HTTPStatus.NOT_FOUND, "here are /metrics /healthz /readyz\n")
    with pytest.raises(urllib.error.URLError):
        await get(f"{url}/healthz")


async def test_an_event_loop_that_does_not_turn_is_not_alive(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with monitored() as (watching, url):
        await watching.look()
        monkeypatch.setattr(monitoring, "ALIVE_WITHIN", 0.0)
        for path in ("healthz", "readyz"):
            status, text = await get(f"{url}/{path}")
            assert status == HTTPStatus.SERVICE_UNAVAILABLE
            assert "event loop has not turned" in text


async def test_a_coordinator_that_ends_is_alive_and_not_ready() -> None:
    async with monitored(is_ending=lambda: True) as (watching, url):
        await watching.look()
        assert (await get(f"{url}/healthz"))[0] == HTTPStatus.OK
        assert await get(f"{url}/readyz") == (
            HTTPStatus.SERVICE_UNAVAILABLE,
            "it was told to end, and takes no new runs\n",
        )
        assert "tflease_ready 0.0" in (await get(f"{url}/metrics"))[1]


async def test_a_journal_that_fails_makes_it_not_ready_until_it_is_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coordinator.durability.RETRY_INTERVAL", 0.0)
    disk = Disk(tmp_path / "journal.sqlite")
    engine = Engine(journal=disk)
    async with monitored(engine) as (watching, url):
        engine.create_run("", RunSpec(Roles(worker=1)))
        await until(lambda: len(disk.writing) == 1)
        disk.writing[0].set_exception(JournalUnusable("no space left"))
        await until(lambda: len(disk.writing) == 2)
        await watching.look()
        status, text = await get(f"{url}/readyz")
        assert (status, text) == (
            HTTPStatus.SERVICE_UNAVAILABLE,
            "its journal cannot be written: no space left\n",
        )
        disk.writing[1].set_result(None)
        await until(lambda: not engine.journal_problem)
        await watching.look()
        assert (await get(f"{url}/readyz"))[0] == HTTPStatus.OK
        kinds = [event.kind for event in engine.events.kept]
        assert kinds[-2:] == ["journal.failed", "journal.recovered"]
        for writing in disk.writing:
            if not writing.done():
                writing.set_result(None)


async def test_a_port_that_is_taken_is_said() -> None:
    async with monitored() as (_, url):
        port = int(url.rpartition(":")[2])
        with pytest.raises(CoordinatorUnavailable, match=f"metrics on 127.0.0.1:{port}: Address"):
            MetricsServer("127.0.0.1", port, {})


@pytest.mark.slow
async def test_those_who_send_nothing_do_not_keep_others_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """So many are waited for, and no longer than that."""
    monkeypatch.setattr(metrics_server._Handler, "timeout", 0.1)
    ok = Page(HTTPStatus.OK, "text/plain", b"ok")
    server = MetricsServer("127.0.0.1", 0, {"/": lambda: ok})
    try:
        slow = [
            await asyncio.open_connection("127.0.0.1", server.port)
            for _ in range(metrics_server.MOST_REQUESTS)
        ]
        for reader, _ in slow:
            async with asyncio.timeout(30):
                assert await reader.read() == b""
        assert await get(f"{server.url}/") == (HTTPStatus.OK, "ok")
        for _, writer in slow:
            writer.close()
    finally:
        await asyncio.to_thread(server.close)
