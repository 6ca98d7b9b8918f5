"""An owner comes back to a daemon that was away; of an embedded coordinator there is no coming
back."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from coordinator.core.errors import (
    CoordinatorUnavailable,
    LimitExceeded,
    Unauthenticated,
    UnknownRun,
)
from coordinator.core.model import Roles, RunId, RunPhase, RunSpec, RunView
from coordinator.spark import following

RUN = RunId("run")
FORMING = RunView(RUN, RunSpec(Roles(worker=1)), RunPhase.FORMING, 0, (), 0.0, 1)
RUNNING = replace(FORMING, phase=RunPhase.RUNNING)
SUCCEEDED = replace(FORMING, phase=RunPhase.SUCCEEDED)
AWAY = CoordinatorUnavailable("connection refused")
PATIENT = 60.0


class Client:
    """Each session is a list of pictures, with an error at its end, or none."""

    def __init__(self, *sessions: list[RunView | Exception]) -> None:
        self._sessions = list(sessions)
        self.calls: list[str] = []

    def watch(self, run_id: RunId) -> Iterator[RunView]:
        return self._play("watch")

    def own(self, run_id: RunId) -> Iterator[RunView]:
        return self._play("own")

    def _play(self, call: str) -> Iterator[RunView]:
        self.calls.append(call)
        for each in self._sessions.pop(0) if self._sessions else [AWAY]:
            if isinstance(each, Exception):
                raise each
            yield each


@pytest.fixture(autouse=True)
def _quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "_FIRST_DELAY", 0.001)
    monkeypatch.setattr(following, "_LONGEST_DELAY", 0.002)


def follow(
    client: Client, patience: float = PATIENT, closed: threading.Event | None = None
) -> Iterator[RunView]:
    return following.views(client, RUN, patience, closed or threading.Event())  # type: ignore[arg-type]


def test_a_daemon_that_was_away_is_followed_on(caplog: pytest.LogCaptureFixture) -> None:
    client = Client([FORMING, AWAY], [AWAY], [], [RUNNING, AWAY], [SUCCEEDED])
    with caplog.at_level(logging.WARNING, "tflease"):
        assert list(follow(client)) == [FORMING, RUNNING, SUCCEEDED]
    assert client.calls == ["own"] * 5
    said = ["is back" if "is back" in text else "out of reach" for text in caplog.messages]
    assert said == ["out of reach", "is back"] * 2


def test_the_stream_of_an_embedded_coordinator_that_lives_comes_back() -> None:
    """O13: a driver that was stopped for a while, by Ctrl-Z or a debugger, has lost its stream and
    nothing else."""
    client = Client([FORMING, AWAY], [AWAY], [SUCCEEDED])
    found = following.views(client, RUN, 0.0, threading.Event(), lambda: False)  # type: ignore[arg-type]
    assert list(found) == [FORMING, SUCCEEDED]
    assert client.calls == ["watch"] * 3


def test_one_that_has_ended_is_not_waited_for() -> None:
    client = Client([FORMING, AWAY], [SUCCEEDED])
    found = following.views(client, RUN, 0.0, threading.Event(), lambda: True)  # type: ignore[arg-type]
    with pytest.raises(CoordinatorUnavailable):
        list(found)
    assert client.calls == ["watch"]


def test_an_embedded_coordinator_that_is_away_is_gone(caplog: pytest.LogCaptureFixture) -> None:
    client = Client([FORMING, AWAY], [SUCCEEDED])
    with pytest.raises(CoordinatorUnavailable, match="connection refused"):
        list(follow(client, patience=0.0))
    assert client.calls == ["watch"]
    assert caplog.messages == []


def test_patience_ends() -> None:
    client = Client([FORMING, AWAY])
    with pytest.raises(CoordinatorUnavailable, match="connection refused"):
        list(follow(client, patience=0.05))
    assert len(client.calls) > 2


def test_a_daemon_that_was_restarted_has_lost_the_run() -> None:
    """Its runs live in its memory, so there is nothing to wait for."""
    client = Client([FORMING, AWAY], [UnknownRun("no such run")], [SUCCEEDED])
    with pytest.raises(CoordinatorUnavailable, match="it was restarted"):
        list(follow(client))


def test_an_error_that_time_does_not_heal_ends_it_at_once() -> None:
    client = Client([FORMING, AWAY], [Unauthenticated("another token")], [SUCCEEDED])
    with pytest.raises(Unauthenticated):
        list(follow(client))


def test_a_run_that_was_shut_down_is_not_gone_back_to() -> None:
    closed = threading.Event()
    pictures = follow(Client([FORMING, AWAY], [SUCCEEDED]), closed=closed)
    assert next(pictures) is FORMING
    closed.set()
    with pytest.raises(CoordinatorUnavailable):
        next(pictures)


def failing(*errors: Exception) -> Callable[[], None]:
    left = list(errors)

    def call() -> None:
        if left:
            raise left.pop(0)

    return call


def test_a_report_is_repeated_until_it_was_heard() -> None:
    assert following.persistently(failing(AWAY, AWAY), PATIENT, threading.Event()) is None


def test_a_limit_of_the_coordinators_is_no_end_of_a_report() -> None:
    busy = LimitExceeded("come again later")
    assert following.persistently(failing(busy, busy), PATIENT, threading.Event()) is None


@pytest.mark.parametrize("patience", [0.0, 0.01])
def test_a_report_that_nobody_hears_is_given_up(patience: float) -> None:
    call = failing(*[AWAY] * 10_000)
    assert following.persistently(call, patience, threading.Event()) is AWAY


def test_a_report_is_not_repeated_after_the_end() -> None:
    closed = threading.Event()
    closed.set()
    assert following.persistently(failing(AWAY), PATIENT, closed) is AWAY


def test_a_report_that_was_refused_is_not_repeated() -> None:
    with pytest.raises(UnknownRun):
        following.persistently(failing(UnknownRun("no such run")), PATIENT, threading.Event())
