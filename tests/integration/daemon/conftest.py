"""A user's home, and the daemons that are started there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.daemon.process import Daemon, Home, StartDaemon


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


@pytest.fixture
def start(home: Home) -> Iterator[StartDaemon]:
    started: list[Daemon] = []

    def start_one(port: int = 0, *arguments: str, program: tuple[str, ...] = ()) -> Daemon:
        started.append(Daemon(home, port, *arguments, program=program))
        return started[-1]

    yield start_one
    for daemon in started:
        daemon.close()


@pytest.fixture
def daemon(start: StartDaemon) -> Daemon:
    return start()
