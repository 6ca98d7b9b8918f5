"""Which types of columns fit what is asked, and what a schema says by itself: before any row."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from executor_agent.feed.columns import (
    ColumnSpec,
    FeedMismatch,
    check,
    convert,
    infer,
    make_specs,
    specs_for,
)
from tests.feed.test_columns import FLOAT, INT, LONG, VECTOR, batch_of, sliced

REFUSED = {
    "a list as one value": (pa.list_(pa.int64()), LONG, (), "tf.RaggedTensorSpec"),
    "one value as a list": (pa.int64(), LONG, (2,), "a row has one value"),
    "one value as ragged": (pa.int64(), LONG, (None,), "a row has one value"),
    "too deep": (pa.list_(pa.int64()), LONG, (None, None), "a row has one value"),
    "not deep enough": (pa.list_(pa.list_(pa.int64())), LONG, (2,), "a row has a list"),
    "another width": (pa.list_(pa.int64(), 3), LONG, (2,), "a row has 3 values, not 2"),
    "float as int": (pa.float32(), INT, (), "float32 would lose what it says"),
    "int as bool": (pa.int8(), np.bool_, (), "int8 would lose what it says"),
    "text as a number": (pa.string(), FLOAT, (), ".cast('double')"),
    "a number as text": (pa.int64(), object, (), ".cast('string')"),
    "decimal as int": (pa.decimal128(9, 2), INT, (), "a floating point number"),
    "decimal as text": (pa.decimal128(9, 2), object, (), "a floating point number"),
    "ragged bytes": (pa.binary(), FLOAT, (None,), "name all of its dimensions"),
    "a vector without a length": (VECTOR, FLOAT, (None,), "a vector has a fixed length"),
    "a vector of ints": (VECTOR, INT, (2,), "floating point numbers"),
    "a map": (pa.map_(pa.string(), pa.int64()), LONG, (), "col('m')['key']"),
    "null": (pa.null(), LONG, (), "cast it in Spark"),
    "structs in lists": (pa.list_(pa.struct([("a", pa.int8())])), np.int8, (None,), "getField"),
    "a time": (pa.time64("us"), LONG, (), "time of day"),
    "an interval": (pa.month_day_nano_interval(), LONG, (), "no tensor"),
}


@pytest.mark.parametrize("kind, dtype, shape, hint", REFUSED.values(), ids=REFUSED)
def test_a_schema_is_refused_before_the_first_row_with_a_hint(
    kind: pa.DataType, dtype: Any, shape: Any, hint: str
) -> None:
    spec = {"x": ColumnSpec(np.dtype(dtype), shape)}
    with pytest.raises(FeedMismatch, match="column 'x'") as caught:
        check(pa.schema([("x", kind)]), spec)
    [problem] = caught.value.problems
    assert hint in problem
    assert f"{kind} came" in problem
    assert str(spec["x"]) in problem


def test_all_wrong_columns_are_named_at_once() -> None:
    schema = pa.schema([("a", pa.string()), ("b", pa.int64()), ("c", pa.float32())])
    with pytest.raises(FeedMismatch) as caught:
        check(
            schema, make_specs({"a": ("f4", ()), "b": ("i8", ()), "c": ("i4", ()), "d": ("i4", ())})
        )
    named = [problem.split(":")[0] for problem in caught.value.problems]
    assert named == ["column 'a'", "column 'c'", "column 'd'"]
    assert "there are: 'a', 'b', 'c'" in caught.value.problems[-1]


def test_structs_are_flattened_and_pass_their_nulls_on() -> None:
    kind = pa.struct([("a", pa.int64()), ("b", pa.struct([("c", pa.float32())]))])
    rows = [{"a": 1, "b": {"c": 0.5}}, None, {"a": 3, "b": None}]
    batch = batch_of(sliced(pa.array(rows, kind)))
    specs = specs_for(batch.schema, {"x": {"a": ("i8", ()), "b": {"c": ("f4", ())}}},
                      {"x": {"a": -1}, "x.b.c": 9})  # fmt: skip
    found = convert(batch, specs)
    assert {name: values.tolist() for name, values in found.items()} == {
        "x.a": [1, -1, 3],
        "x.b.c": [0.5, 9, 9],
    }
    with pytest.raises(FeedMismatch, match=r"'x\.a', 'x\.b\.c'"):
        check(batch.schema, make_specs({"x": ("i8", ())}))


def test_two_columns_of_one_name_are_refused_only_where_they_are_asked_for() -> None:
    schema = pa.schema([("x", pa.int64()), ("x", pa.int64()), ("y", pa.int64())])
    assert check(schema, make_specs({"y": ("i8", ())}))["y"].path == (2,)
    with pytest.raises(FeedMismatch, match="there are 2 of this name"):
        check(schema, make_specs({"x": ("i8", ())}))
    with pytest.raises(FeedMismatch, match="there are 2 of this name"):
        infer(schema)


def test_a_schema_says_by_itself_what_it_holds() -> None:
    kinds = {
        "number": pa.float32(), "flag": pa.bool_(), "text": pa.string(), "raw": pa.binary(),
        "list": pa.list_(pa.int32()), "fixed": pa.list_(pa.int32(), 3),
        "nested": pa.list_(pa.list_(pa.int32())), "of fixed": pa.list_(pa.list_(pa.int32(), 3)),
        "fixed of lists": pa.list_(pa.list_(pa.int32()), 3),
        "when": pa.timestamp("us", "UTC"), "day": pa.date32(),
        "s": pa.struct([("a", pa.int64())]),
    }  # fmt: skip
    inferred = infer(pa.schema(list(kinds.items())), {"number": 1})
    assert {name: str(spec) for name, spec in inferred.items()} == {
        "number": "float32 of shape ()", "flag": "bool of shape ()", "text": "string of shape ()",
        "raw": "string of shape ()", "list": "int32 of shape (None,)",
        "fixed": "int32 of shape (3,)", "nested": "int32 of shape (None, None)",
        "of fixed": "int32 of shape (None, 3)", "fixed of lists": "int32 of shape (None, None)",
        "when": "int64 of shape ()", "day": "int32 of shape ()", "s.a": "int64 of shape ()",
    }  # fmt: skip
    assert inferred["number"].default == 1


@pytest.mark.parametrize(
    "kind, hint",
    [
        (VECTOR, "tf.TensorSpec([784]"),
        (pa.decimal128(9, 2), "tf.float64"),
        (pa.map_(pa.string(), pa.int64()), "col('m')['key']"),
        (pa.null(), "no type"),
        (pa.list_(pa.null()), "no type"),
    ],
)
def test_of_some_types_more_must_be_said(kind: pa.DataType, hint: str) -> None:
    with pytest.raises(FeedMismatch, match="column 'x'") as caught:
        infer(pa.schema([("x", kind)]))
    assert hint in str(caught.value)


@pytest.mark.parametrize(
    "spec, hint",
    [
        (3, "is no tf.TensorSpec"),
        (("f4", (2, None)), "comes before all others"),
        (("complex64", ()), "no type of a fed column"),
        (ColumnSpec, "column 'x'"),
    ],
)
def test_a_spec_that_cannot_be_meant_is_refused(spec: Any, hint: str) -> None:
    with pytest.raises(FeedMismatch, match="column 'x'") as caught:
        make_specs({"x": spec})
    assert hint in str(caught.value)


@pytest.mark.parametrize("default", ["word", [1, 2, 3], object()])
def test_a_default_of_another_type_is_refused(default: Any) -> None:
    with pytest.raises(FeedMismatch, match="column 'x': default"):
        make_specs({"x": ("f4", (2,))}, {"x": default})


def test_a_default_for_no_column_is_refused() -> None:
    with pytest.raises(FeedMismatch, match="column 'y': has a default and is not taken"):
        make_specs({"x": ("f4", ())}, {"y": 0})
    with pytest.raises(TypeError, match="maps the names"):
        make_specs(["x"])  # type: ignore[arg-type]
