"""Counts calls and how long they take."""

from __future__ import annotations

import grpc

from coordinator.calls import Aspect, Call
from coordinator.limiting import STREAMS
from coordinator.tallies import Tallies


class MetricsAspect(Aspect):
    """The outermost aspect, so that what the others refuse is counted, too. A call without a good
    token never comes here."""

    def __init__(self, tallies: Tallies) -> None:
        self._tallies = tallies

    def begin(self, call: Call) -> None:
        self._tallies.open_calls[call.name] += 1

    def end(self, call: Call, code: grpc.StatusCode) -> None:
        self._tallies.open_calls[call.name] -= 1
        self._tallies.calls[call.name, code.name] += 1
        if call.name not in STREAMS:  # those are open for as long as somebody likes
            self._tallies.durations[call.name].since(call.started_at)
