"""A store that speaks S3's protocol for the tests of this folder, and members to fetch from it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from executor_agent.context import Assignment, Context
from executor_agent.progress import ProgressReporter
from executor_agent.watcher import StopSignal
from tests.object_store import ObjectStore

SPEC = {
    "chief": ("localhost:1",),
    "worker": ("localhost:2", "localhost:3"),
    "ps": ("localhost:4",),
    "evaluator": ("localhost:5",),
}
MakeMember = Callable[..., "Member"]


class Member:
    """A context as `main_fun` gets it, and what it says of its progress."""

    def __init__(self, name: str, local_dir: Path) -> None:
        job_name, _, index = name.partition(":")
        local_dir.mkdir(exist_ok=True)
        self.said: list[Mapping[str, Any]] = []
        self.stop = StopSignal()
        self.progress = ProgressReporter(self.said.append, interval=0.02)
        assignment = Assignment(
            run_id="run",
            generation=1,
            job_name=job_name,
            task_index=int(index),
            cluster_spec=SPEC,
            executor_id="1",
            local_dir=str(local_dir),
            log_dir=None,
            model_dir=None,
        )
        self.ctx = Context(assignment, self.stop, self.progress)


@pytest.fixture
def member(tmp_path: Path) -> Iterator[MakeMember]:
    with ExitStack() as stack:

        def make(name: str = "chief:0") -> Member:
            made = Member(name, tmp_path / name.replace(":", "-"))
            stack.callback(made.progress.close, 5.0)
            return made

        yield make


@pytest.fixture(scope="session")
def _object_store(long_lived: Any) -> Iterator[ObjectStore]:
    with ObjectStore() as store:
        long_lived.allow_tree(store.pid)
        yield store


@pytest.fixture
def store(_object_store: ObjectStore) -> Iterator[ObjectStore]:
    """Empty, and open to everybody."""
    yield _object_store
    _object_store.allow_everybody()
    _object_store.clear()
