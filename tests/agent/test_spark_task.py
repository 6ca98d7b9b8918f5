"""What a Spark task runs, without Spark: its environment, its refusals, its row."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cloudpickle
import pyarrow as pa
import pytest

from executor_agent import incarnations, member_directory, processes, spark_chain, spark_task
from executor_agent.processes import ProcessIdentity
from executor_agent.spark_task import (
    ROW_SCHEMA,
    MemberTask,
    agent_environment,
    member_environment,
)

ROOT = Path(__file__).parents[2]
TOKEN = "a-token-that-nobody-may-see"
TASK = MemberTask(
    members=("worker:0", "worker:1"),
    run_id="run",
    coordinator="127.0.0.1:1",
    token=TOKEN,
    payload=b"the payload",
    grace={"chief": 5.0, "worker": 5.0, "ps": 0.0, "evaluator": 5.0},
    preload=("json",),
    connect_timeout=1.0,
)


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(member_directory.HOME_VARIABLE, str(tmp_path / "home"))


@pytest.mark.parametrize(
    "name",
    [
        "PYTHON_WORKER_FACTORY_SECRET",
        "PYTHON_WORKER_FACTORY_PORT",
        "_SPARK_AUTH_SECRET",
        "_SPARK_SSL_RPC_TRUST_STORE_PASSWORD",
        "SPARK_CONNECT_AUTHENTICATE_TOKEN",
    ],
)
def test_spark_s_secrets_do_not_reach_a_user_s_program(name: str) -> None:
    environment = member_environment({name: "secret", "HOME": "/root"}, [], 1)
    assert "secret" not in environment.values()
    assert environment["HOME"] == "/root"


def test_modules_that_spark_has_shipped_are_found_from_anywhere() -> None:
    """`addPyFile`: in `sys.path` only, and maybe relative to a directory that is left."""
    path = ["", "shipped.zip", "/opt/lib", "/opt/lib"]
    folders = member_environment({}, path, 1)["PYTHONPATH"].split(os.pathsep)
    assert folders == [os.getcwd(), os.path.join(os.getcwd(), "shipped.zip"), "/opt/lib"]


@pytest.mark.parametrize("cpus, threads", [(0, "1"), (1, "1"), (8, "8")])
def test_there_are_as_many_openmp_threads_as_the_task_has_cores(cpus: int, threads: str) -> None:
    """Spark sets 1, whatever the task has."""
    assert member_environment({"OMP_NUM_THREADS": "1"}, [], cpus)["OMP_NUM_THREADS"] == threads


def test_the_log_is_written_as_it_comes() -> None:
    """E1: what a killed process had printed must not sit in a buffer."""
    assert member_environment({}, [], 1)["PYTHONUNBUFFERED"] == "1"


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (8 << 30, resource.RLIM_INFINITY))
from tests.agent.test_spark_task import TASK
row = TASK._run("worker:0", "1", 1)
print(row["refusal"])
"""


def test_a_limit_of_the_address_space_is_refused_with_what_to_set_instead(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIMITED],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "8192 MiB" in done.stdout
    assert "unset spark.executor.pyspark.memory" in done.stdout
    assert not (tmp_path / "home").exists()  # nothing was begun


def test_an_unsafe_directory_is_a_refusal_and_no_failed_task(tmp_path: Path) -> None:
    """Spark would retry the task four times, and abort the jobs of the others."""
    (tmp_path / "home").mkdir(mode=0o755)
    row = TASK._run("worker:0", "1", 1)
    assert "0700" in row["refusal"]
    assert "report" not in row


def test_a_machine_that_has_no_process_left_is_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_more(*_: object, **__: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr("executor_agent.launcher.subprocess.Popen", no_more)
    row = TASK._run("worker:0", "1", 1)
    assert "could not be started" in row["refusal"]
    assert "temporarily unavailable" in row["refusal"]


def test_without_an_executor_there_is_nobody_to_hand_over_to() -> None:
    """Not in Spark here: there is no JVM above us."""
    row = replace(TASK, anchor="executor")._run("worker:0", "1", 1)
    assert "the executor's JVM was not found" in row["refusal"]


@pytest.mark.parametrize("anchor, detached", [("task", False), ("executor", True)])
def test_what_is_to_be_handed_over_is_started_detached(
    tmp_path: Path, anchor: str, detached: bool
) -> None:
    launch = replace(TASK, anchor=anchor)._launch("worker:0", "1", tmp_path, 1)
    assert launch.detached is detached


def test_a_handed_over_member_comes_as_a_row_without_a_report(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sentinel = ProcessIdentity(7, 1.5)
    monkeypatch.setattr(spark_chain, "spark_chain", lambda: {"executor": ProcessIdentity(1, 0.0)})
    monkeypatch.setattr(incarnations.SentinelProcess, "run", lambda self: None)
    monkeypatch.setattr(incarnations.SentinelProcess, "identity", sentinel)
    row = replace(TASK, anchor="executor")._run("worker:0", "1", 1)
    assert row.keys() == {"member", "incarnation", "handed_over"}
    where = json.loads(row["handed_over"])
    assert (where["pid"], where["create_time"]) == (7, 1.5)
    assert Path(where["directory"]).is_dir()


@pytest.mark.slow
def test_a_member_that_ends_before_the_hand_over_comes_as_the_usual_row(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its agent finds no coordinator, so it never enters main_fun."""
    me = processes.my_identity()
    monkeypatch.setattr(spark_chain, "spark_chain", lambda: {"task": me, "executor": me})
    row = replace(TASK, anchor="executor", connect_timeout=0.0)._run("worker:0", "1", 1)
    assert "handed_over" not in row
    assert "could not be reached" in json.loads(row["report"])["reason"]


def test_the_launch_says_what_to_run_and_keeps_secrets_out_of_sight(tmp_path: Path) -> None:
    task = replace(TASK, env={"MINE": "1", "OMP_NUM_THREADS": "3"}, has_log_dir=True)
    launch = task._launch("ps:0", "7-a", tmp_path, 2)
    assert launch.marker == "run/ps:0/7-a"
    assert launch.grace == 0.0
    assert launch.member_argv[-2:] == ("--preload", "json")
    assert (launch.member_env["MINE"], launch.member_env["OMP_NUM_THREADS"]) == ("1", "3")
    assert "MINE" not in launch.agent_env  # the user's settings are for the user's program
    for visible in (launch.agent_argv, launch.member_argv, launch.agent_env, launch.member_env):
        assert TOKEN not in str(visible)
    assert TOKEN.encode() in launch.agent_config
    for shown in (repr(task), repr(launch)):
        assert TOKEN not in shown
        assert "the payload" not in shown


@pytest.mark.parametrize(
    "command, executor_id",
    [
        (["java", "-cp", "x", "Backend", "--executor-id", "17", "--cores", "4"], "17"),
        (["java", "SparkSubmit", "pyspark-shell"], "driver"),
        (["java", "--executor-id"], "driver"),
    ],
)
def test_the_executor_s_id_is_read_from_its_command_line(
    monkeypatch: pytest.MonkeyPatch, command: list[str], executor_id: str
) -> None:
    monkeypatch.setattr(spark_chain, "command_line", lambda pid: command)
    assert spark_task._executor_id({"executor": ProcessIdentity(1, 0.0)}) == executor_id


def test_without_an_executor_there_is_no_id() -> None:
    assert spark_task._executor_id({"task": ProcessIdentity(1, 0.0)}) == ""


def test_the_row_has_the_schema_that_spark_is_told() -> None:
    row = spark_task._row({"member": "worker:0", "incarnation": "1", "result": b"\x80"})
    kinds = {pa.string(): "string", pa.binary(): "binary"}
    told = ", ".join(f"{each.name} {kinds[each.type]}" for each in row.schema)
    assert told == ROW_SCHEMA
    assert row.to_pylist() == [
        {
            "member": "worker:0",
            "incarnation": "1",
            "refusal": None,
            "report": None,
            "handed_over": None,
            "result": b"\x80",
        }
    ]


class FakeTaskContext:
    def partitionId(self) -> int:
        return 1

    def taskAttemptId(self) -> int:
        return 42

    def cpus(self) -> int:
        return 2

    def resources(self) -> dict[str, Any]:
        return {"gpu": SimpleNamespace(addresses=["1"])}


Ran = list[tuple[str, str, int, tuple[str, ...] | None]]


@pytest.fixture
def in_a_task(monkeypatch: pytest.MonkeyPatch) -> Ran:
    """A Spark task whose members end at once; what was run."""
    ran: Ran = []

    def run(
        self: MemberTask,
        member: str,
        incarnation: str,
        cpus: int,
        gpus: tuple[str, ...] | None = None,
    ) -> dict[str, Any]:
        ran.append((member, incarnation, cpus, gpus))
        return {"member": member, "incarnation": incarnation}

    monkeypatch.setattr("pyspark.TaskContext.get", FakeTaskContext)
    monkeypatch.setattr(MemberTask, "_run", run)
    return ran


def test_a_partition_is_a_member_and_an_attempt_an_incarnation(
    in_a_task: Ran,
) -> None:
    """R3, R4: two attempts of a slot are never the same incarnation."""
    for _ in range(2):
        [row] = TASK(iter(()))
        assert row.to_pylist()[0]["member"] == "worker:1"
    (_, first, cpus, gpus), (_, second, _, _) = in_a_task
    assert first.startswith("42-")
    assert first != second
    assert (cpus, gpus) == (2, ("1",))


def test_the_input_is_consumed_so_that_spark_keeps_its_worker(
    in_a_task: Ran,
) -> None:
    read: list[int] = []

    def batches() -> Iterator[Any]:
        for number in range(3):
            read.append(number)
            yield number

    assert len(list(TASK(batches()))) == 1
    assert read == [0, 1, 2]


def test_outside_of_a_task_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyspark.TaskContext.get", lambda: None)
    with pytest.raises(RuntimeError, match="not in a Spark task"):
        next(TASK(iter(())))


def test_a_task_travels_without_its_users_modules() -> None:
    """Spark pickles it for the executors, where only tflease is installed."""
    again = pickle.loads(cloudpickle.dumps(TASK.for_members(("ps:0",))))
    assert again == replace(TASK, members=("ps:0",))


def test_no_file_that_came_with_the_task_stands_in_for_a_module_of_the_agent(
    tmp_path: Path,
) -> None:
    """`addPyFile("random.py")` used to end every agent at its first import."""
    for name in ("random.py", "queue.py", "coordinator.py"):
        (tmp_path / name).write_text("raise SystemExit('the wrong module')")
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment = agent_environment(member_environment(inherited, [str(tmp_path)], 1))
    done = subprocess.run(
        [sys.executable, "-c", "import executor_agent.agent, os; print(os.environ['PYTHONPATH'])"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert str(tmp_path) in done.stdout.strip().split(os.pathsep), "what was shipped is there, last"


def test_a_path_of_the_users_comes_before_that_of_the_task_and_does_not_hide_it() -> None:
    task = replace(TASK, env={"PYTHONPATH": "/opt/mine", "X": "1"})
    launch = task._launch("worker:0", "1-a", Path("/tmp/m"), 1)
    first, *rest = launch.member_env["PYTHONPATH"].split(os.pathsep)
    assert first == "/opt/mine"
    assert rest == list(dict.fromkeys(map(os.path.abspath, sys.path)))
    assert launch.member_env["X"] == "1"
    assert "X" not in launch.agent_env
