"""The seam to a Spark Connect session; the real one is tried in tests/spark."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from coordinator.core.errors import FeatureUnavailable, SparkUnusable
from coordinator.core.model import Slots
from coordinator.spark import profiles
from coordinator.spark.connect import ConnectGateway
from coordinator.spark.gateway import Profile, open_gateway
from executor_agent.spark_task import MemberTask

TASK = MemberTask(("worker:0", "worker:1"), "run", "h:1", "token", b"", {}, (), 1.0)


class Session:
    """As much of a Connect session as is used. ``error``: what its server answers to anything."""

    __module__ = "pyspark.sql.connect.session"  # by which it is known

    def __init__(self, error: Exception | None = None, **conf: str) -> None:
        self.is_stopped = False
        self.session_id = "the-session"
        self.conf = self
        self.interrupted: list[str] = []
        self.jobs: list[tuple[int, set[str]]] = []
        self.profiles: list[Any] = []
        self.active_on = 0
        self.handlers: list[Callable[..., None]] = []
        self.running: Callable[[], object] = list
        """Called while a job runs, on its thread."""
        self._error = error
        self._conf = {name.replace("_", "."): value for name, value in conf.items()}
        self._local = threading.local()

    def get(self, name: str, default: str) -> str:
        if self._error is not None:
            raise self._error
        return self._conf.get(name, default)

    def getTags(self) -> set[str]:
        found: set[str] = self._local.__dict__.setdefault("tags", set())
        return found

    def addTag(self, tag: str) -> None:
        self.getTags().add(tag)

    def interruptTag(self, tag: str) -> None:
        if self._error is not None:
            raise self._error
        self.interrupted.append(tag)

    def registerProgressHandler(self, handler: Callable[..., None]) -> None:
        self.handlers.append(handler)

    def removeProgressHandler(self, handler: Callable[..., None]) -> None:
        self.handlers.remove(handler)

    def tell(self, inflight_tasks: int) -> None:
        for handler in self.handlers:
            handler(stages=[], inflight_tasks=inflight_tasks, operation_id="1", done=False)

    def range(self, start: int, end: int, step: int, partitions: int) -> Any:
        def collect() -> list[str]:
            self.jobs.append((partitions, set(self.getTags())))
            self.running()
            return ["a row"] * (end - start)

        frame = SimpleNamespace(collect=collect)

        def map_in_arrow(task: Any, schema: str, profile: Any = None) -> Any:
            self.profiles.append(profile)
            return frame

        return SimpleNamespace(mapInArrow=map_in_arrow)

    @classmethod
    def _set_default_and_active_session(cls, session: Session) -> None:
        session.active_on = threading.get_ident()


def test_without_a_daemon_it_is_said_how_to_start_one() -> None:
    with pytest.raises(FeatureUnavailable, match="tflease serve"):
        open_gateway(Session(), has_daemon=False)


def test_a_session_that_cannot_run_anything_is_refused() -> None:
    """R6."""
    stopped = Session()
    stopped.is_stopped = True
    with pytest.raises(SparkUnusable, match="has been stopped"):
        open_gateway(stopped, has_daemon=True)
    dead = Session(RuntimeError("\nUNAVAILABLE: connection refused\n  at grpc"))
    with pytest.raises(SparkUnusable, match=r"does not answer: UNAVAILABLE: connection refused$"):
        open_gateway(dead, has_daemon=True)


def test_what_the_server_tells_is_used() -> None:
    session = Session(spark_app_id="app-1", spark_master="yarn", spark_driver_host="10.0.0.1")
    found = open_gateway(session, has_daemon=True)
    assert (found.application_id, found.master, found.driver_host) == ("app-1", "yarn", "10.0.0.1")
    assert ConnectGateway(Session(spark_app_startTime="1500")).started_at == 1.5


def test_what_the_server_hides_is_unknown() -> None:
    found = ConnectGateway(Session(RuntimeError("hidden")))
    assert found.application_id == "the-session"
    assert (found.master, found.driver_host, found.started_at) == ("", "", 0.0)
    assert (found.slots(), found.registered_slots()) == (Slots(), 0)
    assert found.active_tasks("tag") is None


def test_a_job_bears_its_tags_and_those_of_the_thread_that_launched_it() -> None:
    """Interrupting a tag of the user's own reaches the run."""
    session = Session()
    found = ConnectGateway(session)
    session.addTag("the user's")
    rows: list[Any] = []
    thread = found.thread(lambda: rows.extend(found.run_job(TASK, ("run", "job"), "a job")))
    thread.start()
    thread.join(10)
    assert session.jobs == [(2, {"the user's", "run", "job"})]
    assert rows == ["a row", "a row"]
    assert session.getTags() == {"the user's"}


def test_which_tasks_run_is_heard_from_the_progress_of_their_job() -> None:
    """R1: "not scheduled" and "not connected" are two different diagnoses."""
    session = Session()
    found = ConnectGateway(session)
    heard: list[int | None] = []

    def running() -> None:
        heard.append(found.active_tasks("run"))
        for tasks in (0, 2):
            session.tell(tasks)
            heard.append(found.active_tasks("run"))
        stranger = threading.Thread(target=session.tell, args=(0,))  # a job of the user's own
        stranger.start()
        stranger.join(10)
        heard.append(found.active_tasks("job"))
        heard.append(found.active_tasks("another job"))

    session.running = running
    found.run_job(TASK, ("run", "job"), "a job")
    assert heard == [None, 0, 2, 2, None]
    assert found.active_tasks("run") is None
    assert session.handlers == []


def test_a_profile_is_made_known_to_the_server_on_the_thread_of_its_job(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Connect does so when the job is sent, through the session that is active there."""
    monkeypatch.setattr(profiles, "build", lambda profile, application: (profile, application))
    session = Session(spark_app_id="app-1")
    found = ConnectGateway(session)
    found.run_job(TASK, ("run",), "a job")
    assert (session.profiles, session.active_on) == ([None], 0)
    found.run_job(TASK, ("run",), "a job", Profile(1, 2))
    assert session.profiles[1:] == [(Profile(1, 2), "app-1")]
    assert session.active_on == threading.get_ident()


def test_cancelling_interrupts_the_tag_and_survives_a_stopped_session() -> None:
    session = Session()
    ConnectGateway(session).cancel("run")
    assert session.interrupted == ["run"]
    ConnectGateway(Session(RuntimeError("no active session"))).cancel("run")
