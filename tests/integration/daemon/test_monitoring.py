"""`tflease serve --metrics`: numbers and health of a daemon, as a monitoring system sees them."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus

import pytest

from coordinator import metrics_server
from coordinator.core.model import Roles, RunSpec
from coordinator.metrics_server import MetricsServer, Page
from coordinator.testing import FakeGang
from tests.integration.daemon.process import DEADLINE, Daemon, Home, StartDaemon
from tests.integration.daemon.test_daemon import gang_in

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

OK = (HTTPStatus.OK, "ok\n")
BUSY = RunSpec(Roles(worker=2), beat_interval=0.05, liveness_ttl=15.0)


@pytest.fixture
def daemon(start: StartDaemon) -> Daemon:
    return start(0, "--metrics", "127.0.0.1:0")


async def url_of(daemon: Daemon) -> str:
    async with asyncio.timeout(DEADLINE):
        while True:
            if found := re.search(r"served on (http://127\.0\.0\.1:\d+)", daemon.log):
                return found[1]
            await asyncio.sleep(0.02)


async def get(url: str) -> tuple[int, str]:
    def ask() -> tuple[int, str]:
        try:
            with urllib.request.urlopen(url, timeout=DEADLINE) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    return await asyncio.to_thread(ask)


async def until(url: str, condition: Callable[[str], bool]) -> str:
    """Numbers are a second old at most."""
    async with asyncio.timeout(DEADLINE):
        while True:
            _, text = await get(f"{url}/metrics")
            if condition(text):
                return text
            await asyncio.sleep(0.1)


def value(text: str, name: str) -> float:
    found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
    return float(found[1]) if found else 0.0


async def test_a_daemon_at_work_shows_its_numbers(daemon: Daemon) -> None:
    url = await url_of(daemon)
    gang: FakeGang = await gang_in(daemon, BUSY)
    try:
        text = await until(url, lambda text: value(text, 'tflease_members{phase="running"}') == 2)
        assert value(text, 'tflease_runs{phase="running"}') == 1
        assert value(text, "tflease_sessions") == 2
        assert value(text, 'tflease_events_total{kind="run.formed"}') == 1
        name = 'tflease_calls_total{code="OK",method="ReservationService/Reserve"}'
        assert value(text, name) == 2
        for member in gang:
            await member.beat()
        text = await until(url, lambda text: value(text, "tflease_beats_total") >= 2)
        assert value(text, "tflease_beat_answer_seconds_count") > 0
        assert value(text, "tflease_journal_commit_seconds_count") > 0
        assert value(text, 'tflease_journal_size_bytes{file="main"}') > 0
        assert value(text, "process_resident_memory_bytes") > 1e6
        assert gang.run_id not in text
    finally:
        await gang.close()


async def test_a_daemon_that_ends_drains(start: StartDaemon) -> None:
    """Alive, and not ready, for as long as members take to leave."""
    daemon = start(0, "--metrics", "127.0.0.1:0", "--in-memory")
    url = await url_of(daemon)
    assert await get(f"{url}/readyz") == (HTTPStatus.OK, "ok\n")
    gang = await gang_in(daemon, BUSY)
    try:
        daemon.signal(signal.SIGTERM)
        async with asyncio.timeout(DEADLINE):
            while (answer := await get(f"{url}/readyz")) == OK:  # noqa: ASYNC110 it is polled
                await asyncio.sleep(0.02)
        assert answer[0] == HTTPStatus.SERVICE_UNAVAILABLE
        assert "told to end" in answer[1]
        assert await get(f"{url}/healthz") == (HTTPStatus.OK, "ok\n")
        daemon.signal(signal.SIGTERM)
    finally:
        await gang.close()


async def test_a_daemon_that_is_frozen_is_not_healthy(daemon: Daemon) -> None:
    """Whoever asks is not answered at all: a probe's own timeout sees it."""
    url = await url_of(daemon)
    daemon.signal(signal.SIGSTOP)
    try:

        def ask() -> None:
            urllib.request.urlopen(f"{url}/healthz", timeout=0.5).read()

        with pytest.raises(TimeoutError):
            await asyncio.to_thread(ask)
    finally:
        daemon.signal(signal.SIGCONT)
    assert (await get(f"{url}/metrics"))[0] == HTTPStatus.OK


async def test_those_who_send_slowly_do_not_keep_others_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A byte now and then is no request, however many of them come."""
    monkeypatch.setattr(metrics_server, "REQUEST_TIMEOUT", 0.3)
    ok = Page(HTTPStatus.OK, "text/plain", b"ok\n")
    server = MetricsServer("127.0.0.1", 0, {"/healthz": lambda: ok})
    try:
        async with asyncio.timeout(DEADLINE), asyncio.TaskGroup() as slow:
            for _ in range(metrics_server.MOST_REQUESTS):
                slow.create_task(send_slowly(server.port))
        assert await get(f"{server.url}/healthz") == OK
    finally:
        server.close()


async def send_slowly(port: int) -> None:
    """Until it is hung up on."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /healthz HT")
    answer = asyncio.ensure_future(reader.read())
    while not (await asyncio.wait({answer}, timeout=0.05))[0]:
        writer.write(b"x")
    with suppress(ConnectionError):
        assert answer.result() == b""
    writer.close()


async def test_a_port_that_is_taken_is_named(home: Home) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        refused = await home.tflease("serve", "--listen", "127.0.0.1:0", "--metrics", where)
    assert refused.code == 1
    assert f"cannot serve metrics on {where}: Address already in use" in refused.err
    refused = await home.tflease("serve", "--metrics", "nowhere")
    assert refused.code == 2


async def test_the_log_can_be_json(start: StartDaemon) -> None:
    daemon = start(0, "--log-format", "json", "--log-level", "debug", "--in-memory")
    gang = await gang_in(daemon, BUSY)
    await gang.close()
    daemon.kill()
    records = [json.loads(line) for line in daemon.log.splitlines()]
    [formed] = [record for record in records if record.get("kind") == "run.formed"]
    assert formed["run_id"] == gang.run_id
    assert formed["level"] == "INFO"
    members = {
        record.get("member") for record in records if record.get("kind") == "member.reserved"
    }
    assert members == {"worker:0", "worker:1"}
