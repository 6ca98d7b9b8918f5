"""`tflease events`, as a shell runs it, and over a restart of the daemon."""

from __future__ import annotations

import asyncio
import json
import re
import signal

import pytest

from coordinator.core.model import Roles, RunSpec
from tests.integration.daemon.process import DEADLINE, Daemon, Home, StartDaemon
from tests.integration.daemon.test_daemon import gang_in

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

PAIR = RunSpec(Roles(worker=2), name="mnist")
KEYS = {"id", "time", "run", "subject", "kind", "text"}


async def one_run(daemon: Daemon) -> str:
    gang = await gang_in(daemon, PAIR)
    await gang.finish()
    await gang.close()
    client = daemon.client()

    def look() -> None:
        for _ in client.watch(gang.run_id):
            pass

    await asyncio.to_thread(look)
    client.close()
    return gang.run_id


async def test_what_has_happened_is_printed(daemon: Daemon, home: Home) -> None:
    run_id = await one_run(daemon)
    done = await home.tflease("events")
    assert done.code == 0
    lines = done.out.splitlines()
    assert "coordinator.started" in lines[0]
    stamp = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
    assert all(re.match(rf"{stamp}  (-|[0-9a-f]{{12}}) +[a-z.]+  ", line) for line in lines)
    assert any(f"{run_id}  run.created         created: 'mnist', 2 members" in x for x in lines)
    of_run = await home.tflease("events", run_id[:5], "--kind", "run", "--limit", "2")
    assert [line.split()[2] for line in of_run.out.splitlines()] == ["run.formed", "run.succeeded"]
    member = await home.tflease("events", run_id, "--grep", "WORKER:1", "--kind", "member.reserved")
    assert len(member.out.splitlines()) == 1
    assert "worker:1 has a place on fake-host" in member.out


async def test_json_is_one_object_a_line(daemon: Daemon, home: Home) -> None:
    run_id = await one_run(daemon)
    done = await home.tflease("events", "--json")
    events = [json.loads(line) for line in done.out.splitlines()]
    assert all(set(event) == KEYS for event in events)
    assert events[0]["run"] is None
    assert {event["run"] for event in events[1:]} == {run_id}
    assert [event["id"] for event in events] == sorted(event["id"] for event in events)


async def test_times_are_ago_or_in_utc(daemon: Daemon, home: Home) -> None:
    await one_run(daemon)
    assert (await home.tflease("events", "--since", "1h")).out
    assert not (await home.tflease("events", "--until", "1h")).out
    assert (await home.tflease("events", "--since", "2020-01-01", "--until", "2100-01-01")).out
    for wrong in ("yesterday", "10", "5 parsecs"):
        refused = await home.tflease("events", "--since", wrong)
        assert refused.code == 2
        assert f"--since {wrong}: should be a time ago" in refused.err
    refused = await home.tflease("events", "--since", "1m", "--until", "2m")
    assert refused.code == 2
    assert "since is later than until" in refused.err


async def test_following_goes_on_until_ctrl_c(daemon: Daemon, home: Home) -> None:
    following = await home.start("events", "--follow", "--kind", "run")
    assert following.stdout is not None
    run_id = await one_run(daemon)
    async with asyncio.timeout(DEADLINE):
        lines = [(await following.stdout.readline()).decode() for _ in range(3)]
    assert all(run_id in line for line in lines)
    assert "run.succeeded" in lines[2]
    following.send_signal(signal.SIGINT)
    _, err = await following.communicate()
    assert (following.returncode, err) == (0, b"")


async def test_a_restart_loses_no_event(start: StartDaemon, home: Home) -> None:
    first = start()
    run_id = await one_run(first)
    first.kill()
    second = start()
    done = await home.tflease("events", "--json")
    kinds = [json.loads(line)["kind"] for line in done.out.splitlines()]
    assert kinds[0] == "coordinator.started"
    assert kinds[-1] == "coordinator.restarted"
    assert "run.succeeded" in kinds
    of_run = await home.tflease("events", run_id, "--kind", "run.succeeded")
    assert len(of_run.out.splitlines()) == 1
    second.close()


async def test_without_a_daemon_or_a_run_it_says_so(start: StartDaemon, home: Home) -> None:
    nobody = await home.tflease("events")
    assert nobody.code == 1
    assert "no daemon of yours runs on this machine" in nobody.err
    start()
    unknown = await home.tflease("events", "3fa9")
    assert unknown.code == 3
    assert "knows no run '3fa9'" in unknown.err
