"""The jobs of feeds, as both kinds of session are asked for them; real ones are in tests/spark."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from coordinator.core.errors import SparkUnusable
from coordinator.spark import profiles
from coordinator.spark.classic import ClassicGateway
from coordinator.spark.connect import ConnectGateway
from coordinator.spark.feed.watch import matters
from coordinator.spark.gateway import Profile
from executor_agent.feed.feeder import FEED_ROW_SCHEMA


class Frame:
    """A DataFrame of either kind, and the session that it is of."""

    def __init__(self, owner: Any) -> None:
        self.sparkSession = owner
        self.asked: list[tuple[Any, str, Any]] = []

    def mapInArrow(self, task: Any, schema: str, profile: Any = None) -> Any:
        self.asked.append((task, schema, profile))
        return SimpleNamespace(collect=self._collect)

    def _collect(self) -> list[str]:
        self.sparkSession.running()
        return ["a row"]


class Rdd:
    def __init__(self) -> None:
        self.profiles: list[Any] = []

    def mapPartitions(self, function: Any) -> Any:
        def with_resources(profile: Any) -> Any:
            self.profiles.append(profile)
            return found

        found = SimpleNamespace(
            collect=lambda: list(function(iter([1]))), withResources=with_resources
        )
        return found


class Stage:
    def __init__(self, active: int, completed: int) -> None:
        self.numActiveTasks, self.numCompletedTasks, self.numFailedTasks = active, completed, 0


class Context:
    """A SparkContext with one job."""

    def __init__(self) -> None:
        self.tags: set[str] = set()
        self.description = ""
        self.stage = Stage(1, 0)
        self.applicationId = "app"
        tracker = SimpleNamespace(getJobIdsForTag=lambda tag: [7] if tag in self.tags else [])
        self._jsc: Any = SimpleNamespace(sc=lambda: SimpleNamespace(statusTracker=lambda: tracker))

    def addJobTag(self, tag: str) -> None:
        self.tags.add(tag)

    def setLocalProperty(self, name: str, value: str) -> None:
        self.description = value

    def statusTracker(self) -> Any:
        return SimpleNamespace(
            getJobInfo=lambda job: SimpleNamespace(stageIds=[1]),
            getStageInfo=lambda stage: self.stage,
        )


class Conf:
    def get(self, name: str, default: Any) -> Any:
        return "the user's"


class Classic:
    def __init__(self) -> None:
        self.sparkContext = Context()
        self.conf = Conf()
        self.running = list

    def range(self, *_: int) -> Frame:
        return Frame(self)


FEEDER: Any = SimpleNamespace(rows=lambda rows: [{"rows": len(list(rows))}])


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiles, "build", lambda profile, application: (profile, application))


@pytest.mark.usefixtures("built")
def test_a_frame_and_an_rdd_are_fed_under_tags_with_a_profile() -> None:
    session = Classic()
    found, frame, rdd = ClassicGateway(session), Frame(session), Rdd()  # type: ignore[arg-type]
    assert found.run_feed(frame, FEEDER, ("run", "train"), "feeding input") == ["a row"]
    assert found.run_feed(frame, FEEDER, ("run",), "more", Profile(1)) == ["a row"]
    assert found.run_feed(rdd, FEEDER, ("run",), "more") == [{"rows": 1}]
    assert found.run_feed(rdd, FEEDER, ("run",), "more", Profile(1)) == [{"rows": 1}]
    assert frame.asked == [
        (FEEDER, FEED_ROW_SCHEMA, None),
        (FEEDER, FEED_ROW_SCHEMA, (Profile(1), "app")),
    ]
    assert rdd.profiles == [(Profile(1), "app")]
    assert session.sparkContext.tags == {"run", "train"}


def test_one_task_brings_one_answer() -> None:
    session = Classic()
    found = ClassicGateway(session)  # type: ignore[arg-type]
    assert found.run_one(list, "reply string", ("run",), "a word") == ["a row"]
    assert session.sparkContext.description == "a word"


def test_the_pulse_of_a_job_changes_with_its_tasks() -> None:
    session = Classic()
    found = ClassicGateway(session)  # type: ignore[arg-type]
    assert found.pulse("train") == ()
    session.sparkContext.addJobTag("train")
    first = found.pulse("train")
    session.sparkContext.stage = Stage(1, 1)
    assert found.pulse("train") != first
    session.sparkContext._jsc = None
    assert found.pulse("train") is None


class Connect:
    """A Connect session; ``tell`` is what its server reports while a job runs."""

    session_id = "the-session"

    def __init__(self) -> None:
        self.conf = Conf()
        self.tags: set[str] = set()
        self.heard: Any = None
        self.running: Any = list

    def addTag(self, tag: str) -> None:
        self.tags.add(tag)

    def registerProgressHandler(self, handler: Any) -> None:
        self.heard = handler

    def removeProgressHandler(self, handler: Any) -> None:
        self.heard = None

    def tell(self, running: int, completed: int) -> None:
        stage = SimpleNamespace(num_completed_tasks=completed)
        self.heard(stages=[stage], inflight_tasks=running, operation_id="1", done=False)

    def range(self, *_: int) -> Frame:
        return Frame(self)


def test_a_server_is_asked_for_the_same_and_tells_of_its_tasks() -> None:
    session = Connect()
    found = ConnectGateway(session)
    pulses: list[Any] = []

    def running() -> None:
        for completed in (0, 0, 1):
            session.tell(2, completed)
            pulses.append(found.pulse("train"))
        assert found.active_tasks("train") == 2

    session.running = running
    assert found.run_feed(Frame(session), FEEDER, ("run", "train"), "x") == ["a row"]
    assert session.tags == {"run", "train"}
    assert pulses[0] == pulses[1] != pulses[2]
    assert (found.pulse("train"), session.heard) == (None, None)
    session.running = list
    assert found.run_one(list, "reply string", ("run",), "a word") == ["a row"]


class ConnectFrame(Frame):
    __module__ = "pyspark.sql.connect.dataframe"


def test_a_frame_of_another_session_is_refused() -> None:
    """Its jobs would not bear the tags, and nobody could cancel them."""
    other = Connect()
    other.session_id = "another"
    with pytest.raises(SparkUnusable, match="another session than the run"):
        ConnectGateway(Connect()).run_feed(Frame(other), FEEDER, ("run",), "x")
    found = ClassicGateway(Classic())  # type: ignore[arg-type]
    with pytest.raises(SparkUnusable, match="of a Spark Connect session"):
        found.run_feed(ConnectFrame(other), FEEDER, ("run",), "x")


@pytest.mark.parametrize(
    "text, line",
    [
        (
            "\n  An exception was thrown from the Python worker.\nTraceback (most recent call "
            "last):\n  File \"a.py\", line 1, in f\n    x\nKeyError: 'col'\n",
            "KeyError: 'col'",
        ),
        ("Job 3 cancelled because killed\n\tat x", "Job 3 cancelled because killed"),
        (
            "Traceback (most recent call last):\n  x\nModuleNotFoundError: No module named "
            "'pyarrow'",
            "ModuleNotFoundError: No module named 'pyarrow' (the executors' Python has no pyarrow",
        ),
        ("Traceback (most recent call last):", "Traceback (most recent call last):"),
    ],
)
def test_of_a_job_s_error_the_line_is_told_that_matters(text: str, line: str) -> None:
    """E2."""
    assert matters(RuntimeError(text)).startswith(line)
