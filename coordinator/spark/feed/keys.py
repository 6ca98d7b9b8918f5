"""The key of a run's feeds, made by its driver and delivered in the closures of its Spark tasks.

Nothing of it passes through the coordinator: with a standalone one, too, rows go from feeders to
members and nowhere else.
"""

from __future__ import annotations

import secrets

from coordinator.authority import self_signed
from executor_agent.core.feed_values import SERVER_NAME, FeedKey

_SECRET_BYTES = 32


def make_key() -> FeedKey:
    """A new one. Members share one certificate: who has its key is of the run, and which member it
    is, its endpoint says."""
    certificate, private_key = self_signed(SERVER_NAME)
    return FeedKey(secrets.token_bytes(_SECRET_BYTES), certificate, private_key)
