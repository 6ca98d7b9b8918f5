from __future__ import annotations

import datetime
import decimal
from collections import namedtuple
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyspark.ml.linalg import Vectors
from pyspark.sql import Row

from executor_agent.feed.rows import RowMismatch, to_batches

Point = namedtuple("Point", "x y")


def table(rows: list[Any], **kwargs: Any) -> pa.Table:
    return pa.Table.from_batches(to_batches(iter(rows), **kwargs))


@pytest.mark.parametrize(
    "rows, names",
    [
        ([(1, "a"), (2, "b")], ["_1", "_2"]),
        ([[1, "a"], (2, "b")], ["_1", "_2"]),
        ([{"n": 1, "t": "a"}, {"t": "b", "n": 2}], ["n", "t"]),
        ([Row(n=1, t="a"), Row(n=2, t="b")], ["n", "t"]),
        ([Point(1, "a"), Point(2, "b")], ["x", "y"]),
    ],
)
def test_every_kind_of_row_gives_the_same_columns(rows: list[Any], names: list[str]) -> None:
    found = table(rows)
    assert found.column_names == names
    assert found.schema.types == [pa.int64(), pa.string()]
    assert [tuple(row.values()) for row in found.to_pylist()] == [(1, "a"), (2, "b")]


@pytest.mark.parametrize(
    "values, kind",
    [
        ([3, 4], pa.int64()),
        ([2.5, 4], pa.float64()),
        ([True, False], pa.bool_()),
        (["x", None], pa.string()),
        ([b"x", b""], pa.binary()),
        ([np.float32(1.5), np.float32(2)], pa.float32()),
        ([np.uint8(1)], pa.uint8()),
        ([datetime.datetime(2020, 1, 2)], pa.timestamp("us")),
        ([datetime.date(2020, 1, 2)], pa.date32()),
        ([decimal.Decimal("1.5"), decimal.Decimal("12.25")], pa.decimal128(38, 18)),
    ],
)
def test_a_single_value_is_a_column_named_value(values: list[Any], kind: pa.DataType) -> None:
    found = table(values)
    assert found.schema == pa.schema([("value", kind)])
    assert found.column("value").to_pylist() == values


@pytest.mark.parametrize("dtype", ["uint8", "int64", "float32", ">f4", "float16", "bool"])
def test_arrays_of_one_shape_become_fixed_lists_of_that_shape(dtype: str) -> None:
    arrays = [np.arange(n, n + 6).astype(dtype).reshape(2, 3) for n in range(4)]
    column = table([(array, 1) for array in arrays]).column("_1")
    native = pa.from_numpy_dtype(np.dtype(dtype).newbyteorder("="))
    assert column.type == pa.list_(pa.list_(native, 3), 2)
    assert column.to_pylist() == [array.tolist() for array in arrays]


def test_arrays_of_different_lengths_become_lists() -> None:
    column = table([np.arange(3), None, np.arange(0), np.arange(2)]).column("value")
    assert column.type == pa.list_(pa.int64())
    assert column.to_pylist() == [[0, 1, 2], None, [], [0, 1]]


def test_missing_arrays_are_nulls_and_shift_nothing() -> None:
    column = table([(None,), (np.ones(2),), (None,), (np.zeros(2),)]).column("_1")
    assert column.type == pa.list_(pa.float64(), 2)
    assert column.to_pylist() == [None, [1, 1], None, [0, 0]]


def test_vectors_of_spark_ml_become_fixed_lists() -> None:
    column = table([Vectors.dense([1, 2]), Vectors.sparse(2, {1: 3.0})]).column("value")
    assert column.type == pa.list_(pa.float64(), 2)
    assert column.to_pylist() == [[1, 2], [0, 3]]


def test_lists_stay_lists_however_deep() -> None:
    rows = [([1.0, 2], [[1], [2, 3]]), ([], [[], [4]]), (None, None), ([None, 1.5], [None])]
    found = table(rows)
    assert found.schema.types == [pa.list_(pa.float64()), pa.list_(pa.list_(pa.int64()))]
    assert [tuple(row.values()) for row in found.to_pylist()] == rows


def test_an_empty_partition_gives_no_batch() -> None:
    assert list(to_batches([])) == []


def test_a_narrower_later_value_is_widened() -> None:
    rows = [(0.5, [0.5], np.ones(2))] * 100 + [(7, [7], np.ones(2))]
    found = table(rows, target=500)
    assert found.schema.types == [pa.float64(), pa.list_(pa.float64()), pa.list_(pa.float64(), 2)]
    assert found.to_pylist()[-1] == {"_1": 7.0, "_2": [7.0], "_3": [1, 1]}


@pytest.mark.parametrize(
    "first, later, said",
    [
        ((1,), (1.5,), "column '_1': 1.5 is double, but the column is int64"),
        ((1,), ("x",), "column '_1': 'x' is string, but the column is int64"),
        (("x",), (1,), "column '_1': 1 is int64, but the column is string"),
        ((True,), (1,), "1 is int64, but the column is bool"),
        (([1],), ([1, 2.5],), "[1, 2.5] is list<item: double>, but the column is list<item: int6"),
        ((1.5,), (2**60 + 1,), "is int64, but the column is double"),
        ((np.zeros(3),), (np.zeros(2),), "fixed_size_list<item: double>[2], but the column is"),
        ((np.zeros(3),), (np.zeros(2),), "or give lists (list(array)) where lengths vary"),
        ((1,), (object(),), "no column can hold this object"),
        ((1,), (2**70,), "no column can hold this int"),
        ((1,), (1, 2), "has the columns _1, _2; the first row is of type tuple with the columns _"),
        ((1,), {"a": 1}, "is of type dict ({'a': 1}); the first row is of type tuple"),
        ({"a": 1}, {"b": 1}, "has the columns b; the first row is of type dict with the columns a"),
        ({"a": 1}, {"a": 1, "b": 1}, "has the columns a, b"),
        (Row(a=1, b=2), Row(b=2, a=1), "has the columns b, a"),
        (1, b"x", "column 'value': b'x' is binary, but the column is int64"),
    ],
)
def test_a_row_that_does_not_fit_is_named(first: Any, later: Any, said: str) -> None:
    with pytest.raises(RowMismatch) as caught:
        table([first] * 5000 + [later], target=4096)
    assert "row 5000 of this partition" in str(caught.value)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "first, later, said",
    [
        (
            (1,),
            ("x",),
            "column '_1': 'x' is string, but the column is int64, the type of the first",
        ),
        ((True,), (1,), "1 is int64, but the column is bool"),
        ((1,), (object(),), "no column can hold this object"),
        ((1,), (1, 2), "has the columns _1, _2"),
        (Row(a=1, b=2), Row(b=2, a=1), "has the columns b, a"),
        ((np.zeros(3),), (np.zeros((2, 2)),), "but the column is fixed_size_list<item: double>[3]"),
    ],
)
def test_a_row_that_does_not_fit_into_the_first_batch_is_named(
    first: Any, later: Any, said: str
) -> None:
    with pytest.raises(RowMismatch) as caught:
        table([first, later])
    assert "row 1 of this partition" in str(caught.value)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "first, later, kind",
    [
        ((1,), (1.5,), pa.float64()),
        (([1],), ([1, 2.5],), pa.list_(pa.float64())),
        ((np.zeros(3),), (np.zeros(2),), pa.list_(pa.float64())),
    ],
)
def test_the_first_batch_as_a_whole_settles_a_type(first: Any, later: Any, kind: Any) -> None:
    assert table([first, later]).schema.types == [kind]


@pytest.mark.parametrize("rows", [[(1, None)], [(1, [])], [None, None]])
def test_a_column_without_a_value_is_refused_with_a_hint(rows: list[Any]) -> None:
    with pytest.raises(RowMismatch, match=r"only nulls or empty lists in the first \d rows"):
        table(rows)


def test_names_of_columns_are_text() -> None:
    with pytest.raises(RowMismatch, match="key 1 of type int"):
        table([{1: 2}])


@pytest.mark.parametrize("row", [(), [], {}])
def test_a_row_without_columns_is_refused(row: Any) -> None:
    with pytest.raises(RowMismatch, match="no columns"):
        table([row])


def test_arrays_of_different_types_are_refused_by_name() -> None:
    with pytest.raises(RowMismatch, match="float32, float64"):
        table([(np.zeros(3),), (np.zeros(3, np.float32),)])


@pytest.mark.parametrize(
    "row",
    [
        (np.zeros(784, np.float32), 1),
        (bytes(784), 1),
        (1.0, 2.0, 3.0, 4.0, 5),
        ([0.5] * 100, "text"),
        {"a": "some text", "b": None, "c": 1},
    ],
    ids=["array", "bytes", "numbers", "list", "dict"],
)
def test_batches_come_close_to_their_size(row: Any) -> None:
    first = {**row, "b": 1} if isinstance(row, dict) else row
    sizes = [batch.nbytes for batch in to_batches([first] + [row] * 20_000, target=1 << 17)]
    assert len(sizes) > 2
    assert all(size < 3 << 17 for size in sizes)
    assert sorted(sizes)[len(sizes) // 2] > 1 << 15


def test_a_few_large_rows_among_small_ones_do_not_gather() -> None:
    rows = [(b"small",)] * 5000 + [(bytes(1 << 20),)] * 5 + [(b"small",)] * 10
    batches = list(to_batches(rows, target=1 << 16))
    assert sum(batch.num_rows for batch in batches) == len(rows)
    assert max(batch.nbytes for batch in batches) < 2 << 20
