"""One `train` under way: what is known of it while its epochs are fed."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from coordinator.core.model import RunView
from coordinator.spark.feed.control import Control
from coordinator.spark.feed.counters import Counters
from coordinator.spark.feed.delivery import Delivery, Reading, readings
from coordinator.spark.feed.progress import FeedProgress
from coordinator.spark.feed.report import EpochReport, FeedReport
from coordinator.spark.feed.watch import Watch
from executor_agent.core.feed_values import FeedEndpoint


@dataclass
class OpenTrain:
    """A train under way. ``epochs``: how many there will be; None: as many as come. ``stopped``:
    why the members want no more; "" while they do.

    A gang that was restarted gets it as a train of another ``number``. ``earlier``: trains of the
    feed before this one. ``survives``: whether it outlives its gang, so that what the members read
    is kept in mind. ``before``: rows that earlier generations had read.
    """

    feed: str
    number: int
    epochs: int | None
    earlier: int
    survives: bool
    feed_timeout: float
    tags: tuple[str, ...]
    workers: tuple[FeedEndpoint, ...]
    control: Control
    watch: Watch
    progress: FeedProgress
    began_at: float
    epoch: int | None = None
    arrived: int = 0
    reports: list[EpochReport] = field(default_factory=list)
    stopped: str = ""
    before: int = 0
    delivery: Delivery = field(default_factory=Delivery)
    readings: dict[str, Reading] = field(default_factory=dict)

    def request(self, call: str, **more: Any) -> dict[str, Any]:
        """For the keeper."""
        return {"call": call, "feed": self.feed, "train": self.number, **more}

    def saw(self, counters: Counters) -> None:
        """What the members count now."""
        self.arrived = counters.total("rows")
        self.readings |= readings(counters)
        if self.epoch is not None:
            self.progress.show(self.epoch, self.arrived)

    def report(self) -> FeedReport:
        """As it stands."""
        fed = sum(epoch.rows for epoch in self.reports)
        return FeedReport(
            feed=self.feed,
            epochs=tuple(self.reports),
            seconds=time.monotonic() - self.began_at,
            stopped=self.stopped,
            unfinished=max(0, self.before + self.arrived - fed) if self.stopped else 0,
        )


def feed_tag(run: RunView, feed: str, number: int) -> str:
    """Of the jobs of one train in one generation."""
    return f"tflease-{run.run_id}-feed-{feed}-{number}"
