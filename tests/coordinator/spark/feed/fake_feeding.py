"""A run, its keeper and its Spark, without any of them: what they say is data here."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import pytest

from coordinator.core.errors import CoordinatorUnavailable
from coordinator.core.model import (
    Endpoint,
    ExecutorInfo,
    MemberId,
    MemberPhase,
    MemberView,
    Role,
    Roles,
    RunId,
    RunPhase,
    RunSpec,
    RunView,
    Slots,
)
from coordinator.spark.feed import control as control_module
from coordinator.spark.feed.feeding import Feeding
from executor_agent.core.feed_values import FeedEndpoint, FeedKey
from executor_agent.feed.feeder import Feeder
from executor_agent.feed.wire import FeedUnreachable

KEY = FeedKey(b"secret", "certificate", "private key")


class DataFrame:
    """As much of one as is looked at. ``partitions``: rows of each."""

    __module__ = "pyspark.sql.classic.dataframe"

    def __init__(self, *partitions: int, is_streaming: bool = False) -> None:
        self.partitions = partitions
        self.isStreaming = is_streaming
        self.schema = SimpleNamespace(
            fields=[SimpleNamespace(name="x", dataType=SimpleNamespace(simpleString=str))]
        )

    def mapInArrow(self) -> None: ...


def view(roles: Roles, *, feed_port: int = 4000) -> RunView:
    """A run at work."""
    members = tuple(
        MemberView(
            MemberId(role, index),
            MemberPhase.RUNNING,
            0.0,
            endpoint=Endpoint("10.0.0.1", 2000, feed_port),
            executor=ExecutorInfo("host", "boot", 1, directory=f"/w/{role.value}-{index}"),
        )
        for role in Role
        for index in range(roles.count(role))
    )
    spec = RunSpec(roles, name="mnist", liveness_ttl=0.2, beat_interval=0.1)
    return RunView(RunId("r1"), spec, RunPhase.RUNNING, 1, members, 0.0, 1)


class FakeSession:
    """A `RunSession`, which counts how often somebody looks at it."""

    def __init__(self, run: RunView) -> None:
        self.lost: CoordinatorUnavailable | None = None
        self._changed = threading.Condition()
        self._view = run
        self._looks = 0

    @property
    def view(self) -> RunView:
        with self._changed:
            self._looks += 1
            self._changed.notify_all()
            return self._view

    def wait_for_looks(self, count: int) -> None:
        """Until so many more have been taken."""
        with self._changed:
            enough = self._looks + count
            assert self._changed.wait_for(lambda: self._looks >= enough, 30)

    def wait_for(self, condition: Callable[[RunView], bool], timeout: float | None) -> bool:
        with self._changed:
            return self._changed.wait_for(
                lambda: self.lost is not None or condition(self._view), timeout
            )

    def change(self, **changes: Any) -> None:
        with self._changed:
            self._view = replace(self._view, **changes)
            self._changed.notify_all()

    def change_member(self, name: str, **changes: Any) -> None:
        self.change(
            members=tuple(
                replace(member, **changes) if str(member.id) == name else member
                for member in self.view.members
            )
        )

    def count(self, name: str, feed: str = "input", **counts: float) -> None:
        """What a member counts of a feed."""
        metrics = {f"feed/{feed}/{key}": value for key, value in counts.items()}
        self.change_member(name, metrics=metrics)

    def lose(self) -> None:
        with self._changed:
            self.lost = CoordinatorUnavailable("the coordinator is gone")
            self._changed.notify_all()


@dataclass
class FeedJob:
    """One job of a feed. ``cancelled``: set when somebody wants its end."""

    data: Any
    feeder: Feeder
    tags: tuple[str, ...]
    description: str
    cancelled: threading.Event = field(default_factory=threading.Event)

    def wait_until_cancelled(self) -> list[Any]:
        assert self.cancelled.wait(30)
        raise RuntimeError("[SPARK_JOB_CANCELLED] Job 3 cancelled")


def delivering(job: FeedJob) -> list[Any]:
    """All rows of all partitions, as it should be."""
    return [row(number, rows) for number, rows in enumerate(job.data.partitions)]


def row(partition: int, rows: int, **more: Any) -> dict[str, Any]:
    """As a feeder returns it."""
    workers = json.dumps({"worker:0": rows})
    plain = {"partition": partition, "attempt": 1, "rows": rows, "skipped": 0, "again": 0}
    return {**plain, "bytes": 10 * rows, "seconds": 0.1, "stopped": None, "workers": workers} | more


class FakeSpark:
    """A `Gateway` for feeds. ``work``: what a feed's job does."""

    def __init__(
        self,
        work: Callable[[FeedJob], list[Any]] = delivering,
        master: str = "local[8]",
        **conf: str,
    ) -> None:
        self.master = master
        self.started_at = 0.0
        self.jobs: list[FeedJob] = []
        self.control_jobs: list[tuple[Any, tuple[str, ...]]] = []
        self.beats: Hashable = None
        self.cancelled: list[str] = []
        self.threads: list[threading.Thread] = []
        self._work = work
        self._conf = {name.replace("_", "."): value for name, value in conf.items()}
        self._submitted = threading.Condition()

    def conf(self, name: str) -> str:
        return self._conf.get(name, "")

    def thread(self, work: Callable[[], None]) -> threading.Thread:
        self.threads.append(threading.Thread(target=work, name="tflease-test-spark"))
        return self.threads[-1]

    def run_feed(
        self, data: Any, feeder: Feeder, tags: Any, description: str, profile: Any = None
    ) -> list[Any]:
        job = FeedJob(data, feeder, tuple(tags), description)
        with self._submitted:
            self.jobs.append(job)
            self._submitted.notify_all()
        return self._work(job)

    def run_one(
        self, task: Any, schema: str, tags: Any, description: str, profile: Any = None
    ) -> list[Any]:
        self.control_jobs.append((task, tuple(tags)))
        return [{"reply": task.answer()}]

    def cancel(self, tag: str) -> None:
        self.cancelled.append(tag)
        for job in list(self.jobs):
            if tag in job.tags:
                job.cancelled.set()

    def wait_for_job(self) -> FeedJob:
        with self._submitted:
            assert self._submitted.wait_for(lambda: bool(self.jobs), 30)
            return self.jobs[-1]

    def pulse(self, tag: str) -> Hashable:
        return self.beats

    def active_tasks(self, tag: str) -> int | None:
        return 0

    def registered_slots(self) -> int:
        return 8

    def slots(self) -> Slots:
        return Slots()


class FakeKeeper:
    """Rank 0. ``answers``: by call; one that is a function is called with the
    seconds that it may take."""

    def __init__(self) -> None:
        self.calls: list[Mapping[str, Any]] = []
        self.callers: list[str] = []
        self.rows: dict[int, dict[str, int]] = {}
        self.answers: dict[str, Any] = {}
        self.is_reached_directly = True
        self.is_gone = False

    def call(
        self, endpoint: FeedEndpoint, key: FeedKey, request: Mapping[str, Any], timeout: float
    ) -> dict[str, Any]:
        is_in_spark = threading.current_thread().name == "spark task"
        if self.is_gone or not (self.is_reached_directly or is_in_spark):
            raise FeedUnreachable(f"cannot reach the feed of {endpoint.member}")
        assert key.private_key == ""
        self.calls.append(dict(request))
        self.callers.append(endpoint.member)
        answer = self.answers.get(request["call"], {"ok": True})
        return dict(answer(timeout)) if callable(answer) else dict(answer)

    def named(self, call: str) -> list[Mapping[str, Any]]:
        return [request for request in self.calls if request["call"] == call]


class Scene:
    """Everything around one `Feeding`."""

    def __init__(self, roles: Roles, spark: FakeSpark, keeper: FakeKeeper, **more: Any) -> None:
        self.spark = spark
        self.keeper = keeper
        self.session = FakeSession(view(roles))
        self.feeding = Feeding(
            spark,  # type: ignore[arg-type]
            self.session,  # type: ignore[arg-type]
            KEY,
            "mnist",
            roles,
            **more,
        )

    def close_with(self, steps: int | None = None, left_out: int = 0, **rows: int) -> None:
        """What the keeper answers to `close`; ``worker_0=5``."""
        counts = {name.replace("_", ":"): count for name, count in rows.items()}
        reply = {"ok": True, "steps": steps, "rows": counts, "left_out": left_out, "stopped": ""}
        self.keeper.answers["close"] = reply

    def in_background(self, work: Callable[[], Any]) -> Background:
        return Background(work)


class Background:
    """A call on another thread, and what became of it."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self.error: BaseException | None = None
        self.found: Any = None
        self._work = work
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.found = self._work()
        except BaseException as error:
            self.error = error

    def result(self) -> Any:
        self._thread.join(30)
        assert not self._thread.is_alive()
        if self.error is not None:
            raise self.error
        return self.found


def install(monkeypatch: pytest.MonkeyPatch, keeper: FakeKeeper) -> None:
    """Calls to rank 0 reach the stand-in."""
    monkeypatch.setattr(control_module.control, "call", keeper.call)


def waiting(job: FeedJob) -> list[Any]:
    """A job that takes until it is cancelled."""
    return job.wait_until_cancelled()


def begin(made: Scene, *args: Any, **more: Any) -> Background:
    """A `train` on another thread, whose job runs."""
    found = Background(lambda: made.feeding.train(*(args or (DataFrame(7, 3, 0), 1)), **more))
    made.spark.wait_for_job()
    return found
