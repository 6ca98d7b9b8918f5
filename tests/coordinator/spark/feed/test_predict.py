"""A SavedModel over a DataFrame, and rows through a member: in real tasks of Spark's (F8)."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from coordinator.core.errors import CoordinatorUnavailable, FeatureUnavailable, InvalidRun
from coordinator.core.model import Endpoint, ExecutorInfo, MemberPhase, Roles
from coordinator.spark.feed import predict as predict_module
from coordinator.spark.feed.inference import inference
from coordinator.spark.feed.keys import make_key
from coordinator.spark.feed.output_schema import parse
from coordinator.spark.feed.predict import predict
from executor_agent.feed.server import FeedServer
from executor_agent.linux import boot_id
from tests.coordinator.spark.feed.conftest import Make
from tests.coordinator.spark.feed.fake_feeding import DataFrame
from tests.coordinator.spark.feed.local_spark import local_spark

real = [pytest.mark.spark, pytest.mark.tensorflow, pytest.mark.slow]

SAVE = """
import sys, tensorflow as tf

class Model(tf.Module):
    def __init__(self):
        self.weights = tf.Variable([1.0, 10.0])

    @tf.function(input_signature=[
        tf.TensorSpec([None, 2], tf.float32, name="x"), tf.TensorSpec([None], tf.int64, name="k"),
    ])
    def both(self, x, k):
        y = tf.reduce_sum(x * self.weights, axis=1)
        return {"y": y, "pair": x * 2.0, "name": tf.strings.as_string(k)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float64, name="v")])
    def one(self, v):
        return {"out": v + 1.0}

model = Model()
signatures = {"serving_default": model.both, "one": model.one}
tf.saved_model.save(model, sys.argv[1], signatures)
"""

LOOK = """
import json, sys
import pyarrow as pa
from executor_agent.feed.saved_model import describe, load, predict

def error(work, *arguments):
    try:
        work(*arguments)
    except ValueError as raised:
        return str(raised)

path = sys.argv[1]
first, second = load(path, "one"), load(path, "one")
rows = pa.RecordBatch.from_pydict({"v": [1.0, 2.0]})
wrong, missing = pa.schema([("out", pa.list_(pa.string()))]), pa.schema([("a", "f8"), ("b", "f8")])
print(json.dumps({
    "loaded once": first is second,
    "signature": error(load, path, "two"),
    "described signature": error(describe, path, "two"),
    "model": error(load, path + "/nowhere", "one"),
    "described model": error(describe, path + "/nowhere", "one"),
    "type": error(predict, first, rows, {}, wrong),
    "column": error(predict, first, rows, {}, missing),
    "null": error(predict, first, pa.RecordBatch.from_pydict({"v": [1.0, None]}), {}, wrong),
    "inputs": error(predict, first, rows, {"v": "w"}, wrong),
}))
"""


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    """In a process of its own: TensorFlow takes seconds to load, and this one is forked from."""
    path = str(tmp_path_factory.mktemp("model"))
    command = [sys.executable, "-c", SAVE + LOOK, path]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return path, json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def model(saved: tuple[str, dict[str, Any]]) -> str:
    return saved[0]


@pytest.fixture(scope="module")
def found_in_it(saved: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    """What the functions that a task calls return, or the errors that they raise."""
    return saved[1]


@pytest.fixture(scope="module")
def spark() -> Iterator[Any]:
    """With one Python worker, which loads TensorFlow once."""
    with local_spark(cores=1) as session:
        yield session


def rows_of(spark: Any, count: int, partitions: int) -> Any:
    frame = spark.range(0, count, 1, partitions)
    return frame.selectExpr("id", "id AS k", "array(double(id), 0.5D) AS x")


class TestReal:
    pytestmark = real

    def test_outputs_and_columns_that_are_asked_for(self, spark: Any, model: str) -> None:
        frame = rows_of(spark, 25, 3)
        found = predict(
            frame, model, output_schema="id bigint, y double, name string", batch_size=4
        )
        assert found.columns == ["id", "y", "name"]
        assert [tuple(row) for row in found.collect()] == [(n, n + 5.0, str(n)) for n in range(25)]

    def test_all_outputs_without_a_schema(self, spark: Any, model: str) -> None:
        found = predict(rows_of(spark, 2, 1), model)
        assert found.dtypes == [("name", "binary"), ("pair", "array<float>"), ("y", "float")]
        assert found.select("pair").collect()[1].pair == [2.0, 1.0]

    def test_another_signature_and_other_names(self, spark: Any, model: str) -> None:
        frame = spark.range(0, 3, 1, 1).selectExpr("float(id) AS f", "id")
        found = predict(
            frame, model, output_schema="result double", signature="one", inputs={"f": "v"}
        )
        assert [row.result for row in found.collect()] == [1.0, 2.0, 3.0]

    def test_a_worker_loads_a_model_once(self, found_in_it: dict[str, Any]) -> None:
        assert found_in_it["loaded once"] is True

    @pytest.mark.parametrize(
        "error, text",
        [
            ("signature", r"no signature 'two'; it has .*'serving_default'"),
            ("described signature", r"no signature 'two'; it has .*'serving_default'"),
            ("model", r"no SavedModel in .*nowhere"),
            ("described model", r"no SavedModel in .*nowhere"),
            ("type", r"column 'out' of the results is double"),
            ("column", r"no column 'a' in the results, which have out"),
            ("null", r"column 'v': 1 null"),
            ("inputs", r"inputs names 'w'"),
        ],
    )
    def test_an_error_names_what_to_change(
        self, found_in_it: dict[str, Any], error: str, text: str
    ) -> None:
        assert re.search(text, found_in_it[error])

    def test_an_error_of_a_task_comes_to_the_driver(self, spark: Any, model: str) -> None:
        frame = rows_of(spark, 4, 1).drop("x")
        with pytest.raises(Exception, match="the model takes 'x', and no column is called so"):
            predict(frame, model, output_schema="y double").collect()

    def test_rows_go_through_a_member(self, spark: Any, tmp_path: Path, scene: Make) -> None:
        made = scene(roles=Roles(worker=1))
        made.feeding.key = make_key()
        server = FeedServer(tmp_path, 0, made.feeding.key, member="worker:0")
        server.start()
        made.session.change_member(
            "worker:0",
            endpoint=Endpoint("127.0.0.1", 1, server.port),
            executor=ExecutorInfo("host", boot_id(), 1, directory=str(tmp_path)),
        )
        told = threading.Event()

        def main_fun() -> None:
            for batch in server.inference["inference"].batches(7, stopping=told.is_set):
                batch.send({"n": batch["id"], "text": [f"row {n}" for n in batch["id"]]})

        thread = threading.Thread(target=main_fun)
        thread.start()
        try:
            found = inference(made.feeding, spark.range(0, 100, 1, 5), "n bigint, text string")
            rows = [tuple(row) for row in found.collect()]
            wrong = inference(made.feeding, spark.range(3), "n array<int>, text string")
            with pytest.raises(Exception, match="column 'n' of the results is int64"):
                wrong.collect()
        finally:
            told.set()
            thread.join()
            server.close("the test is over")
        assert rows == [(n, f"row {n}") for n in range(100)]


# --- inference through a cluster is refused before anything runs ----------------------------------


def test_inference_needs_a_run_that_is_fed_and_has_somebody_left(scene: Make) -> None:
    made = scene(roles=Roles(worker=1))
    data = DataFrame()
    with pytest.raises(InvalidRun, match="timeout must be"):
        inference(made.feeding, data, schema(), timeout=0)
    with pytest.raises(InvalidRun, match="takes a DataFrame, not an RDD"):
        inference(made.feeding, Rdd(), schema())
    made.session.change_member("worker:0", phase=MemberPhase.EXITED)
    with pytest.raises(InvalidRun, match="main_fun has ended on all members"):
        inference(made.feeding, data, schema())
    made.feeding.key = None
    with pytest.raises(InvalidRun, match=r"InputMode\.SPARK"):
        inference(made.feeding, data, schema())


def test_inference_through_a_run_that_is_over_says_why(scene: Make) -> None:
    made = scene(roles=Roles(worker=1))
    made.session.lose()
    with pytest.raises(CoordinatorUnavailable):
        inference(made.feeding, DataFrame(), schema())


class Rdd:
    """As much of one as is looked at."""

    __module__ = "pyspark.core.rdd"

    def mapPartitions(self) -> None: ...


# --- what is refused before anything runs ---------------------------------------------------------


def frame() -> Any:
    return SimpleNamespace(mapInArrow=lambda task, schema: (task, schema), columns=["a", "b"])


@pytest.mark.parametrize(
    "arguments, text",
    [
        ({"batch_size": 0}, "batch_size=0"),
        ({"batch_size": True}, "batch_size=True"),
        ({"inputs": {"c": "x"}}, "'c', and the DataFrame has 'a', 'b'"),
        ({"output_schema": 5}, "output_schema must be"),
    ],
)
def test_arguments_that_make_no_sense(arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidRun, match=text):
        predict(frame(), "/model", **{"output_schema": schema(), **arguments})


def test_only_dataframes() -> None:
    with pytest.raises(InvalidRun, match="not list"):
        predict([1, 2], "/model", output_schema=schema())


def test_without_tensorflow_the_outputs_must_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predict_module.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(FeatureUnavailable, match="output_schema="):
        predict(frame(), "/model")


def test_what_the_model_s_file_does_not_say_is_told_by_the_driver(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for said, text in (
        ('{"error": "no SavedModel in /model"}', "no SavedModel"),
        ("", "output_schema"),
    ):
        done = SimpleNamespace(stdout=said)
        monkeypatch.setattr(predict_module.subprocess, "run", lambda *_, **__: done)  # noqa: B023
        with pytest.raises(InvalidRun, match=text):
            predict(frame(), "/model")


def test_an_output_that_spark_has_no_type_for_must_be_named() -> None:
    with pytest.raises(InvalidRun, match="output 'c' of the model is complex64"):
        predict_module._column("c", "complex64", 1)
    with pytest.raises(InvalidRun, match="unknown number of dimensions"):
        predict_module._column("c", "float32", None)
    assert predict_module._column("c", "int32", 3) == "`c` array<array<int>>"


def test_a_schema_has_columns_and_each_once() -> None:
    from pyspark.sql.types import LongType, StructType

    with pytest.raises(InvalidRun, match="no columns"):
        parse(StructType([]))
    with pytest.raises(InvalidRun, match="names a more than once"):
        parse(StructType().add("a", LongType()).add("a", LongType()))


def schema() -> Any:
    from pyspark.sql.types import LongType, StructType

    return StructType().add("y", LongType())
