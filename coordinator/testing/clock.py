"""A clock that goes only when the test says so."""

from __future__ import annotations

from coordinator.core import events
from coordinator.engine import TICK_INTERVAL, Engine


class ManualClock:
    """Time for an ``Engine``: timeouts of minutes pass in microseconds, and never by accident.

    ::

        clock = ManualClock()
        async with serving(clock=clock) as coordinator:
            run_id = coordinator.create_run(RunSpec(Roles(worker=1), reservation_timeout=60))
            clock.advance(60)
            run = await coordinator.ended(run_id)
        assert "worker:0: task not scheduled" in run.failure.summary

    Members that are to live through it must beat meanwhile: ``FakeGang.pass_time``.
    """

    def __init__(self, start: float = 1_000_000.0) -> None:
        self._now = start
        self._engines: list[Engine] = []

    def __call__(self) -> float:
        """Now, in seconds."""
        return self._now

    def attach(self, engine: Engine) -> None:
        """``engine``, made with this clock, notices from now on when time passes."""
        self._engines.append(engine)

    def advance(self, seconds: float) -> None:
        """Time passes, and the coordinator runs all the while. On return every deadline that has
        come had its effect."""
        end = self._now + seconds
        while self._now < end:
            self._now = min(self._now + TICK_INTERVAL, end)
            for engine in self._engines:
                engine.feed(events.TimePassed())

    def pause_coordinator(self, seconds: float) -> None:
        """Time passes while the coordinator does not run (SIGSTOP, a suspended laptop): it
        finds out with whatever happens next."""
        self._now += seconds
