"""Calls to the keeper of a run's feeds: directly where the driver reaches it, else by a Spark job
of one task, which runs where members are reached."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from coordinator.core.errors import FeedFailed, FeedStalled
from coordinator.spark.gateway import Gateway, Profile
from executor_agent.core.feed_values import FeedEndpoint, FeedKey
from executor_agent.feed import control
from executor_agent.feed.wire import FeedRefused, FeedUnreachable

_log = logging.getLogger("tflease")


class KeeperUnreachable(FeedFailed):
    """Rank 0 does not answer, or not any more. It has mostly ended, which its run will tell."""


class Control:
    """The keeper of one run, as its driver speaks with it. Thread-safe; each call blocks, so call
    it on a thread of Spark's (``Gateway.thread``)."""

    def __init__(
        self,
        gateway: Gateway,
        endpoint: FeedEndpoint,
        key: FeedKey,
        description: str,
        profile: Profile | None = None,
    ) -> None:
        self._gateway = gateway
        self._endpoint = endpoint
        self._key = key.for_feeders()
        self._description = description
        self._profile = profile
        self._lock = threading.Lock()
        self._is_direct: bool | None = None  # not known yet

    def call(
        self, request: Mapping[str, Any], timeout: float, tags: Sequence[str]
    ) -> Mapping[str, Any]:
        """The keeper's answer. ``tags``: of the job, if it takes one.

        Raises FeedStalled when what was asked for did not come about within ``timeout`` seconds,
        with the keeper's reasons; FeedFailed when it cannot come about; KeeperUnreachable; and
        what Spark raises.
        """
        asked_at = time.monotonic()
        reply = self._call_directly(request, timeout)
        if reply is None:
            reply = self._call_by_job(request, timeout, tags)
        if reply.get("error"):
            is_late = time.monotonic() - asked_at >= timeout
            raise (FeedStalled if is_late else FeedFailed)(f"{_spelled(request)}: {reply['error']}")
        return reply

    def _call_directly(
        self, request: Mapping[str, Any], timeout: float
    ) -> Mapping[str, Any] | None:
        """None where there is no way: whoever answers at that address here may be somebody else."""
        with self._lock:
            is_direct = self._is_direct
        if is_direct is False:
            return None
        try:
            reply = control.call(self._endpoint, self._key, request, timeout)
        except (FeedUnreachable, FeedRefused) as error:
            if is_direct:
                raise KeeperUnreachable(f"{_spelled(request)}: {error}") from error
            _log.debug("calling the keeper by a Spark job: %s", error)
            reply = None
        with self._lock:
            self._is_direct = reply is not None
        return reply

    def _call_by_job(
        self, request: Mapping[str, Any], timeout: float, tags: Sequence[str]
    ) -> Mapping[str, Any]:
        task = control.ControlTask(self._endpoint, self._key, dict(request), timeout)
        rows = self._gateway.run_one(
            task, control.CONTROL_ROW_SCHEMA, tags, self._description, self._profile
        )
        try:
            return control.reply_of(rows[0]["reply"])
        except (FeedUnreachable, FeedRefused) as error:
            raise KeeperUnreachable(f"{_spelled(request)}: {error}") from error


def _spelled(request: Mapping[str, Any]) -> str:
    what = {"open": "opening feed", "close": "closing an epoch of feed", "end": "ending feed"}
    call = str(request.get("call"))
    return f"{what.get(call, f'{call} of feed')} {request.get('feed')!r}"
