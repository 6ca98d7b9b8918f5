"""What the tests of feeds share: members in one process, gone with all of their threads."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.feed.feed_scene import Scene, a_scene


@pytest.fixture
def scene() -> Iterator[Scene]:
    with a_scene() as scene:
        yield scene
