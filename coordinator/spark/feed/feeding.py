"""Feeding the members of a run from Spark: one job for each epoch, over the keeper's word.

Owns: what `cluster.train` does from its call to its report. The thread that calls watches (see
``watch``); jobs and calls to the keeper run on threads of Spark's. A *train* is one call, with a
number of its own for each feed, so that what an earlier one left behind is told from the next.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from typing import Any

from coordinator.core.errors import FeedFailed, FeedStalled, InvalidRun, TfleaseError
from coordinator.core.model import Roles, RunView
from coordinator.spark import profiles
from coordinator.spark.feed import accounts, consumers, determinism, homecoming, preflight
from coordinator.spark.feed.accounts import Closed, FeederRow
from coordinator.spark.feed.aside import ASIDE, aside, state
from coordinator.spark.feed.control import Control, KeeperUnreachable
from coordinator.spark.feed.errand import Errand
from coordinator.spark.feed.generations import Generations
from coordinator.spark.feed.open_train import OpenTrain, feed_tag
from coordinator.spark.feed.progress import FeedProgress
from coordinator.spark.feed.report import EpochReport, FeedReport
from coordinator.spark.feed.watch import FeedStopped, GangRestarts, Watch
from coordinator.spark.gateway import Gateway, Profile
from coordinator.spark.progress import ProgressLine
from coordinator.spark.session import RunSession
from executor_agent.core.feed_values import FeedEndpoint, FeedKey
from executor_agent.feed.feeder import Feeder
from executor_agent.feed.methods import INPUT

__all__ = ["DEFAULT_FEED", "FIRST_EPOCH", "RESUME", "Feeding", "OpenTrain"]

_log = logging.getLogger("tflease")

FIRST_EPOCH = 1

DEFAULT_FEED = INPUT


RESUME, REPEAT = "resume", "repeat"
"""What becomes of an epoch that is under way when the gang is restarted."""

_Fed = tuple[EpochReport, list[FeederRow], Closed]


class Feeding:
    """The feeds of one run. Thread-safe: several feeds may be filled at once (F7).

    ``key``: None for a run that Spark does not feed. ``anchor``: of the run. ``line``: where
    progress is shown; None: nowhere.
    """

    def __init__(
        self,
        gateway: Gateway,
        session: RunSession,
        key: FeedKey | None,
        name: str,
        roles: Roles,
        *,
        anchor: str = "task",
        line: ProgressLine | None = None,
    ) -> None:
        self.gateway = gateway
        self.session = session
        self.key = key
        self.name = name
        self.roles = roles
        self.anchor = anchor
        self._line = line
        self._lock = threading.Lock()
        self._trains: Counter[str] = Counter()
        self._calls: Counter[str] = Counter()
        self._filled: dict[str, OpenTrain | None] = {}
        self.generations = Generations(self)
        self._controls: dict[FeedEndpoint, Control] = {}

    def train(
        self,
        data: Any,
        num_epochs: int,
        *,
        feed: str = DEFAULT_FEED,
        deterministic: bool | None = None,
        feed_timeout: float = 600.0,
        on_restart: str = RESUME,
    ) -> FeedReport:
        """Feeds all rows of ``data``, a DataFrame or an RDD, ``num_epochs`` times. See
        ``FedCluster.train``."""
        preflight.check_epochs(num_epochs)
        preflight.check_on_restart(on_restart)
        preflight.check_is_fed(self.key is not None)
        preflight.check_data(data)
        if preflight.is_streaming(data):
            raise InvalidRun("a stream has no epochs: cluster.train(stream) feeds it as it comes")
        train = self.open_train(feed=feed, epochs=num_epochs, feed_timeout=feed_timeout)
        epoch = FIRST_EPOCH
        try:
            while epoch < FIRST_EPOCH + num_epochs and not train.stopped:
                try:
                    self.feed_epoch(train, epoch, data, deterministic=deterministic)
                    epoch += 1
                    if epoch == FIRST_EPOCH + num_epochs:
                        self.generations.wait_until_read(train)
                except GangRestarts:
                    left = self.generations.leave(train, repeat=on_restart == REPEAT)
                    epoch = epoch if left is None else left
                    if epoch < FIRST_EPOCH + num_epochs:
                        self.generations.enter(train, epoch)
            return self.end_train(train)
        except BaseException as error:
            self.abandon_train(train, error)
            raise

    def stop(self, feed: str, reason: str) -> bool:
        """Ends the train that fills this feed, from another thread. Returns at once; False when
        there is none."""
        with self._lock:
            train = self._filled.get(feed)
        if train is not None:
            train.watch.stop(reason)
        return train is not None

    # -- one by one, for streams -----------------------------------------------------------------

    def open_train(
        self, *, feed: str = DEFAULT_FEED, epochs: int | None, feed_timeout: float = 600.0
    ) -> OpenTrain:
        """Tells the keeper of a new train. It must be ended, or abandoned. Raises InvalidRun while
        this feed is being filled already; otherwise as ``train``."""
        preflight.check_feed(feed, feed_timeout)
        preflight.check_is_fed(self.key is not None)
        preflight.check_spark(self.gateway, self.session.view, self.anchor)
        with self._lock:
            if feed in self._filled:
                raise InvalidRun(
                    f"feed {feed!r} is being filled already: wait for that to end, or name another "
                    'one (train(..., feed="validation"), and in main_fun the same)'
                )
            self._filled[feed] = None
            self._calls[feed] += 1
        try:
            train = self._new_train(feed, self.next_number(feed), epochs, feed_timeout)
        except BaseException:
            with self._lock:
                del self._filled[feed]
            raise
        with self._lock:
            self._filled[feed] = train
        try:
            self.generations.enter(train, FIRST_EPOCH)
        except BaseException as error:
            self.abandon_train(train, error)
            raise
        return train

    def next_number(self, feed: str) -> int:
        """For what the members are to tell from all that came before."""
        with self._lock:
            self._trains[feed] += 1
            return self._trains[feed]

    def earlier(self, feed: str) -> int:
        """How many calls of ``train`` for this feed came before the latest."""
        with self._lock:
            return self._calls[feed] - 1

    def _new_train(
        self, feed: str, number: int, epochs: int | None, feed_timeout: float
    ) -> OpenTrain:
        run, members = self.session.view, consumers.fed_members(self.roles)
        workers = consumers.endpoints(run)
        tag = feed_tag(run, feed, number)
        watch = Watch(self.gateway, self.session, members, feed, number, tag, feed_timeout)
        train = OpenTrain(
            feed=feed,
            number=number,
            epochs=epochs,
            earlier=self.earlier(feed),
            survives=run.spec.restart.is_enabled,
            feed_timeout=feed_timeout,
            tags=(f"tflease-{run.run_id}", tag),
            workers=workers,
            control=self.control(run),
            watch=watch,
            progress=FeedProgress(self._line, feed, epochs, len(workers)),
            began_at=time.monotonic(),
        )
        watch.listeners = replace(
            watch.listeners,
            moved=train.saw,
            has_ended=lambda: str(state(self.gateway, train).get("ended") or ""),
            diagnosis=lambda: list(map(str, state(self.gateway, train).get("text") or ())),
        )
        return train

    def _tag(self, feed: str, number: int) -> str:
        return f"tflease-{self.session.view.run_id}-feed-{feed}-{number}"

    def control(self, run: RunView) -> Control:
        """To the keeper; one for all trains: it has found out how that is reached."""
        assert self.key is not None
        keeper = consumers.endpoint(run, consumers.keeper(self.roles))
        with self._lock:
            if keeper not in self._controls:
                description = f"tflease {self.name}: a word with {keeper.member}"
                self._controls[keeper] = Control(
                    self.gateway, keeper, self.key, description, self._profile()
                )
            return self._controls[keeper]

    def _profile(self) -> Profile | None:
        return profiles.of_feeders(profiles.GpuSettings.of(self.gateway))

    def open(self, train: OpenTrain, first: int) -> None:
        """In the generation at work, which begins with this epoch. Raises FeedStopped, GangRestarts
        and what ``train`` does."""
        workers = [endpoint.to_json() for endpoint in train.workers]
        request = train.request("open", epochs=train.epochs, workers=workers)
        if train.survives:
            request |= {"first": first, "earlier": train.earlier}

        def work(errand: Errand[None]) -> None:
            errand.is_with_keeper = True
            reply = train.control.call(request, train.feed_timeout, train.tags)
            if reply.get("stopped"):
                raise FeedStopped(str(reply["stopped"]))

        train.watch.during(work)
        self.generations.finished.has_opened(train.feed, train.watch.generation)

    def feed_epoch(
        self, train: OpenTrain, epoch: int, data: Any, *, deterministic: bool | None = None
    ) -> EpochReport | None:
        """Feeds all rows of ``data`` once; they are epoch number ``epoch``, which grows. None, and
        ``train.stopped`` says why, when the members want no more. Raises as ``train``, and
        GangRestarts."""
        if train.stopped:
            return None
        if train.survives:
            self.generations.tidy(train)
        train.epoch = epoch

        def work(errand: Errand[_Fed]) -> _Fed:
            return self._feed(train, epoch, data, deterministic, errand)

        try:
            report, rows, closed = train.watch.during(work)
        except FeedStopped as reason:
            train.stopped = str(reason)
            return None
        train.delivery.note(epoch, rows)
        train.delivery.close(epoch, closed)
        # A stream may bring an epoch again, which members have closed and do not take twice.
        train.reports = [*(each for each in train.reports if each.number != epoch), report]
        return report

    def _feed(
        self,
        train: OpenTrain,
        epoch: int,
        data: Any,
        asked: bool | None,
        errand: Errand[_Fed],
    ) -> _Fed:
        """On a thread of Spark's."""
        assert self.key is not None
        began_at = time.monotonic()
        deterministic = determinism.is_deterministic(data, asked)
        leave_out: frozenset[int] = frozenset()
        errand.check()
        if train.survives:
            cut = homecoming.partitioning(data, deterministic=deterministic)
            leave_out = train.delivery.begin(epoch, cut)
        feeder = Feeder(
            endpoints=train.workers,
            key=self.key.for_feeders(),
            feed=train.feed,
            train=train.number,
            epoch=epoch,
            deterministic=deterministic,
            leave_out=leave_out,
            account=self.generations.homecoming.account(data) if train.survives else None,
        )
        description = f"tflease {self.name}: feeding {train.feed}, epoch {epoch}"
        errand.check()
        found = self.gateway.run_feed(data, feeder, train.tags, description, self._profile())
        rows = [FeederRow.of(row) for row in found]
        stopped = accounts.stopped(rows)
        if stopped:
            raise FeedStopped(stopped)
        errand.check()
        errand.is_with_keeper = True
        reply = train.control.call(
            train.request("close", epoch=epoch), train.feed_timeout, train.tags
        )
        closed = Closed.of(reply)
        if closed.stopped:
            raise FeedStopped(closed.stopped)
        seconds = time.monotonic() - began_at
        report = accounts.settle(
            epoch,
            rows,
            closed,
            seconds,
            deterministic=deterministic,
            has_leavers=train.watch.has_leavers,
            before=train.delivery.before(epoch),
            is_restarted=train.delivery.was_begun_before(epoch),
        )
        return report, [row for row in rows if row.partition not in leave_out], closed

    def feed_batch(
        self, train: OpenTrain, epoch: int, data: Any, *, deterministic: bool | None = None
    ) -> None:
        """As ``feed_epoch``, through restarts of the gang: a micro-batch that was not read to its
        end comes again, all of it."""
        while True:
            fed = None
            try:
                fed = self.feed_epoch(train, epoch, data, deterministic=deterministic)
                self.generations.wait_until_read(train)
                return
            except GangRestarts:
                left = self.generations.leave(train, repeat=True)
                if fed is not None and left is None:
                    return
                self.generations.enter(train, epoch)

    def end_train(self, train: OpenTrain, reason: str = "") -> FeedReport:
        """Tells the members that this was all. ``reason``: why it ends before its last epoch.
        Raises TrainingFailed, RunCancelled, CoordinatorUnavailable."""
        if not reason and len(train.reports) == train.epochs:  # the last one has ended it
            self._forget(train)
            return train.report()
        request = train.request("end", reason=reason or train.stopped)
        train.watch.end()

        def work(errand: Errand[None]) -> None:
            errand.is_with_keeper = True
            train.control.call(request, ASIDE, train.tags)

        # All has been delivered, or is not wanted: members that have left need not hear of it.
        with suppress(FeedStopped, GangRestarts, KeeperUnreachable, FeedStalled, FeedFailed):
            train.watch.during(work)
        self._forget(train)
        return train.report()

    def abandon_train(self, train: OpenTrain, error: BaseException) -> None:
        """After an error, or Ctrl-C: tells the members if they can be told. Raises nothing of its
        own. Does nothing after the end."""
        if train.feed not in self._filled:
            return
        try:
            if self.session.lost is None and not self.session.view.settled:
                is_ours = isinstance(error, TfleaseError)
                reason = str(error).partition("\n")[0][:300] if is_ours else "cancelled"
                aside(self.gateway, train, train.request("end", reason=reason or "cancelled"))
        finally:
            self._forget(train)

    def _forget(self, train: OpenTrain) -> None:
        train.progress.close()
        with self._lock:
            self._filled.pop(train.feed, None)
        if train.survives:
            self.generations.finished.watch()

    def finished_feeds(self) -> list[str]:
        """Those that nobody fills now."""
        with self._lock:
            return [feed for feed in self._calls if feed not in self._filled]
