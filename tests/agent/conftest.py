"""An object store and members that save to it. The store starts with the first test that asks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from executor_agent.model_files import StoreError
from tests.agent.store_member import DEADLINE, Member, forget_connections
from tests.conftest import LongLived
from tests.object_store import ObjectStore


@pytest.fixture(scope="module")
def server(long_lived: LongLived) -> Iterator[ObjectStore]:
    with ObjectStore() as store:
        long_lived.allow_tree(store.pid)
        forget_connections()
        yield store
    forget_connections()


@pytest.fixture
def store(server: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    server.clear()
    server.put("s3://bucket/others/keep", b"")
    yield server
    server.allow_everybody()


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Member]]:
    made: list[Member] = []

    def make(*args: Any, **options: Any) -> Member:
        made.append(Member(tmp_path, *args, **options))
        return made[-1]

    yield make
    for member in made:
        if member.ctx._store is not None and member.ctx._store._uploader is not None:
            with suppress(StoreError):  # the test's own business; the thread is a daemon
                member.finish(0.0)
        member.progress.close(DEADLINE)
