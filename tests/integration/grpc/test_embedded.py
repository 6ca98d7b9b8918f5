"""The coordinator's own process: beside its driver, and gone when its driver is (O13)."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from coordinator.authority import new_authority
from coordinator.client import RunClient
from coordinator.core.errors import CoordinatorUnavailable
from coordinator.core.model import MemberPhase, Roles, RunPhase, RunSpec, Slots
from coordinator.embedded import ENVIRONMENT, EmbeddedConfig
from coordinator.testing import COMPLETED, STOPPED, FakeGang
from tests.integration.grpc.embedded import ROOT, TOKEN, EmbeddedProcess

pytestmark = [pytest.mark.timeout(120), pytest.mark.slow]


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[EmbeddedProcess]:
    with EmbeddedProcess(tmp_path / "stderr") as running:
        yield running


@pytest.fixture
def with_driver(tmp_path: Path) -> Iterator[EmbeddedProcess]:
    with EmbeddedProcess(tmp_path / "stderr", own_driver=True) as running:
        yield running


async def gang_in(embedded: EmbeddedProcess, owner: RunClient, spec: RunSpec) -> FakeGang:
    run = await asyncio.to_thread(owner.create, spec)
    gang = FakeGang(embedded.address, embedded.token, run.run_id, spec.roles, tls=embedded.tls)
    await gang.form()
    await gang.enter()
    return gang


async def test_a_run_from_its_creation_to_its_end_and_a_quiet_exit(
    embedded: EmbeddedProcess,
) -> None:
    owner = embedded.client()
    gang = await gang_in(embedded, owner, RunSpec(Roles(chief=1, worker=2)))
    for member in gang:
        await member.end(COMPLETED)
        await member.leave()
    run = await asyncio.to_thread(owner.get, gang.run_id)
    assert run.phase is RunPhase.SUCCEEDED
    await gang.close()
    owner.close()
    embedded.cut_lifeline()
    assert embedded.wait() == 0
    assert embedded.stderr == ""


async def test_token_and_keys_can_be_read_nowhere(embedded: EmbeddedProcess) -> None:
    assert embedded.tls is not None
    key = embedded.tls.key.splitlines()[1]
    assert len(key) > 40
    process = Path(f"/proc/{embedded.pid}")
    for name in ("cmdline", "environ"):
        content = (process / name).read_bytes()
        assert b"coordinator.embedded" in content or name == "environ"
        assert TOKEN.encode() not in content
        assert key.encode() not in content
    assert TOKEN not in json.dumps(embedded.answer)
    assert TOKEN not in embedded.stderr


async def test_it_speaks_mutual_tls_and_nothing_else(embedded: EmbeddedProcess) -> None:
    """R5: nobody has to set anything up for it."""
    own = embedded.tls
    assert own is not None
    for tls in (None, replace(own, certificate="", key=""), replace(own, ca=new_authority()[1].ca)):
        stranger = RunClient(embedded.address, TOKEN, tls)
        with closing(stranger), pytest.raises(CoordinatorUnavailable):
            await asyncio.to_thread(stranger.list)
    with closing(embedded.client()) as owner:
        assert await asyncio.to_thread(owner.list) == []
    assert embedded.stderr == ""  # nobody can fill the driver's terminal


def test_where_no_numbers_can_be_served_it_goes_on_without() -> None:
    """No run fails for the sake of numbers."""
    code = (
        "from coordinator import embedded; embedded._METRICS = ('127.0.0.1', 99_999); "
        "raise SystemExit(embedded.main())"
    )
    config = EmbeddedConfig(token=TOKEN, driver_pid=os.getpid())
    with subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **ENVIRONMENT},
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(config.to_json() + "\n")
        process.stdin.flush()
        answer = json.loads(process.stdout.readline() or "{}")
        _, said = process.communicate(timeout=60)
    assert answer.get("metrics") == ""
    assert answer["port"] > 0
    assert process.returncode == 0
    assert "Traceback" not in said
    assert "cannot serve metrics on 127.0.0.1:99999" in said


def test_the_token_is_in_no_text_of_its_configuration() -> None:
    config = EmbeddedConfig(token=TOKEN, driver_pid=1)
    assert TOKEN not in repr(config)
    assert EmbeddedConfig.from_json(config.to_json()) == config


async def test_it_tells_its_driver_the_clients_side_and_no_more(embedded: EmbeddedProcess) -> None:
    """Its own key stays with it, and the authority's is gone."""
    assert set(embedded.answer) == {"port", "tls", "metrics"}
    assert set(embedded.answer["tls"]) == {"ca", "certificate", "key", "server_name"}
    assert "PRIVATE KEY" not in embedded.answer["tls"]["ca"] + embedded.answer["tls"]["certificate"]


def cut_lifeline(embedded: EmbeddedProcess) -> None:
    embedded.cut_lifeline()


def kill_driver(embedded: EmbeddedProcess) -> None:
    embedded.kill_driver()


def interrupt(embedded: EmbeddedProcess) -> None:
    embedded.signal(signal.SIGINT)


def terminate(embedded: EmbeddedProcess) -> None:
    embedded.signal(signal.SIGTERM)


@pytest.mark.parametrize(
    "end, reason",
    [
        (kill_driver, "the driver process is gone"),
        (cut_lifeline, "the driver closed its coordinator"),
        (interrupt, "the coordinator got SIGINT"),
        (terminate, "the coordinator got SIGTERM"),
    ],
    ids=["its driver is SIGKILLed", "its lifeline ends", "SIGINT", "SIGTERM"],
)
async def test_members_are_told_to_stop_and_then_it_is_gone_when(
    end: Callable[[EmbeddedProcess], None], reason: str, with_driver: EmbeddedProcess
) -> None:
    """O13: the driver dies; nobody keeps a slot, and nothing stays behind."""
    owner = with_driver.client()
    gang = await gang_in(with_driver, owner, RunSpec(Roles(worker=2, ps=1)))
    watching = asyncio.create_task(asyncio.to_thread(list, owner.watch(gang.run_id)))
    end(with_driver)
    for name in ("worker:0", "worker:1", "ps:0"):
        stop = await gang[name].told_to_stop()
        assert stop.reason == reason
        await gang[name].end(STOPPED)
        await gang[name].leave()
    assert (await watching)[-1].phase is RunPhase.CANCELLED
    owner.close()
    await gang.close()
    await asyncio.to_thread(with_driver.wait)
    assert with_driver.stderr == ""


async def test_it_ends_quietly_with_sessions_and_a_watch_open(embedded: EmbeddedProcess) -> None:
    """No traceback of a cancelled task lands in the driver's terminal."""
    owner = embedded.client()
    gang = await gang_in(embedded, owner, RunSpec(Roles(worker=2)))
    waiting = (await asyncio.to_thread(owner.create, RunSpec(Roles(worker=1)))).run_id
    watch = owner.watch(waiting)
    await asyncio.to_thread(next, watch)
    gang["worker:0"].open_half()
    embedded.cut_lifeline()
    for member in gang:
        await member.told_to_stop()
        await member.end(STOPPED)
    assert await asyncio.to_thread(embedded.wait) == 0
    assert (await asyncio.to_thread(list, watch))[-1].phase is RunPhase.CANCELLED
    assert embedded.stderr == ""
    await gang.close()
    owner.close()


async def test_a_hang_up_of_the_terminal_does_not_reach_it(embedded: EmbeddedProcess) -> None:
    owner = embedded.client()
    embedded.signal(signal.SIGHUP)
    assert await asyncio.to_thread(owner.list) == []
    owner.close()


async def test_a_paused_coordinator_loses_nobody(embedded: EmbeddedProcess) -> None:
    """A swapping host, a suspended laptop: its members are silent, and it is to blame."""
    owner = embedded.client()
    spec = RunSpec(Roles(worker=2), liveness_ttl=4, beat_interval=3.9)
    gang = await gang_in(embedded, owner, spec)
    await gang.beat()
    embedded.signal(signal.SIGSTOP)
    for member in gang:
        member.hush()
    report = asyncio.create_task(
        asyncio.to_thread(owner.report_scheduling, gang.run_id, Slots(2, 2), {})
    )
    await asyncio.sleep(4.5)  # the pause itself, longer than the liveness time
    embedded.signal(signal.SIGCONT)
    await report  # what it hears first is not its own clock
    await gang.beat()
    run = await asyncio.to_thread(owner.get, gang.run_id)
    assert [member.phase for member in run.members] == [MemberPhase.RUNNING] * 2
    assert "did not run for" in embedded.stderr
    for member in gang:
        await member.end(COMPLETED)
    await gang.close()
    owner.close()


def test_a_driver_that_was_gone_before_it_looked_ends_it(tmp_path: Path) -> None:
    done = run_with(EmbeddedConfig(token=TOKEN, driver_pid=1).to_json() + "\n")
    assert done.returncode == 1
    assert "driver 1 is gone" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("line", ["", "{}\n", "no json\n"], ids=["nothing", "empty", "no JSON"])
def test_a_broken_configuration_is_a_message_and_exit_code_2(line: str) -> None:
    done = run_with(line)
    assert done.returncode == 2
    assert done.stdout == ""
    [message] = done.stderr.splitlines()
    assert message.startswith("coordinator.embedded: ")


def run_with(line: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "coordinator.embedded"],
        cwd=ROOT,
        input=line,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_port_in_use_is_told_to_the_driver(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with EmbeddedProcess(tmp_path / "stderr", port=port) as embedded:
            assert f"cannot listen on 127.0.0.1:{port}" in str(embedded.answer["error"])
            assert embedded.wait() == 1
            assert "Traceback" not in embedded.stderr


def test_proxies_in_the_environment_do_no_harm(tmp_path: Path) -> None:
    """With http_proxy set, gRPC's defaults fail even on loopback."""
    code = """
import asyncio
from coordinator.authority import new_authority
from coordinator.client import RunClient
from coordinator.core.errors import CoordinatorUnavailable
from coordinator.core.model import Roles, RunPhase, RunSpec
from coordinator.testing import drive, serving

async def main():
    async with serving() as coordinator:
        run = await drive(coordinator, RunSpec(Roles(worker=2)))
        assert run.phase is RunPhase.SUCCEEDED
        owner = RunClient(coordinator.address, coordinator.token)
        assert len(await asyncio.to_thread(owner.list)) == 1
        owner.close()

asyncio.run(main())
"""
    nowhere = "http://127.0.0.1:9"
    proxies = dict.fromkeys(("http_proxy", "https_proxy", "grpc_proxy", "HTTP_PROXY"), nowhere)
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, **proxies},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


GOOD = {"token": "t", "driver_pid": 1}


@pytest.mark.parametrize(
    "config",
    [
        [],
        {},
        {"token": "t"},
        {**GOOD, "token": ""},
        {**GOOD, "token": 7},
        {**GOOD, "driver_pid": "1"},
        {**GOOD, "driver_pid": 0},
        {**GOOD, "driver_pid": True},
        {**GOOD, "port": 65536},
        {**GOOD, "port": -1},
        {**GOOD, "log_level": "LOUD"},
        {**GOOD, "colour": "red"},
    ],
    ids=str,
)
def test_a_configuration_that_makes_no_sense_is_refused(config: object) -> None:
    with pytest.raises(ValueError, match="broken configuration"):
        EmbeddedConfig.from_json(json.dumps(config))


def test_a_configuration_survives_its_journey() -> None:
    config = EmbeddedConfig("t", 7, host="0.0.0.0", port=4040, log_level="DEBUG")
    assert EmbeddedConfig.from_json(config.to_json()) == config
