"""A cluster for each module that asks for one: others here start and stop sessions of their own,
and a process has one Spark context at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from examples.local_cluster import local_cluster
from tests.spark.conftest import CORES, EXECUTORS


@pytest.fixture(scope="module")
def spark() -> Iterator[Any]:
    with local_cluster(executors=EXECUTORS, cores=CORES) as session:
        yield session
