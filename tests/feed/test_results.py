"""What a model gives becomes the columns that were asked for (F8)."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pytest

from executor_agent.feed.results import ResultsMismatch, cast, to_batch


def answer(results: Any, rows: int, **columns: pa.DataType) -> list[dict[str, Any]]:
    schema = pa.schema([pa.field(name, kind) for name, kind in columns.items()])
    rows_given: list[dict[str, Any]] = cast(to_batch(results, rows), schema).to_pylist()
    return rows_given


class Pair(NamedTuple):
    low: int
    high: int


class Ragged(NamedTuple):
    """As `tf.RaggedTensor` has them."""

    values: np.ndarray[Any, Any]
    row_splits: np.ndarray[Any, Any]


def test_an_array_becomes_the_only_column() -> None:
    assert answer(np.array([1, 2]), 2, p=pa.int64()) == [{"p": 1}, {"p": 2}]


def test_arrays_by_name_are_cast() -> None:
    given = {"p": np.array([0.5, 1.5], np.float64), "k": np.array([1, 2], np.int64)}
    expected = [{"k": 1, "p": 0.5}, {"k": 2, "p": 1.5}]
    assert answer(given, 2, k=pa.int32(), p=pa.float32()) == expected


def test_further_dimensions_become_lists() -> None:
    given = np.arange(12, dtype=np.float32).reshape(2, 3, 2)
    [first, _] = answer(given, 2, p=pa.list_(pa.list_(pa.float32())))
    assert first == {"p": [[0, 1], [2, 3], [4, 5]]}


def test_one_value_in_a_dimension_of_its_own_is_a_value_where_one_is_asked_for() -> None:
    given = np.array([[0.5], [1.5]])
    assert answer(given, 2, p=pa.float64()) == [{"p": 0.5}, {"p": 1.5}]
    assert answer(given, 2, p=pa.list_(pa.float64())) == [{"p": [0.5]}, {"p": [1.5]}]


def test_ragged_results_become_lists() -> None:
    given = Ragged(np.array([1, 2, 3]), np.array([0, 2, 2, 3]))
    lists = answer({"p": given}, 3, p=pa.list_(pa.int64()))
    assert lists == [{"p": [1, 2]}, {"p": []}, {"p": [3]}]


@pytest.mark.parametrize(
    "given",
    [
        [(1, 2), (3, 4)],
        [Pair(1, 2), Pair(3, 4)],
        [{"low": 1, "high": 2}, {"low": 3, "high": 4}],
    ],
)
def test_rows_become_columns(given: list[Any]) -> None:
    rows = answer(given, 2, low=pa.int64(), high=pa.int64())
    assert rows == [{"low": 1, "high": 2}, {"low": 3, "high": 4}]


def test_text_is_bytes_or_strings() -> None:
    assert answer(np.array([b"a", b"b"], object), 2, p=pa.string()) == [{"p": "a"}, {"p": "b"}]
    assert answer(["a", None], 2, p=pa.string()) == [{"p": "a"}, {"p": None}]


@pytest.mark.parametrize(
    "given, count",
    [
        (np.zeros(3), "3 results"),
        ([1, 2, 3], "3 results"),
        ([], "0 results"),
        ({"a": np.zeros(2), "b": np.zeros(1)}, "1 results in column 'b'"),
        ([(1, 2)], "1 results"),
    ],
)
def test_a_wrong_count_says_both_numbers(given: Any, count: str) -> None:
    with pytest.raises(ResultsMismatch, match=count) as raised:
        to_batch(given, 2)
    assert "batch of 2 rows" in str(raised.value)


def test_one_single_value_is_no_result_for_each_row() -> None:
    with pytest.raises(ResultsMismatch, match="one single value"):
        to_batch(np.float32(1), 2)


def test_no_columns_are_no_results() -> None:
    with pytest.raises(ResultsMismatch, match="no results"):
        to_batch({}, 2)


@pytest.mark.parametrize(
    "given, kind",
    [
        (np.array([0.5, 1.5]), pa.int64()),
        (np.array([1, 2**40]), pa.int32()),
        (np.array(["a", "b"]), pa.float32()),
        (np.zeros((2, 3)), pa.float64()),
    ],
)
def test_a_type_that_does_not_fit_names_the_column(given: Any, kind: pa.DataType) -> None:
    with pytest.raises(ResultsMismatch, match="column 'p'") as raised:
        answer({"p": given}, 2, p=kind)
    assert str(kind) in str(raised.value)


def test_a_column_that_is_not_there_is_named_beside_those_that_are() -> None:
    with pytest.raises(ResultsMismatch, match=r"no column 'p'.* q"):
        answer({"q": np.zeros(2)}, 2, p=pa.float64())


def test_results_without_names_are_as_many_as_the_columns_asked_for() -> None:
    with pytest.raises(ResultsMismatch, match="2 columns"):
        answer(np.zeros(2), 2, p=pa.float64(), q=pa.float64())
