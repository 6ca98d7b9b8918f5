"""`ctx` without any process around it."""

import math
import os
import threading
from collections.abc import Mapping
from typing import Any

import pytest

from executor_agent.context import Assignment, Context, Start
from executor_agent.progress import ProgressReporter
from executor_agent.watcher import StopSignal

DEADLINE = 10.0  # seconds until a wait in these tests has failed


class Agent:
    """Collects what is sent; can refuse to read, or be gone."""

    def __init__(self) -> None:
        self.messages: list[Mapping[str, object]] = []
        self.reads = threading.Event()
        self.reads.set()
        self.asked = threading.Event()
        self.gone = False

    def __call__(self, message: Mapping[str, object]) -> None:
        self.asked.set()
        assert self.reads.wait(DEADLINE)
        if self.gone:
            raise BrokenPipeError
        self.messages.append(message)

    @property
    def steps(self) -> list[object]:
        return [message["step"] for message in self.messages]


def context(
    job_name: str = "worker",
    task_index: int = 0,
    stop: StopSignal | None = None,
    progress: ProgressReporter | None = None,
    **fields: Any,
) -> Context:
    values: dict[str, Any] = {
        "run_id": "run-1",
        "generation": 2,
        "cluster_spec": {"chief": ("a:1",), "worker": ("b:1",), "evaluator": ("c:1",)},
        "executor_id": "7",
        "local_dir": "/scratch",
        "log_dir": None,
        "model_dir": "/models",
    }
    assignment = Assignment(job_name=job_name, task_index=task_index, **(values | fields))
    return Context(assignment, stop or StopSignal(), progress or ProgressReporter(Agent()))


def test_a_member_knows_its_place() -> None:
    ctx = context()
    assert (ctx.job_name, ctx.task_index, ctx.generation, ctx.executor_id) == ("worker", 0, 2, "7")
    assert ctx.cluster_spec == {"chief": ["a:1"], "worker": ["b:1"], "evaluator": ["c:1"]}
    assert ctx.tf_config["cluster"] == {"chief": ["a:1"], "worker": ["b:1"]}
    assert (ctx.num_workers, ctx.is_chief, ctx.gpus) == (2, False, ())
    assert context("chief").is_chief


def test_the_stop_is_seen_and_waited_for() -> None:
    stop = StopSignal()
    ctx = context(stop=stop)
    assert not ctx.should_stop
    assert not ctx.wait_for_stop(timeout=0)
    waiting = threading.Thread(target=stop.begin, args=("a test",))
    waiting.start()
    assert ctx.wait_for_stop(DEADLINE)
    assert ctx.should_stop
    assert stop.reason == "a test"
    waiting.join()


def test_callbacks_run_in_order_and_a_failing_one_stops_nobody(
    capsys: pytest.CaptureFixture[str],
) -> None:
    stop = StopSignal()
    ctx = context(stop=stop)
    called: list[str] = []
    done = threading.Event()

    def fail() -> None:
        raise ValueError("in a callback")

    ctx.on_stop(lambda: called.append(threading.current_thread().name))
    ctx.on_stop(fail)
    ctx.on_stop(done.set)
    stop.begin("a test")
    stop.begin("again")
    assert done.wait(DEADLINE)
    assert called == ["tflease-on-stop"]
    assert stop.reason == "a test"
    assert "in a callback" in capsys.readouterr().err


def test_a_slow_callback_does_not_hold_up_who_began_the_stop() -> None:
    stop = StopSignal()
    release, finished = threading.Event(), threading.Event()

    def slow() -> None:
        release.wait(DEADLINE)
        finished.set()

    stop.add_callback(slow)
    stop.begin("a test")  # returns
    assert not finished.is_set()
    release.set()
    assert finished.wait(DEADLINE)


def test_callbacks_have_their_thread_before_anybody_sees_the_stop() -> None:
    """Who waits for the stop may end the process, and Python waits for started threads only."""
    stop = StopSignal()
    started: list[bool] = []
    called: list[bool] = []

    class Begun(threading.Event):
        def set(self) -> None:
            started.append("tflease-on-stop" in [each.name for each in threading.enumerate()])
            super().set()

    stop._begun = Begun()
    stop.add_callback(lambda: called.append(stop.is_set()))
    stop.begin("a test")
    for thread in threading.enumerate():
        if thread.name == "tflease-on-stop":
            thread.join(DEADLINE)
    assert (started, called) == ([True], [True])


def test_a_callback_after_the_stop_is_called_at_once() -> None:
    stop = StopSignal()
    stop.begin("a test")
    called: list[str] = []
    context(stop=stop).on_stop(lambda: called.append("now"))
    assert called == ["now"]


def test_progress_is_thinned_out_and_the_last_report_is_sent() -> None:
    agent = Agent()
    progress = ProgressReporter(agent, interval=3600)
    ctx = context(progress=progress)
    for step in range(1000):
        ctx.report_progress(step, loss=1 / (step + 1))
        if step == 0:
            assert agent.asked.wait(DEADLINE)
    progress.close(DEADLINE)
    assert agent.steps[0] == 0
    last = {"event": "progress", "step": 999, "metrics": {"loss": 0.001}, "section": "step"}
    assert agent.messages[-1] == last
    assert len(agent.messages) == 2


def test_progress_goes_out_again_after_the_interval() -> None:
    agent = Agent()
    progress = ProgressReporter(agent, interval=0.01)
    for step in (1, 2):
        agent.asked.clear()
        progress.report(step, {})
        assert agent.asked.wait(DEADLINE)
    progress.close(DEADLINE)
    assert agent.steps == [1, 2]


def test_an_agent_that_does_not_read_costs_training_nothing() -> None:
    agent = Agent()
    agent.reads.clear()
    progress = ProgressReporter(agent, interval=0)
    for step in range(10_000):
        progress.report(step, {})
    progress.close(timeout=0.01)  # gives up
    agent.reads.set()
    assert len(agent.messages) <= 1


def test_an_agent_that_is_gone_costs_training_nothing() -> None:
    agent = Agent()
    agent.gone = True
    progress = ProgressReporter(agent, interval=0)
    ctx = context(progress=progress)
    for step in range(100):
        ctx.report_progress(step)
    progress.close(DEADLINE)
    ctx.report_progress(100)
    assert agent.messages == []


def test_metrics_are_numbers() -> None:
    class Scalar:
        def __float__(self) -> float:
            return 0.5

    agent = Agent()
    progress = ProgressReporter(agent)
    ctx = context(progress=progress)
    ctx.report_progress(3, loss=Scalar())
    progress.close(DEADLINE)
    told = {"event": "progress", "step": 3, "metrics": {"loss": 0.5}, "section": "step"}
    assert agent.messages == [told]
    with pytest.raises(TypeError):
        ctx.report_progress(4, loss=None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("step", "problem"),
    [
        (2**63, "must be less than 2\\*\\*63"),
        # Python does not even write it down.
        pytest.param(10**5000, "must be less than 2\\*\\*63", id="huge"),
        (-1, "cannot be negative"),
        (math.inf, "step inf is no number of steps"),
        (math.nan, "NaN"),
    ],
)
def test_a_step_that_cannot_travel_is_refused_and_the_next_one_is_told(
    step: Any, problem: str
) -> None:
    agent = Agent()
    progress = ProgressReporter(agent)
    ctx = context(progress=progress)
    with pytest.raises(ValueError, match=problem):
        ctx.report_progress(step)
    ctx.report_progress(2**63 - 1)
    progress.close(DEADLINE)
    assert agent.steps == [2**63 - 1]


@pytest.mark.parametrize("job_name", ["chief", "evaluator"])
def test_only_ps_and_workers_serve(job_name: str) -> None:
    with pytest.raises(RuntimeError, match=f"{job_name} 0 has to run its own part"):
        context(job_name).serve_forever()


def test_relative_paths_are_resolved_and_uris_left_alone() -> None:
    ctx = context()
    assert ctx.absolute_path("models/a") == os.path.join(os.getcwd(), "models/a")
    for path in ("/models/a", "hdfs://host:9000/models", "s3a://bucket/models", "file:/models"):
        assert ctx.absolute_path(path) == path


START: dict[str, Any] = {
    "command": "start",
    "run_id": "run-1",
    "generation": 3,
    "job_name": "worker",
    "task_index": 1,
    "cluster_spec": {"worker": ["a:1", "b:1"]},
    "executor_id": "7",
    "local_dir": "/scratch",
    "log_dir": None,
    "model_dir": "/models",
    "env": {"A": "1", "B": None},
    "grace": 5,
    "roles": {"worker": 2},
}


def test_the_start_command_is_read() -> None:
    start = Start.parse(START | {"gpus": ["GPU-1"]})
    assert start.assignment == Assignment(
        run_id="run-1",
        generation=3,
        job_name="worker",
        task_index=1,
        cluster_spec={"worker": ("a:1", "b:1")},
        executor_id="7",
        local_dir="/scratch",
        log_dir=None,
        model_dir="/models",
        gpus=("GPU-1",),
    )
    assert (start.grace, start.env) == (5.0, {"A": "1", "B": None})


@pytest.mark.parametrize(
    "change", [{"cluster_spec": None}, {"grace": "long"}, {"generation": None}]
)
def test_a_start_command_that_makes_no_sense_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="start command not understood"):
        Start.parse(START | change)
    with pytest.raises(ValueError, match="'run_id'"):
        Start.parse({name: value for name, value in START.items() if name != "run_id"})
