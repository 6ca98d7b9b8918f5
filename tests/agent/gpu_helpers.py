"""A host of fake GPUs, for tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from coordinator.core.gpu import LeaseToken
from coordinator.testing import FakeGpus
from executor_agent.gpus import HostGpus


def here(fake: FakeGpus, assigned: tuple[str, ...] | None = None, **environ: str) -> HostGpus:
    return HostGpus.here(assigned, fake.environ | environ)


def token(number: int, coordinator_id: str = "c1") -> LeaseToken:
    return LeaseToken(coordinator_id, number)


@contextmanager
def claimed(gpus: HostGpus, uuids: list[str], number: int = 1) -> Iterator[list[int]]:
    taken, refused = gpus.claim({uuid: token(number) for uuid in uuids}, "worker:0 of run r1")
    assert not refused
    try:
        yield list(taken.values())
    finally:
        for fd in taken.values():
            os.close(fd)
