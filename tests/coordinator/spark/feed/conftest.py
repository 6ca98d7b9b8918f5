"""A scene for each test, whose threads must all end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from coordinator.core.model import Roles
from tests.coordinator.spark.feed.fake_feeding import FakeKeeper, FakeSpark, Scene, install

Make = Callable[..., Scene]

TWO_WORKERS = Roles(worker=2)


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Makes scenes: ``scene(work, roles=...)``."""
    made: list[Scene] = []

    def make(*work: Any, roles: Roles = TWO_WORKERS, conf: Any = None, **more: Any) -> Scene:
        keeper = FakeKeeper()
        install(monkeypatch, keeper)
        made.append(Scene(roles, FakeSpark(*work, **(conf or {})), keeper, **more))
        return made[-1]

    yield make
    for each in made:
        for thread in each.spark.threads:
            thread.join(30)
            assert not thread.is_alive()
