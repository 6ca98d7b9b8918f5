"""How a train goes from one generation of the gang to the next.

A generation's rows are gone with it. What its members had read is known (``delivery``); the rest is
sent to the next one, as a train of another number, as soon as that is at work.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from coordinator.core.errors import FeedStalled
from coordinator.spark.feed import consumers
from coordinator.spark.feed.accounts import FeederRow
from coordinator.spark.feed.delivery import Reading
from coordinator.spark.feed.finished import FinishedTrains
from coordinator.spark.feed.homecoming import Homecoming
from coordinator.spark.feed.open_train import OpenTrain, feed_tag
from coordinator.spark.feed.watch import FeedStopped, GangRestarts

if TYPE_CHECKING:
    from coordinator.spark.feed.feeding import Feeding


class Generations:
    """Of one run. ``homecoming``: what feeders deliver; ``finished``: feeds that nobody fills."""

    def __init__(self, feeding: Feeding) -> None:
        self._feeding = feeding
        self.homecoming = Homecoming()
        self.finished = FinishedTrains(feeding)

    def enter(self, train: OpenTrain, first: int) -> None:
        """Opens the train in the generation that is at work, or is to come, which begins with epoch
        ``first``. Raises as ``Feeding.train``."""
        while not train.stopped:
            try:
                run = train.watch.wait_for_gang()
                if run.generation != train.watch.generation:
                    self._renew(train)
                self._feeding.open(train, first)
                return
            except GangRestarts:
                pass  # the one after it, then
            except FeedStopped as reason:
                train.stopped = str(reason)

    def _renew(self, train: OpenTrain) -> None:
        """What is left of an earlier generation is told from this one by its number."""
        run = self._feeding.session.view
        train.number = self._feeding.next_number(train.feed)
        train.tags = (train.tags[0], feed_tag(run, train.feed, train.number))
        train.workers = consumers.endpoints(run)
        train.control = self._feeding.control(run)
        train.readings, train.arrived = {}, 0
        train.watch.go_on(train.number, train.tags[1], run.generation)

    def leave(self, train: OpenTrain, *, repeat: bool) -> int | None:
        """The gang is gone. The first epoch that it had not read to its end; None: it had read all
        that it was fed. ``repeat``: such epochs are sent from their beginning."""
        self._take_home(train)
        first = train.delivery.restart(self._readings(train), repeat=repeat)
        if first is not None:
            train.reports = [report for report in train.reports if report.number < first]
        left = () if first is None else train.delivery.before(first)
        train.before = sum(row.rows + row.skipped for row in left)
        train.before += sum(report.rows for report in train.reports)
        return first

    def tidy(self, train: OpenTrain) -> None:
        """Before an epoch: what need not be known any more."""
        self._take_home(train)
        train.delivery.forget_read(self._readings(train))

    def _take_home(self, train: OpenTrain) -> None:
        """What feeders have delivered, also those of a job that was cut short."""
        if train.epoch is not None:
            found = self.homecoming.take(train.feed, train.number, train.epoch)
            train.delivery.note(train.epoch, map(FeederRow.of, found))

    def _readings(self, train: OpenTrain) -> dict[str, Reading]:
        members = map(str, consumers.fed_members(self._feeding.roles))
        return {member: train.readings.get(member, Reading()) for member in members}

    def wait_until_read(self, train: OpenTrain) -> None:
        """What waits in the members would be lost with them: where the gang may be restarted, the
        rows are delivered when the members have read them. Raises GangRestarts, and as ``train``
        when the run is over."""
        epoch = train.epoch
        if not train.survives or train.stopped or epoch is None:
            return
        # Members that read no further keep nobody waiting for ever, and neither does their end.
        with suppress(FeedStopped, FeedStalled):
            train.watch.until(lambda: train.delivery.is_read(epoch, self._readings(train)))
