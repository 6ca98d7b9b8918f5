"""Keeps Python's collector of cycles away from what is there to stay.

A full collection looks at every object: with ten thousand sessions that takes about a second, in
which nobody is answered. So what has lived for some seconds is set aside (``gc.freeze``), and only
what is younger is looked at. Objects are freed by their reference counts all the same; cycles
that die after they were set aside are found once in a while, when everything is looked at.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

_log = logging.getLogger("tflease.coordinator")

FREEZE_INTERVAL = 10.0
"""Seconds between two collections of what is young."""

THRESHOLDS = (10_000, 10, 10)
"""So many new objects, and younger collections, before there is another: a call makes hundreds."""

FULL_INTERVAL = 6 * 3600.0
"""Seconds between two looks at everything."""


@asynccontextmanager
async def kept_out_of_the_way() -> AsyncIterator[None]:
    """On leaving the collector is as it was."""
    keeping = asyncio.create_task(_keep())
    try:
        yield
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)


async def _keep() -> None:
    before = gc.get_threshold()
    gc.set_threshold(*THRESHOLDS)
    full_at = time.monotonic() + FULL_INTERVAL
    try:
        while True:
            if time.monotonic() >= full_at:
                gc.unfreeze()
                full_at += FULL_INTERVAL
            began_at = time.perf_counter()
            gc.collect()
            gc.freeze()
            _log.debug("collected garbage in %.3f s", time.perf_counter() - began_at)
            await asyncio.sleep(FREEZE_INTERVAL)
    finally:
        gc.unfreeze()
        gc.set_threshold(*before)
