"""Which core measures what: the server has one, its clients have the others."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager


def cores() -> tuple[int, list[int]]:
    """The core of what is measured, and those of its clients; on a machine with one core they
    share it."""
    ours = sorted(os.sched_getaffinity(0))
    return ours[0], ours[1:] or ours


@contextmanager
def running_on(chosen: Collection[int]) -> Iterator[None]:
    """Processes that are started inside run there, with all of their threads; and the caller until
    it leaves. None chosen: anywhere."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, chosen or before)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
