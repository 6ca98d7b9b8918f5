"""A Spark Connect session: the driver is on a server, which tells less than one's own JVM.

It has no status tracker and no list of executors. Which tasks run follows from the progress that it
reports on its jobs, to the threads that wait for them; the rest is said to be unknown.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from coordinator.core.errors import FeatureUnavailable, SparkUnusable
from coordinator.core.model import Slots
from coordinator.spark import profiles
from coordinator.spark.feed import arrow_batches
from coordinator.spark.gateway import Profile
from executor_agent.spark_task import ROW_SCHEMA, MemberTask

if TYPE_CHECKING:
    from executor_agent.feed.feeder import Feeder

_log = logging.getLogger("tflease")

_ANOTHER_SESSION = (
    "the DataFrame is of another session than the run: make it with the session that "
    "TFCluster.run was given"
)


def open_session(spark: Any, *, has_daemon: bool) -> ConnectGateway:
    """Raises FeatureUnavailable without a daemon, SparkUnusable when the session is stopped or its
    server does not answer."""
    if not has_daemon:
        raise FeatureUnavailable(
            "with Spark Connect this machine may be out of the executors' reach, so no coordinator "
            "is started here: start one with `tflease serve --listen 0.0.0.0:7787 --tls-cert ... "
            "--tls-key ...` on a machine that the executors reach, and pass "
            'coordinator="grpcs://that-machine:7787" (docs/security.md says how to make a '
            "certificate)"
        )
    if spark.is_stopped:
        raise SparkUnusable("this Spark Connect session has been stopped: pass a new one")
    try:
        spark.conf.get("spark.app.id", "")
    except Exception as error:  # of Connect's client or of grpc's
        text = str(error).strip().partition("\n")[0]
        raise SparkUnusable(f"the Spark Connect server does not answer: {text[:300]}") from error
    return ConnectGateway(spark)


@dataclass(frozen=True, slots=True)
class _Tasks:
    """Of one job. ``completed``: by stage."""

    running: int
    completed: tuple[int, ...] = ()


class ConnectGateway:
    """See ``gateway.Gateway``."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self._lock = threading.Lock()
        self._running: dict[tuple[str, ...], _Tasks] = {}
        """By the tags of their job, once something was heard of it."""

    @property
    def application_id(self) -> str:
        """Sessions of one server share its slots; a server that hides its id has our session's."""
        return self.conf("spark.app.id") or str(self._session.session_id)

    @property
    def master(self) -> str:
        return self.conf("spark.master")

    @property
    def driver_host(self) -> str:
        return self.conf("spark.driver.host")

    @property
    def started_at(self) -> float:
        try:
            return float(self.conf("spark.app.startTime")) / 1000.0
        except ValueError:
            return 0.0

    def conf(self, name: str) -> str:
        try:
            return str(self._session.conf.get(name, "") or "")
        except Exception:  # the session was stopped, or the server hides this one
            return ""

    def thread(self, work: Callable[[], None]) -> threading.Thread:
        inherited = frozenset(self._session.getTags())  # of the launching thread

        def with_tags() -> None:
            for tag in inherited:
                self._session.addTag(tag)
            work()

        return threading.Thread(target=with_tags)

    def run_job(
        self,
        task: MemberTask,
        tags: Sequence[str],
        description: str,
        profile: Profile | None = None,
    ) -> list[Any]:
        """Connect has no place for the description."""
        return self._collect(task, ROW_SCHEMA, len(task.members), tags, profile)

    def run_one(
        self,
        task: Callable[..., Any],
        schema: str,
        tags: Sequence[str],
        description: str,
        profile: Profile | None = None,
    ) -> list[Any]:
        return self._collect(task, schema, 1, tags, profile)

    def _collect(
        self,
        task: Callable[..., Any],
        schema: str,
        count: int,
        tags: Sequence[str],
        profile: Profile | None,
    ) -> list[Any]:
        self._label(tags)
        slots = self._session.range(0, count, 1, count)
        frame = slots.mapInArrow(task, schema, **self._resources(profile))
        with self._hearing_of(tuple(tags)):
            return list(frame.collect())

    def run_feed(
        self,
        data: Any,
        feeder: Feeder,
        tags: Sequence[str],
        description: str,
        profile: Profile | None = None,
    ) -> list[Any]:
        from executor_agent.feed.feeder import FEED_ROW_SCHEMA

        if getattr(data.sparkSession, "session_id", None) != self._session.session_id:
            raise SparkUnusable(_ANOTHER_SESSION)  # whose jobs would not be cancelled
        self._label(tags)
        frame = data.mapInArrow(feeder, FEED_ROW_SCHEMA, **self._resources(profile))
        with arrow_batches.small(self._session), self._hearing_of(tuple(tags)):
            return list(frame.collect())

    def _label(self, tags: Sequence[str]) -> None:
        """What this thread's jobs are called from now on."""
        for tag in tags:
            self._session.addTag(tag)

    def _resources(self, profile: Profile | None) -> dict[str, Any]:
        """For ``mapInArrow``. The server is told of a profile through the session that is active on
        the thread; none is, on a thread of ours."""
        if profile is None:
            return {}
        type(self._session)._set_default_and_active_session(self._session)
        return {"profile": profiles.build(profile, self.application_id)}

    @contextmanager
    def _hearing_of(self, job: tuple[str, ...]) -> Iterator[None]:
        """Keeps up with the tasks of the job that this thread waits for."""
        waiting = threading.get_ident()

        def heard(*, inflight_tasks: int, stages: Any = (), **_: Any) -> None:
            if threading.get_ident() == waiting:  # otherwise it is another job of the session
                completed = tuple(int(stage.num_completed_tasks) for stage in stages or ())
                with self._lock:
                    self._running[job] = _Tasks(inflight_tasks, completed)

        self._session.registerProgressHandler(heard)
        try:
            yield
        finally:
            self._session.removeProgressHandler(heard)
            with self._lock:
                self._running.pop(job, None)

    def cancel(self, tag: str) -> None:
        try:
            self._session.interruptTag(tag)
        except Exception as error:  # a session that was stopped has interrupted them by itself
            _log.debug("interrupting the jobs with tag %s: %s", tag, error)

    def active_tasks(self, tag: str) -> int | None:
        with self._lock:
            found = [tasks.running for tags, tasks in self._running.items() if tag in tags]
        return sum(found) if found else None

    def pulse(self, tag: str) -> Hashable:
        with self._lock:
            found = [tasks for tags, tasks in self._running.items() if tag in tags]
        return tuple(found) or None

    def registered_slots(self) -> int:
        return 0

    def slots(self) -> Slots:
        return Slots()
