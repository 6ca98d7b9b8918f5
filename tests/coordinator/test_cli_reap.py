"""`tflease reap`: where it looks, what it lists, what it leaves alone. What members really leave is
in tests/integration/test_leftovers.py."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from coordinator.cli import app
from executor_agent import claims, leftovers, member_directory, sweep
from executor_agent.core.claim import Claim
from executor_agent.core.supervision import MARKER_VARIABLE
from executor_agent.processes import ProcessIdentity, identity_of, is_running, my_identity
from executor_agent.traces import marker_of
from tests.integration.sentinel_helpers import eventually

Start = Callable[[str], ProcessIdentity]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of the executors; it is not made."""
    path = tmp_path / "home"
    monkeypatch.setenv("TFLEASE_HOME", str(path))
    return path


@pytest.fixture
def run() -> str:
    """A run of this test's own: nobody else's processes on this machine are to be ended."""
    return uuid.uuid4().hex


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a process that carries a marker and that no sentinel is above."""
    with ExitStack() as cleanup:

        def begin(marker: str) -> ProcessIdentity:
            environment = {**os.environ, MARKER_VARIABLE: marker}
            process = subprocess.Popen(["sleep", "600"], env=environment)
            cleanup.callback(process.wait)
            cleanup.callback(process.kill)
            identity = identity_of(process.pid)
            assert identity is not None
            # Popen returns amid the exec, when there is no environment to be seen for an instant.
            eventually(lambda: marker_of(identity.pid) == marker, "the program to run")
            return identity

        yield begin


def reap(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["reap", *arguments], env={"COLUMNS": "200"})


def claimed(home: Path, run: str, name: str = "worker-1.a", **changes: object) -> Path:
    """A claim of a member that a reboot has ended."""
    here = claims.here()
    for directory in (home, home / run / name, home / "claims"):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    claim = Claim(
        member="worker:1",
        run_id=run,
        incarnation="a",
        marker=f"{run}/worker:1/a",
        directory=str(home / run / name),
        boot_id="an earlier one",
        claimed_at=1.0,
        processes={},
        anchors={},
        pipe=1,
        host=here.host,
        namespace=here.namespace,
    )
    path = home / "claims" / f"{run}.{name}.json"
    path.write_text(claim.replace(**changes).to_json())  # type: ignore[arg-type]
    return path


def test_where_no_member_has_ever_run_it_says_where_it_looked_and_makes_nothing(
    home: Path, run: str
) -> None:
    for arguments in ((), ("--yes",)):
        done = reap("--run", run, *arguments)
        assert done.exit_code == 0, done.output
        assert f"looked at {home}/claims" in done.output
        assert "--home DIR" in done.output
        assert "0 processes" in done.output
    assert not home.exists()


def test_a_home_can_be_named(home: Path, tmp_path: Path, run: str) -> None:
    """The shell's TFLEASE_HOME need not be the executors'."""
    claimed(home, run)
    other = tmp_path / "other"
    assert f"looked at {other}/claims" in reap("--run", run, "--home", str(other)).output
    assert json.loads(reap("--run", run, "--json").output)["leftovers"] != []


@pytest.mark.parametrize("setting", [None, "relative"])
def test_it_looks_where_members_would_have_their_claims(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, run: str, setting: str | None
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    monkeypatch.delenv("TFLEASE_HOME", raising=False)
    if setting is not None:
        monkeypatch.setenv("TFLEASE_HOME", setting)
    found = json.loads(reap("--run", run, "--json").output)
    assert found["directory"] == str(member_directory.claims_directory())


def test_a_home_that_others_may_write_to_is_refused(home: Path, run: str) -> None:
    """Its claims could name any process of ours."""
    claim = claimed(home, run)
    home.chmod(0o777)
    done = reap("--run", run, "--yes")
    assert done.exit_code == 1
    assert "mode 0700" in done.output
    assert claim.exists()


def test_claims_that_cannot_be_read_are_an_error(home: Path, run: str) -> None:
    home.mkdir(mode=0o700)
    (home / "claims").write_text("no directory")
    done = reap("--run", run)
    assert done.exit_code == 1
    assert f"the claims in {home}/claims cannot be read" in done.output
    assert "--home DIR" in done.output


@pytest.mark.parametrize("arguments", [(), ("--yes",)])
def test_a_broken_claim_is_named_and_never_removed(
    home: Path, run: str, arguments: tuple[str, ...]
) -> None:
    claim = claimed(home, run)
    broken = claim.with_name("broken.json")
    broken.write_text('{"marker": 5}')
    done = reap("--run", run, *arguments)
    assert done.exit_code == 0, done.output
    assert f"{broken} is no claim that can be understood" in done.output
    assert broken.exists()
    assert json.loads(reap("--run", run, "--json").output)["broken_claims"] == [str(broken)]


def test_a_list_changes_nothing_and_says_what_would_be_done(home: Path, run: str) -> None:
    claim = claimed(home, run)
    done = reap("--run", run)
    assert done.exit_code == 0
    assert f"worker:1 of run {run}" in done.output
    assert "the machine was started again since" in done.output
    assert "nobody is left but its claim" in done.output
    assert "nothing was changed: with --yes" in done.output
    assert claim.exists()


def test_with_yes_it_is_done_and_the_next_list_is_empty(home: Path, run: str) -> None:
    claim = claimed(home, run)
    done = reap("--run", run, "--yes")
    assert done.exit_code == 0, done.output
    assert f"[{run}/worker:1/a] was left behind" in done.output
    assert "nothing is left" in done.output
    assert not claim.exists()
    assert json.loads(reap("--run", run, "--json").output)["leftovers"] == []


def test_members_that_live_or_are_elsewhere_are_counted_and_left_alone(
    home: Path, run: str
) -> None:
    me = my_identity()
    lives = {"sentinel": (me.pid, me.create_time)}
    kept = [
        claimed(home, run, "a", boot_id=claims.here().boot_id, processes=lives),
        claimed(home, run, "b", host="another"),
    ]
    done = reap("--run", run, "--yes")
    assert done.exit_code == 0
    assert "1 member lives and is left alone" in done.output
    assert "1 claim is of other hosts or containers" in done.output
    assert all(path.exists() for path in kept)


def test_a_marked_process_without_a_sentinel_is_listed_and_ended(
    home: Path, run: str, start: Start
) -> None:
    who = start(f"{run}/chief:0/a")
    found = json.loads(reap("--run", run[:20], "--json").output)
    assert found["changed"] is False
    [leftover] = found["leftovers"]
    assert (leftover["run"], leftover["member"]) == (run, "chief:0")
    assert leftover["started_at"] is None
    [process] = leftover["processes"]
    assert (process["pid"], process["command"]) == (who.pid, "sleep 600")
    assert process["evidence"] == "marker"
    assert is_running(who)
    ended = json.loads(reap("--run", run, "--json", "--yes").output)
    assert ended["changed"] is True
    [leftover] = ended["leftovers"]
    assert (leftover["killed"], leftover["survived"]) == ([who.pid], [])
    assert leftover["processes"] == [process], "as it was before"
    assert not is_running(who)


def test_only_the_run_that_was_named_is_ended(home: Path, run: str, start: Start) -> None:
    wanted, other = start(f"{run}0/worker:0/a"), start(f"{run}1/worker:0/a")
    done = reap("--run", run, "--yes")
    assert done.exit_code == 2
    assert f"several runs begin with {run}: {run}0, {run}1" in done.output
    assert is_running(wanted)
    assert reap("--run", f"{run}0", "--yes").exit_code == 0
    assert not is_running(wanted)
    assert is_running(other)


def test_a_run_whose_id_begins_like_anothers_can_be_named(
    home: Path, run: str, start: Start
) -> None:
    wanted, other = start(f"{run}/worker:0/a"), start(f"{run}1/worker:0/a")
    assert reap("--run", run, "--yes").exit_code == 0
    assert not is_running(wanted)
    assert is_running(other)


@pytest.mark.slow
def test_what_survives_is_named_and_the_exit_code_says_so(
    home: Path, run: str, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """O12: SIGKILL without an effect, as in state D."""
    who = start(f"{run}/worker:0/a")
    monkeypatch.setattr(sweep, "signal_if_same", lambda identity, number: number == signal.SIGKILL)
    done = reap("--run", run, "--yes")
    assert done.exit_code == 1
    assert f"SIGKILL has not ended {who.pid} sleep 600" in done.output
    assert f"{who.pid} is in state {leftovers.kernel_state(who.pid)}" in done.output
    found = json.loads(reap("--run", run, "--yes", "--json").output)
    assert found["leftovers"][0]["survived"] == [who.pid]
