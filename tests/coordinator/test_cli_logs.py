"""`tflease logs --follow`: what members print, until the run has ended (E3)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from coordinator.cli import app, connection, logs
from coordinator.cli.place import Place
from coordinator.core.errors import CoordinatorUnavailable, TfleaseError, UnknownRun
from coordinator.core.log_values import LogChunk
from coordinator.core.model import (
    Cause,
    ExecutorInfo,
    ExitReport,
    IncarnationId,
    MemberId,
    MemberPhase,
    MemberView,
    Role,
    Roles,
    RunId,
    RunPhase,
    RunSpec,
    RunView,
)

LOG = b"one\ntwo\nthree\n"


class Client:
    """A coordinator whose run ends after a few looks, or that is away from then on."""

    def __init__(self, error: TfleaseError | None = None) -> None:
        self.error = error
        self.looks = 0
        executor = ExecutorInfo("host-a", "boot", 1, directory="/tmp/a")
        members = tuple(
            MemberView(
                MemberId(Role.WORKER, index),
                MemberPhase.RUNNING,
                0.0,
                IncarnationId(f"attempt-{index}"),
                executor,
            )
            for index in range(2)
        )
        spec = RunSpec(Roles(worker=2))
        self.run = RunView(RunId("3fa9"), spec, RunPhase.RUNNING, 1, members, 0.0, 1)

    def list(self) -> list[RunView]:
        return [self.run]

    def get(self, run_id: RunId) -> RunView:
        self.looks += 1
        if self.looks < 3:
            return self.run
        if self.error is not None:
            raise self.error
        report = ExitReport(Cause.COMPLETED, log_tail="one\ntwo\nthree\nlast words")
        members = tuple(
            replace(each, phase=MemberPhase.EXITED, exit=report) for each in self.run.members
        )
        return replace(self.run, phase=RunPhase.SUCCEEDED, members=members)

    def read_log(
        self, run_id: RunId, member: MemberId, offset: int | None = None, max_bytes: int = 0
    ) -> LogChunk:
        start = max(0, len(LOG) - max_bytes) if offset is None else offset
        return LogChunk(start, LOG[start : start + max_bytes], len(LOG), f"attempt-{member.index}")


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "_LOOK_INTERVAL", 0.01)
    monkeypatch.setattr(logs, "_PATIENCE", 0.3)


def tflease(client: Client, monkeypatch: pytest.MonkeyPatch, *words: str) -> tuple[int, list[str]]:
    @contextmanager
    def connect(place: Place) -> Iterator[SimpleNamespace]:
        found = SimpleNamespace(address="host:1", token_file="token", tls=None)
        with connection._explaining(found):  # type: ignore[arg-type]
            yield SimpleNamespace(client=client, address="host:1")

    monkeypatch.setattr(connection, "connect", connect)
    done = CliRunner().invoke(app, ["logs", *words])
    return done.exit_code, done.output.splitlines()


def test_it_goes_on_until_the_run_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    code, lines = tflease(Client(), monkeypatch, "3fa9", "--follow")
    assert code == 0
    for member in ("worker:0", "worker:1"):
        of_it = [line for line in lines if line.startswith(f"[{member}] ")]
        assert of_it == [f"[{member}] {text}" for text in ("one", "two", "three", "last words")]
    assert len(lines) == 8


def test_of_one_member_from_the_last_lines_on(monkeypatch: pytest.MonkeyPatch) -> None:
    found = tflease(Client(), monkeypatch, "3fa9", "worker:1", "-f", "--bytes", "6")
    assert found == (0, ["three", "last words"])


def test_a_coordinator_that_stays_away_is_not_waited_for_forever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client = Client(CoordinatorUnavailable("connection refused"))
    code, lines = tflease(client, monkeypatch, "3fa9", "worker:0", "--follow")
    assert lines[:3] == ["one", "two", "three"]
    assert lines[-1].startswith("[tflease] the run is not followed any more: no answer from its")
    assert code == connection.FAILED


def test_a_run_that_is_forgotten_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    code, lines = tflease(Client(UnknownRun("no run 3fa9")), monkeypatch, "3fa9", "--follow")
    assert code == connection.NO_SUCH_RUN
    assert lines[-1] == "tflease: no run 3fa9"


def test_lines_are_no_json(monkeypatch: pytest.MonkeyPatch) -> None:
    code, lines = tflease(Client(), monkeypatch, "3fa9", "--follow", "--json")
    assert (code, lines) == (
        connection.USAGE,
        ["tflease: --follow prints lines: leave out --json"],
    )
