"""`tflease serve` as a process: how it starts, whom it tells to stop, and how it ends."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from coordinator.client import RunClient
from coordinator.core.errors import CoordinatorUnavailable
from coordinator.core.model import Role, Roles, RunId, RunPhase, RunSpec, RunView
from coordinator.testing import STOPPED, FakeGang
from tests.integration.daemon.process import DEADLINE, ROOT, Daemon, Home, StartDaemon
from tests.integration.membership import UNHURRIED, Member

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


async def gang_in(daemon: Daemon, spec: RunSpec) -> FakeGang:
    client = daemon.client()
    run = await asyncio.to_thread(client.create, spec)
    client.close()
    gang = FakeGang(daemon.address, daemon.token, run.run_id, spec.roles)
    await gang.form()
    await gang.enter()
    return gang


# --- start ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_it_says_where_it_listens_and_ends_well_on(
    number: signal.Signals, daemon: Daemon, home: Home
) -> None:
    journal = home.folder.parent / "state" / "tflease" / "journal.sqlite"
    assert f"pid {daemon.process.pid}, token in {home.token_file}, new, jo" in daemon.line
    assert daemon.line.endswith(f", journal in {journal})\n")
    assert mode(home.token_file) == mode(journal) == 0o600
    assert [mode(note) for note in home.notes] == [0o600]
    daemon.signal(number)
    assert daemon.wait() == 0
    assert home.notes == []
    assert home.token_file.exists()
    times = [re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ INFO ", line) for line in lines(daemon)]
    assert all(times)
    assert lines(daemon)[-1].endswith("ended")


def lines(daemon: Daemon) -> list[str]:
    return daemon.log.splitlines()


def test_a_token_that_is_there_is_used_again(start: StartDaemon) -> None:
    first = start()
    token = first.token
    first.kill()
    second = start()
    assert ", new" not in second.line
    assert second.token == token


async def test_a_token_that_others_can_read_is_refused(home: Home) -> None:
    home.folder.mkdir()
    home.token_file.write_text("for everybody\n")
    home.token_file.chmod(0o644)
    refused = await home.tflease("serve", "--listen", "127.0.0.1:0")
    assert refused.code == 1
    assert "can be read or written by others" in refused.err
    assert refused.out == ""


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "[::]", "example.invalid"])
async def test_beyond_loopback_it_refuses_and_says_what_to_do(host: str, home: Home) -> None:
    refused = await home.tflease("serve", "--listen", f"{host}:0")
    assert refused.code == 1
    for words in ("without TLS", "--tls-cert", "--insecure", "127.0.0.1"):
        assert words in refused.err
    assert refused.out == ""
    assert not home.folder.exists()


async def test_beyond_loopback_it_serves_whoever_insists(home: Home) -> None:
    serving = await home.start("serve", "--listen", "0.0.0.0:0", "--insecure")
    assert serving.stdout is not None
    async with asyncio.timeout(DEADLINE):
        assert b"listens on 0.0.0.0:" in await serving.stdout.readline()
    assert (await home.tflease("status")).out == "no runs\n"
    serving.terminate()
    await serving.communicate()
    assert serving.returncode == 0


async def test_a_second_one_on_the_port_is_told_who_is_there(daemon: Daemon, home: Home) -> None:
    listen = f"127.0.0.1:{daemon.port}"
    refused = await home.tflease("serve", "--listen", listen, "--in-memory")
    assert refused.code == 1
    assert f"the tflease daemon with pid {daemon.process.pid}, there since" in refused.err
    elsewhere = str(home.folder.parent / "other" / "token")
    refused = await home.tflease(
        "serve", "--listen", listen, "--token-file", elsewhere, "--in-memory"
    )
    assert refused.code == 1
    assert f"process {daemon.process.pid} (" in refused.err
    assert len(home.notes) == 1


async def test_no_note_beside_the_token_is_no_reason_not_to_serve(
    home: Home, start: StartDaemon
) -> None:
    """As with a secret that is mounted read-only; root may write everywhere, so a name is too."""
    first = start()
    first.kill()
    [note] = home.notes
    note.unlink()
    note.mkdir()
    again = start(first.port)
    assert f"commands need --coordinator {again.address}" in again.log
    asked = await home.tflease("status", "--coordinator", again.address)
    assert asked.code == 0, asked.err


# --- end ------------------------------------------------------------------------------------------


async def test_sigterm_stops_members_in_order_and_refuses_new_runs(start: StartDaemon) -> None:
    daemon = start(0, "--in-memory")
    gang = await gang_in(daemon, RunSpec(Roles(worker=2, ps=1), name="mnist"))
    client = daemon.client()
    watching = asyncio.create_task(asyncio.to_thread(list, client.watch(gang.run_id)))
    daemon.signal(signal.SIGTERM)
    for name in ("worker:0", "worker:1", "ps:0"):
        stop = await gang[name].told_to_stop()
        assert stop.reason == "the coordinator is being shut down"
        if name == "worker:1":
            assert gang["ps:0"].stop is None, "it serves until the workers are gone"
            with pytest.raises(CoordinatorUnavailable, match="being shut down"):
                await asyncio.to_thread(client.create, RunSpec(Roles(worker=1)))
        await gang[name].end(STOPPED)
        await gang[name].leave()
    assert (await watching)[-1].phase is RunPhase.CANCELLED
    client.close()
    await gang.close()
    assert await asyncio.to_thread(daemon.wait) == 0
    for words in ("created: 'mnist', 3 members", "formed: all 3", "stopping: the co", "cancelled"):
        assert f"run {gang.run_id}: {words}" in daemon.log


async def test_a_second_sigterm_takes_the_graces_away(start: StartDaemon) -> None:
    daemon = start(0, "--in-memory")
    patient = {Role.WORKER: 600.0, Role.PS: 600.0}
    gang = await gang_in(daemon, RunSpec(Roles(worker=1, ps=1), grace=patient))
    worker = gang["worker:0"]
    daemon.signal(signal.SIGTERM)
    assert (await worker.told_to_stop()).grace == 600
    daemon.signal(signal.SIGTERM)
    async with asyncio.timeout(DEADLINE):
        while worker.stop is None or worker.stop.grace > 0:  # noqa: ASYNC110 nothing tells of it
            await asyncio.sleep(0.01)
    await worker.end(STOPPED)
    assert (await gang["ps:0"].told_to_stop()).grace == 0, "later stages are hurried, too"
    await gang["ps:0"].end(STOPPED)
    await gang.close()
    assert await asyncio.to_thread(daemon.wait) == 0


async def reserved(daemon: Daemon) -> Member:
    """A member with the agent's own code: it attends again by itself."""
    client = daemon.client()
    run = await asyncio.to_thread(client.create, UNHURRIED)
    client.close()
    member = Member(daemon.address, run.agent_token, run.run_id)
    async with asyncio.timeout(DEADLINE):
        while not member.membership.is_reserved:  # noqa: ASYNC110 nothing tells of it
            await asyncio.sleep(0.01)
    return member


async def test_without_a_journal_members_of_lost_runs_stop_and_say_why(start: StartDaemon) -> None:
    first = start(0, "--in-memory")
    member = await reserved(first)
    await asyncio.to_thread(first.kill)
    second = await asyncio.to_thread(start, first.port, "--in-memory")
    assert second.address == first.address
    reason = await member.must_stop()
    assert f"refused by the coordinator: this coordinator knows no run {member.run_id}" in reason
    await member.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_with_a_journal_members_go_on_after_a_restart(
    number: signal.Signals, start: StartDaemon
) -> None:
    """And what they are told then still reaches them."""
    first = start()
    member = await reserved(first)
    first.signal(number)
    assert await asyncio.to_thread(first.wait) == (0 if number is signal.SIGTERM else -number)
    if number is signal.SIGTERM:
        assert "SIGTERM: 1 runs go on; their members wait for this daemon" in first.log
    second = await asyncio.to_thread(start, first.port)
    assert "took up 1 runs and 0 GPUs from" in second.log
    client = second.client()
    run = await asyncio.to_thread(client.get, member.run_id)
    assert run.members[0].incarnation == member.incarnation
    await asyncio.to_thread(client.stop, member.run_id, "seen enough")
    async with asyncio.timeout(DEADLINE):
        assert (await member.stops.get()).reason == "seen enough"
    client.close()
    await member.close()


# --- owners ---------------------------------------------------------------------------------------

OWNER = """
import sys
from coordinator.client import RunClient
from coordinator.core.model import Roles, RunSpec
client = RunClient(sys.argv[1], sys.stdin.readline().strip())
run = client.create(RunSpec(Roles(worker=1), owner_timeout=1.0))
next(client.own(run.run_id))
print(run.run_id, flush=True)
sys.stdin.readline()  # until it is killed
"""


def own_in_another_process(daemon: Daemon) -> tuple[subprocess.Popen[str], str]:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, daemon.address],
        cwd=ROOT,
        env={**os.environ, "GRPC_ENABLE_FORK_SUPPORT": "0"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert owner.stdin is not None
    assert owner.stdout is not None
    owner.stdin.write(f"{daemon.token}\n")
    owner.stdin.flush()
    return owner, owner.stdout.readline().strip()


async def ended(client: RunClient, run_id: str) -> RunView:
    """By asking: a watch could not be given up when the run never ends."""
    async with asyncio.timeout(DEADLINE):
        while True:
            run = await asyncio.to_thread(client.get, RunId(run_id))
            if run.phase.is_terminal:
                return run
            await asyncio.sleep(0.05)


async def test_a_run_whose_owner_died_is_cancelled_and_one_whose_owner_lives_is_not(
    daemon: Daemon,
) -> None:
    """O13. The clock of the second run began before that of the first: it would have struck."""
    client = daemon.client()
    spec = RunSpec(Roles(worker=1), owner_timeout=1.0)
    mine = await asyncio.to_thread(client.create, spec)
    session = client.own(mine.run_id)
    assert (await asyncio.to_thread(next, session)).phase is RunPhase.FORMING
    owner, theirs = await asyncio.to_thread(own_in_another_process, daemon)
    owner.kill()
    owner.communicate()
    cancelled = await ended(client, theirs)
    assert cancelled.phase is RunPhase.CANCELLED
    assert cancelled.stop_reason == "its owner, the driver, was away for 1 s"
    run = await asyncio.to_thread(client.get, mine.run_id)
    assert run.phase is RunPhase.FORMING
    client.close()
