"""One Spark cluster of separate executor processes for all tests here: its start costs 15 s."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from examples.local_cluster import local_cluster

EXECUTORS = 2
CORES = 3


@pytest.fixture(scope="session")
def spark() -> Iterator[Any]:
    with local_cluster(executors=EXECUTORS, cores=CORES) as session:
        yield session


@pytest.fixture
def slots() -> int:
    """Task slots of the shared cluster."""
    return EXECUTORS * CORES


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """A file whose appearance lets something go on."""
    return tmp_path / "gate"
