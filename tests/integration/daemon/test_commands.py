"""`tflease status` and `tflease stop`, as a shell runs them, against a daemon with fake members."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from coordinator import daemon_state
from coordinator.client import RunClient
from coordinator.core.model import Cause, ExitReport, Proof, Role, Roles, RunSpec
from coordinator.testing import STOPPED, FakeGang, serving
from coordinator.tls import client_tls
from tests.coordinator.certificates import DaemonFiles, TestAuthority, daemon_files, write
from tests.integration.daemon.process import DEADLINE, Daemon, Home, StartDaemon

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

CRASH = ExitReport(
    Cause.USER_EXCEPTION,
    exit_code=1,
    exception_type="ValueError",
    message="bad labels",
    proof=Proof.SWEEP,
)


async def gang_in(daemon: Daemon, spec: RunSpec) -> FakeGang:
    """Reserved by nobody yet."""
    client = daemon.client()
    run = await asyncio.to_thread(client.create, spec)
    client.close()
    return FakeGang(daemon.address, daemon.token, run.run_id, spec.roles)


async def json_of(home: Home, *arguments: str) -> Any:
    done = await home.tflease("status", *arguments, "--json")
    assert done.code == 0, done.err
    return json.loads(done.out)


# --- status ---------------------------------------------------------------------------------------

RUN_KEYS = {
    "id", "name", "phase", "created_at", "generation", "settled", "stop_reason", "members_total",
    "members_ready", "members_running", "members_ended", "waiting_for", "failure",
    "gpus_total", "gpus_granted", "restart_count",
}  # fmt: skip
NAMED_RUN_KEYS = RUN_KEYS | {"members", "restart_at", "restarts"}
MEMBER_KEYS = {
    "id", "phase", "phase_at", "host", "executor_id", "directory", "leftovers", "address",
    "attempt", "step", "section", "metrics", "exit", "gpus", "gpu_obstacles",
}  # fmt: skip
EXIT_KEYS = {
    "cause", "exit_code", "signal", "killed_by_us", "reason", "exception_type", "message", "proof",
    "survivors", "gpus",
}  # fmt: skip


async def test_status_names_who_is_missing_and_its_json_has_the_documented_fields(
    daemon: Daemon, home: Home
) -> None:
    gang = await gang_in(daemon, RunSpec(Roles(worker=2), name="mnist"))
    await gang.form(without=["worker:1"])
    table = await home.tflease("status")
    assert table.code == 0
    [row] = table.out.splitlines()[1:]
    assert row.split()[:5] == [gang.run_id, "mnist", "forming", "1/2", "ready"]
    assert "worker:1: task not scheduled" in row
    one = await home.tflease("status", gang.run_id[:6])
    assert "waiting for worker:1: task not scheduled" in one.out
    assert "fake-host" in one.out

    found = await json_of(home)
    assert found["coordinator"] == daemon.address
    [run] = found["runs"]
    assert run.keys() == RUN_KEYS
    assert (run["members_ready"], run["members_total"], run["members_running"]) == (1, 2, 0)
    created = datetime.strptime(run["created_at"], "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)
    assert abs((datetime.now(UTC) - created).total_seconds()) < 3600, "no clock of our own"
    assert run["failure"] is run["stop_reason"] is None
    await gang.close()


async def test_status_of_a_failed_run_has_its_first_cause(daemon: Daemon, home: Home) -> None:
    gang = await gang_in(daemon, RunSpec(Roles(worker=2)))
    await gang.form()
    await gang.enter()
    await gang["worker:0"].progress(7, loss=float("nan"))
    await gang["worker:1"].end(CRASH)
    await gang["worker:0"].told_to_stop()
    await gang["worker:0"].end(STOPPED)
    await gang.close()
    found = await json_of(home, gang.run_id)
    run = found["run"]
    assert run.keys() == NAMED_RUN_KEYS
    assert [member.keys() for member in run["members"]] == [MEMBER_KEYS, MEMBER_KEYS]
    assert run["members"][1]["exit"].keys() == EXIT_KEYS
    assert run["phase"] == "failed"
    assert run["failure"].keys() == {"cause", "member", "summary", "others"}
    assert (run["failure"]["member"], run["failure"]["cause"]) == ("worker:1", "user exception")
    assert run["members"][0]["step"] == 7
    assert run["members"][0]["metrics"] == {"loss": None}
    shown = (await home.tflease("status", gang.run_id)).out
    assert "bad labels" in shown
    assert "user exception, ValueError" in shown


async def test_status_follows_a_run_to_its_end(daemon: Daemon, home: Home) -> None:
    gang = await gang_in(daemon, RunSpec(Roles(worker=1)))
    watching = await home.start("status", gang.run_id, "--watch", "--json")
    assert watching.stdout is not None
    async with asyncio.timeout(DEADLINE):
        first = json.loads(await watching.stdout.readline())
        await gang.form()
        await gang.enter()
        await gang.finish()
        rest = await watching.stdout.read()
        assert await watching.wait() == 0
    await gang.close()
    assert first["run"]["phase"] == "forming"
    assert json.loads(rest.splitlines()[-1])["run"]["phase"] == "succeeded"


async def test_a_run_that_does_not_exist_is_exit_code_3(daemon: Daemon, home: Home) -> None:
    for command in (["status", "nope"], ["stop", "nope"]):
        done = await home.tflease(*command)
        assert done.code == 3
        assert "knows no run 'nope'" in done.err
        assert done.out == ""


async def test_who_cannot_be_reached_is_named_with_what_to_check(home: Home) -> None:
    done = await home.tflease("status")
    assert done.code == 1
    assert "TFLEASE_COORDINATOR" in done.err
    home.folder.mkdir()
    home.token_file.touch(0o600)
    home.token_file.write_text("a-token\n")
    done = await home.tflease("status", "--coordinator", "grpc://127.0.0.1:9")
    assert done.code == 1
    assert "127.0.0.1:9: does `tflease serve` run there" in done.err
    for wrong in ("ftp://127.0.0.1:9", "http://127.0.0.1:9", "127.0.0.1"):
        assert (await home.tflease("status", "--coordinator", wrong)).code == 2


async def test_a_coordinator_with_another_token_is_told_from_one_that_is_not_there(
    home: Home,
) -> None:
    home.folder.mkdir()
    home.token_file.touch(0o600)
    home.token_file.write_text("a-token\n")
    async with serving() as embedded:
        done = await home.tflease("status", "--coordinator", embedded.address)
    assert done.code == 1
    assert f"refused the token in {home.token_file}" in done.err
    assert "cluster.status()" in done.err


async def test_of_several_daemons_one_has_to_be_chosen(start: StartDaemon, home: Home) -> None:
    first, second = start(), start(0, "--in-memory")  # one journal has one daemon
    done = await home.tflease("status")
    assert done.code == 2
    assert first.address in done.err
    assert second.address in done.err
    found = await json_of(home, "--coordinator", f"grpc://{second.address}")
    assert found == {"coordinator": second.address, "runs": []}


# --- stop -----------------------------------------------------------------------------------------


async def test_stop_waits_for_the_end_and_says_what_for(daemon: Daemon, home: Home) -> None:
    gang = await gang_in(daemon, RunSpec(Roles(worker=2), grace={Role.WORKER: 60.0}))
    await gang.form()
    await gang.enter()
    stopping = await home.start("stop", gang.run_id[:6], "--reason", "enough", "--grace", "30")
    stop = await gang["worker:0"].told_to_stop()
    assert (stop.reason, stop.grace) == ("enough", 30)
    await gang["worker:0"].end(STOPPED)
    assert stopping.stdout is not None
    async with asyncio.timeout(DEADLINE):
        while "worker:1: still running" not in (line := await stopping.stdout.readline()).decode():
            assert line, "it has ended"
    assert stopping.returncode is None, "worker:1 has not ended"
    await gang["worker:1"].end(STOPPED)
    async with asyncio.timeout(DEADLINE):
        rest = (await stopping.stdout.read()).decode()
        assert await stopping.wait() == 0
    assert rest.splitlines()[-1] == f"{gang.run_id}: cancelled"
    await gang.close()


async def test_stop_all_without_waiting_tells_everybody(daemon: Daemon, home: Home) -> None:
    gangs = [await gang_in(daemon, RunSpec(Roles(worker=1))) for _ in range(2)]
    for gang in gangs:
        await gang.form()
    done = await home.tflease("stop", "--all", "--no-wait")
    assert done.code == 0
    assert sorted(done.out.splitlines()) == sorted(f"{g.run_id}: told to stop" for g in gangs)
    for gang in gangs:
        assert (await gang["worker:0"].told_to_stop()).reason == "tflease stop"
        await gang.close()


@pytest.mark.parametrize(
    "arguments",
    [(), ("a", "--all"), ("--all", "--daemon"), ("--daemon", "--grace", "1"), ("a", "--grace=-1")],
    ids=" ".join,
)
async def test_stop_wants_to_know_exactly_what(arguments: tuple[str, ...], home: Home) -> None:
    assert (await home.tflease("stop", *arguments)).code == 2


async def test_stop_daemon_waits_until_its_runs_and_the_process_are_gone(
    daemon: Daemon, home: Home
) -> None:
    gang = await gang_in(daemon, RunSpec(Roles(worker=1)))
    await gang.form()
    await gang.enter()
    stopping = await home.start("stop", "--daemon")
    await gang["worker:0"].told_to_stop()
    await gang["worker:0"].end(STOPPED)
    async with asyncio.timeout(DEADLINE):
        out, _ = await stopping.communicate()
    assert stopping.returncode == 0
    assert out.decode().splitlines()[-1] == "it has ended"
    assert daemon.process.poll() == 0
    await gang.close()


async def test_a_note_of_a_daemon_that_was_killed_misleads_nobody(
    daemon: Daemon, home: Home
) -> None:
    daemon.kill()
    assert len(home.notes) == 1
    for command in (["status"], ["stop", "--daemon"]):
        done = await home.tflease(*command)
        assert done.code == 1
        assert "no daemon of yours runs on this machine" in done.err


async def test_whoever_has_the_pid_of_a_daemon_now_gets_no_signal(
    daemon: Daemon, home: Home
) -> None:
    [note] = home.notes
    state = daemon_state.DaemonState(**json.loads(note.read_text()))
    with pytest.raises(ProcessLookupError):
        daemon_state.terminate(replace(state, started=state.started - 1))
    daemon_state.write(replace(state, started=state.started - 1))
    done = await home.tflease("stop", "--daemon")
    assert done.code == 1
    assert "no daemon of yours" in done.err
    assert daemon.process.poll() is None
    client = daemon.client()
    assert await asyncio.to_thread(client.list) == []
    client.close()


async def test_who_names_another_machine_is_told_which_daemon_is_here(
    daemon: Daemon, home: Home
) -> None:
    """A daemon that listens on all interfaces notes a loopback address, and the variable names the
    machine: nobody else's daemon is ended by mistake."""
    done = await home.tflease("stop", "--daemon", "--coordinator", "grpc://10.0.0.5:7787")
    assert done.code == 1
    assert f"here: {daemon.address} (--coordinator and TFLEASE_COORDINATOR choose)" in done.err
    assert daemon.process.poll() is None
    port = daemon.address.rpartition(":")[2]
    done = await home.tflease("stop", "--daemon", "--coordinator", f"grpc://localhost:{port}")
    assert done.code == 0, done.err


# --- a daemon that speaks TLS ---------------------------------------------------------------------


@pytest.fixture
def files(home: Home) -> DaemonFiles:
    """Of a certificate for localhost alone, as docs/security.md makes them."""
    home.folder.mkdir(mode=0o700)
    return daemon_files(home.folder)


def with_tls(start: StartDaemon, files: DaemonFiles) -> Daemon:
    flags = ("--tls-cert", "--tls-key", "--tls-client-ca")
    pairs = zip(flags, map(str, files.server), strict=True)
    return start(0, *(word for pair in pairs for word in pair))


def flags_of(files: Mapping[str, Path]) -> list[str]:
    return [
        word for name, path in files.items() for word in (f"--{name}".replace("_", "-"), f"{path}")
    ]


async def run_in(daemon: Daemon, files: DaemonFiles) -> str:
    tls = replace(client_tls(**files.client), server_name="localhost")
    with closing(RunClient(daemon.address, daemon.token, tls)) as client:
        return (await asyncio.to_thread(client.create, RunSpec(Roles(worker=1)))).run_id


async def test_a_daemon_with_tls_is_found_by_its_note_and_stopped_with_its_runs(
    start: StartDaemon, home: Home, files: DaemonFiles
) -> None:
    """The note has 127.0.0.1, and the certificate another name."""
    daemon = with_tls(start, files)
    run_id = await run_in(daemon, files)
    shown = await home.tflease("status", run_id, *flags_of(files.client))
    assert (shown.code, shown.err) == (0, "")
    done = await home.tflease("stop", "--daemon", "--json", *flags_of(files.client))
    assert (done.code, done.err) == (0, "")
    [run] = json.loads(done.out)["runs"]
    assert (run["id"], run["phase"]) == (run_id, "cancelled")
    assert daemon.wait() == 0


async def test_a_daemon_whose_runs_cannot_be_stopped_is_left_alone(
    start: StartDaemon, home: Home, files: DaemonFiles
) -> None:
    """Its runs would go on, and the exit code would say that they had been stopped."""
    daemon = with_tls(start, files)
    ca = {"ca_file": files.client["ca_file"]}  # and no certificate of ours, which it asks for
    refused = await home.tflease("stop", "--daemon", *flags_of(ca))
    assert refused.code == 1
    assert "was not told to end, because its runs could not all be stopped" in refused.err
    assert "--cert-file" in refused.err
    assert f"kill {daemon.process.pid}" in refused.err
    assert refused.out == ""
    shown = await home.tflease("status", *flags_of(files.client))
    assert (shown.code, shown.out) == (0, "no runs\n")


async def test_a_failed_handshake_is_said_by_us_alone(
    start: StartDaemon, home: Home, files: DaemonFiles, tmp_path: Path
) -> None:
    """gRPC would write lines of its own, with places in its source."""
    with_tls(start, files)
    ca = write(tmp_path / "other.pem", TestAuthority().pem)
    refused = await home.tflease("status", *flags_of({**files.client, "ca_file": ca}))
    assert refused.code == 1
    [line] = refused.err.splitlines()
    assert line.startswith("tflease: no coordinator could be reached")


async def test_a_token_file_whose_name_is_no_text_is_served_from(
    start: StartDaemon, home: Home
) -> None:
    path = os.fsdecode(os.fsencode(home.folder.parent) + b"/\xff")
    assert "\\udcff" in start(0, "--token-file", path).line
