"""Odd input on the command line is said in a sentence, and is no traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer
from typer.testing import CliRunner

from coordinator.cli import app, connection, events
from coordinator.cli.connection import Connection, Place
from coordinator.core import roster
from coordinator.core.errors import LimitExceeded
from coordinator.core.log_values import LogChunk
from coordinator.core.model import (
    MemberId,
    MemberPhase,
    MemberView,
    Roles,
    RunId,
    RunPhase,
    RunSpec,
    RunView,
)

ROOT = Path(__file__).parents[2]
NOW = 1.7e9


def tflease(home: Path, *arguments: str | bytes) -> subprocess.CompletedProcess[str]:
    """Of a user without any configuration, as a shell runs it."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TFLEASE_")}
    folders = {"XDG_CONFIG_HOME": str(home), "XDG_STATE_HOME": str(home), "COLUMNS": "200"}
    marks = {name: os.environ[name] for name in os.environ if name.startswith("TFLEASE_TEST")}
    done = subprocess.run(
        [sys.executable, "-m", "coordinator.cli", *arguments],
        env={**kept, **marks, **folders, "PYTHONPATH": str(ROOT)},
        cwd=home,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


# --- times ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["999999999d", "9" * 400 + "d", "0001-01-01T00:00+14:00"])
def test_a_time_that_no_calendar_has_is_refused(
    text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as refused:
        events.instant(text, "--since", NOW)
    assert refused.value.exit_code == connection.USAGE
    assert "should be within the years 1 to 9999" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text, at",
    [
        ("2m", NOW - 120),
        ("0001-01-01", -62135596800.0),
        ("9999-12-31T23:59:59", 253402300799.0),
    ],
)
def test_times_that_there_are_are_taken(text: str, at: float) -> None:
    assert events.instant(text, "--since", NOW) == at


# --- bytes that are no text -----------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "command, option",
    [
        (("events",), "--grep"),
        (("events",), "--kind"),
        (("stop", "3fa9"), "--reason"),
        (("leases", "clear", "5b2c"), "--reason"),
        (("leases", "quarantine", "5b2c"), "--reason"),
    ],
)
def test_bytes_that_are_no_text_are_refused_by_the_name_of_their_option(
    command: tuple[str, ...], option: str, tmp_path: Path
) -> None:
    refused = tflease(tmp_path, *command, option, b"\xff")
    assert refused.returncode == connection.USAGE
    assert option in refused.stderr
    assert "no text in UTF-8" in refused.stderr


# --- paths ----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments, said",
    [
        (("--token-file", "~no-such-user/t"), "no home folder for ~no-such-user/t"),
        (("--journal", "~no-such-user/j"), "no home folder for ~no-such-user/j"),
        (("--journal", "/"), "the journal / is a folder"),
        (("--tls-cert", "~no-such-user/c", "--tls-key", "k"), "~no-such-user/c does not exist"),
    ],
)
def test_a_daemon_is_not_started_with_such_a_path(
    arguments: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    refused = tflease(tmp_path, "serve", "--listen", "127.0.0.1:0", *arguments)
    assert refused.returncode in (connection.FAILED, connection.USAGE)
    assert said in refused.stderr
    assert not list(tmp_path.iterdir()), "nothing was made"


# --- logs -----------------------------------------------------------------------------------------


class LimitedClient:
    """Of a run of three, of which it gives the log of all but the second."""

    run = RunView(
        RunId("3fa9"),
        RunSpec(Roles(worker=3)),
        RunPhase.RUNNING,
        0,
        tuple(
            MemberView(slot, MemberPhase.RUNNING, 0.0) for slot in roster.members(Roles(worker=3))
        ),
        0.0,
        revision=1,
    )

    def list(self) -> list[RunView]:
        return [self.run]

    def read_log(self, run_id: RunId, member: MemberId, max_bytes: int) -> LogChunk:
        if member.index == 1:
            raise LimitExceeded("that is too much at once", {})
        data = f"of {member}".encode()
        return LogChunk(0, data, len(data))


def test_a_log_beyond_a_limit_does_not_end_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def connect(place: Place) -> Iterator[SimpleNamespace | Connection]:
        yield SimpleNamespace(client=LimitedClient(), address="host:1")

    monkeypatch.setattr(connection, "connect", connect)
    done = CliRunner().invoke(app, ["logs", "3fa9"])
    assert done.exit_code == connection.FAILED
    assert "worker:1: that is too much at once" in done.output
    assert "of worker:0" in done.output
    assert "of worker:2" in done.output
