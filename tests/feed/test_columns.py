"""Arrow to NumPy, type by type: what comes, what is refused and in which words."""

from __future__ import annotations

import datetime
import decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from executor_agent.feed.columns import (
    ColumnSpec,
    Converter,
    FeedMismatch,
    Ragged,
    convert,
    make_specs,
)

FLOAT, DOUBLE, INT, LONG = np.float32, np.float64, np.int32, np.int64
VECTOR = pa.struct(
    [
        ("type", pa.int8()),
        ("size", pa.int32()),
        ("indices", pa.list_(pa.int32())),
        ("values", pa.list_(pa.float64())),
    ]
)


def dense(*values: float) -> dict[str, Any]:
    return {"type": 1, "size": None, "indices": None, "values": list(values)}


def sparse(size: int, **values: float) -> dict[str, Any]:
    indices = [int(name[1:]) for name in values]
    return {"type": 0, "size": size, "indices": indices, "values": list(values.values())}


def batch_of(array: pa.Array) -> pa.RecordBatch:
    return pa.record_batch([array], names=["x"])


def sliced(array: pa.Array) -> pa.Array:
    """The same rows, but at an offset into larger memory, with other rows around them."""
    many = pa.concat_arrays([array, array, array])
    return many.slice(len(array), len(array))


def convert_one(array: pa.Array, dtype: Any, shape: Any = (), default: Any = None) -> Any:
    return convert(batch_of(array), {"x": ColumnSpec(np.dtype(dtype), shape, default)})["x"]


def lists_of(value: Any) -> Any:
    if isinstance(value, Ragged):
        return [lists_of(value[i]) for i in range(len(value))]
    return value.tolist()


UTC = datetime.UTC
MOMENT = datetime.datetime(2024, 2, 29, 12, 30, 0, 7, tzinfo=UTC)
MICROSECONDS = 1_709_209_800_000_007

CONVERSIONS = {
    "int8": (pa.array([1, -2], pa.int8()), np.int8, (), [1, -2]),
    "int16": (pa.array([1, -2], pa.int16()), np.int16, (), [1, -2]),
    "int32": (pa.array([1, -2], pa.int32()), INT, (), [1, -2]),
    "int64": (pa.array([1, -2]), LONG, (), [1, -2]),
    "uint8": (pa.array([1, 255], pa.uint8()), np.uint8, (), [1, 255]),
    "float16": (pa.array([0.5, 2], pa.float16()), np.float16, (), [0.5, 2.0]),
    "float32": (pa.array([0.5, 2], pa.float32()), FLOAT, (), [0.5, 2.0]),
    "float64": (pa.array([0.5, 2]), DOUBLE, (), [0.5, 2.0]),
    "bool": (pa.array([True, False, True]), np.bool_, (), [True, False, True]),
    "long as int": (pa.array([7, -7]), INT, (), [7, -7]),
    "double as float": (pa.array([0.5, 2]), FLOAT, (), [0.5, 2.0]),
    "int as float": (pa.array([1, 2]), FLOAT, (), [1.0, 2.0]),
    "bool as float": (pa.array([True, False]), FLOAT, (), [1.0, 0.0]),
    "one value of shape (1,)": (pa.array([1, 2]), LONG, (1,), [[1], [2]]),
    "string": (pa.array(["a", "é"]), object, (), [b"a", "é".encode()]),
    "large string": (pa.array(["a", "bc"], pa.large_string()), object, (), [b"a", b"bc"]),
    "string view": (pa.array(["a", "bc"], pa.string_view()), object, (), [b"a", b"bc"]),
    "binary": (pa.array([b"\x00", b""]), object, (), [b"\x00", b""]),
    "dictionary": (pa.array(["a", "b"]).dictionary_encode(), object, (), [b"a", b"b"]),
    "binary as tensors": (
        pa.array([bytes([1, 2, 3, 4]), bytes([5, 6, 7, 8])]), np.uint8, (2, 2),
        [[[1, 2], [3, 4]], [[5, 6], [7, 8]]],
    ),
    "large binary as tensors": (
        pa.array([np.array([n, 9], FLOAT).tobytes() for n in (1, 2)], pa.large_binary()),
        FLOAT, (2,), [[1, 9], [2, 9]],
    ),
    "binary view as tensors": (
        pa.array([np.array([n, 9], FLOAT).tobytes() for n in (1, 2)], pa.binary_view()),
        FLOAT, (2,), [[1, 9], [2, 9]],
    ),
    "fixed binary as tensors": (
        pa.array([b"\x01\x00", b"\x02\x00"], pa.binary(2)), np.int16, (), [1, 2],
    ),
    "bytes as bools": (pa.array([b"\x01\x00", b"\x02\x01"]), np.bool_, (2,),
                       [[True, False], [True, True]]),
    "list": (pa.array([[1.0, 2.0], [3.0, 4.0]]), FLOAT, (2,), [[1, 2], [3, 4]]),
    "large list": (pa.array([[1, 2], [3, 4]], pa.large_list(pa.int64())), LONG, (2,),
                   [[1, 2], [3, 4]]),
    "list view": (pa.array([[1, 2], [3, 4]], pa.list_view(pa.int64())), LONG, (2,),
                  [[1, 2], [3, 4]]),
    "fixed list": (pa.array([[1, 2], [3, 4]], pa.list_(pa.int64(), 2)), LONG, (2,),
                   [[1, 2], [3, 4]]),
    "flat list": (pa.array([[1, 2, 3, 4], [5, 6, 7, 8]]), LONG, (2, 2),
                  [[[1, 2], [3, 4]], [[5, 6], [7, 8]]]),
    "nested list": (pa.array([[[1, 2], [3, 4]], [[5, 6], [7, 8]]]), LONG, (2, 2),
                    [[[1, 2], [3, 4]], [[5, 6], [7, 8]]]),
    "list of strings": (pa.array([["a", "b"], ["c", "d"]]), object, (2,),
                        [[b"a", b"b"], [b"c", b"d"]]),
    "list of bools": (pa.array([[True, False]] * 3), np.bool_, (2,), [[True, False]] * 3),
    "list of tensors": (pa.array([[b"\x01\x02", b"\x03\x04"], []]), np.uint8, (None, 2),
                        [[[1, 2], [3, 4]], []]),
    "ragged": (pa.array([[1, 2], [], [3]]), LONG, (None,), [[1, 2], [], [3]]),
    "ragged large list": (pa.array([[1], []], pa.large_list(pa.int64())), LONG, (None,), [[1], []]),
    "ragged strings": (pa.array([["a"], []]), object, (None,), [[b"a"], []]),
    "ragged in two": (pa.array([[[1], [2, 3]], [], [[], [4]]]), LONG, (None, None),
                      [[[1], [2, 3]], [], [[], [4]]]),
    "ragged in three": (pa.array([[[[1], []]], [[], [[2, 3]]]]), LONG, (None, None, None),
                        [[[[1], []]], [[], [[2, 3]]]]),
    "ragged of fixed": (pa.array([[[1, 2], [3, 4]], [[5, 6]]]), LONG, (None, 2),
                        [[[1, 2], [3, 4]], [[5, 6]]]),
    "fixed list as ragged": (pa.array([[1, 2], [3, 4]], pa.list_(pa.int64(), 2)), LONG, (None,),
                             [[1, 2], [3, 4]]),
    "dense vectors": (pa.array([dense(1, 2), dense(3, 4)], VECTOR), FLOAT, (2,), [[1, 2], [3, 4]]),
    "sparse vectors": (pa.array([sparse(3, i2=5.0), sparse(3)], VECTOR), FLOAT, (3,),
                       [[0, 0, 5], [0, 0, 0]]),
    "both vectors": (pa.array([sparse(2, i0=5.0), dense(1, 2), sparse(2, i1=6.0)], VECTOR), DOUBLE,
                     (2,), [[5, 0], [1, 2], [0, 6]]),
    "list of vectors": (pa.array([[dense(1, 2)], []], pa.list_(VECTOR)), FLOAT, (None, 2),
                        [[[1, 2]], []]),
    "timestamp": (pa.array([MOMENT], pa.timestamp("us", "UTC")), LONG, (), [MICROSECONDS]),
    "timestamp elsewhere": (pa.array([MOMENT], pa.timestamp("us", "Asia/Tokyo")), LONG, (),
                            [MICROSECONDS]),
    "timestamp in seconds": (pa.array([5], pa.timestamp("s")), LONG, (), [5_000_000]),
    "timestamp in nanoseconds": (pa.array([5_999], pa.timestamp("ns")), LONG, (), [5]),
    "date": (pa.array([datetime.date(1970, 1, 11)]), INT, (), [10]),
    "duration": (pa.array([datetime.timedelta(seconds=2)]), LONG, (), [2_000_000]),
    "decimal": (pa.array([decimal.Decimal("1.25")]), DOUBLE, (), [1.25]),
    "decimal with a scale of its own": (
        pa.array([decimal.Decimal("1.250")], pa.decimal128(38, 18)), FLOAT, (), [1.25],
    ),
}  # fmt: skip


@pytest.mark.parametrize("cut", [lambda array: array, sliced], ids=["whole", "sliced"])
@pytest.mark.parametrize("array, dtype, shape, expected", CONVERSIONS.values(), ids=CONVERSIONS)
def test_a_type_becomes_what_was_asked(
    array: pa.Array, dtype: Any, shape: Any, expected: Any, cut: Any
) -> None:
    values = convert_one(cut(array), dtype, shape)
    assert lists_of(values) == expected
    flat = values.flat_values if isinstance(values, Ragged) else values
    assert flat.dtype == np.dtype(dtype)


@pytest.mark.parametrize("array, dtype, shape, expected", CONVERSIONS.values(), ids=CONVERSIONS)
def test_no_rows_have_the_same_types_and_shapes(
    array: pa.Array, dtype: Any, shape: Any, expected: Any
) -> None:
    for none in (array.slice(0, 0), array.slice(len(array)), pa.array([], array.type)):
        values = convert_one(none, dtype, shape)
        assert len(values) == 0
        if not isinstance(values, Ragged):
            assert values.shape == (0, *shape)


NULLS = {
    "int": (pa.array([1, None, 3]), LONG, (), 9, [1, 9, 3]),
    "int as float": (pa.array([1, None]), FLOAT, (), -0.5, [1, -0.5]),
    "bool": (pa.array([True, None]), np.bool_, (), True, [True, True]),
    "string": (pa.array(["a", None]), object, (), "none", [b"a", b"none"]),
    "decimal": (pa.array([None, decimal.Decimal("0.5")]), DOUBLE, (), 2, [2, 0.5]),
    "timestamp": (pa.array([None, 5], pa.timestamp("us")), LONG, (), 0, [0, 5]),
    "list": (pa.array([[1, 2], None, [3, 4]]), LONG, (2,), 0, [[1, 2], [0, 0], [3, 4]]),
    "list with its own default": (pa.array([None, [3, None]]), LONG, (2,), [7, 8],
                                  [[7, 8], [3, 8]]),
    "fixed list": (pa.array([None, [3, None]], pa.list_(pa.int64(), 2)), LONG, (2,), 5,
                   [[5, 5], [3, 5]]),
    "inner list": (pa.array([[[1, 2], None], None]), LONG, (2, 2), 0,
                   [[[1, 2], [0, 0]], [[0, 0], [0, 0]]]),
    "short list": (pa.array([[1], [], [2, 3, 4]]), LONG, (3,), -1,
                   [[1, -1, -1], [-1, -1, -1], [2, 3, 4]]),
    "short strings": (pa.array([["a"], []]), object, (2,), b"-", [[b"a", b"-"], [b"-", b"-"]]),
    "ragged": (pa.array([[1, None], None, [3]]), LONG, (None,), 0, [[1, 0], [], [3]]),
    "tensor": (pa.array([b"\x01\x02", None]), np.uint8, (2,), 7, [[1, 2], [7, 7]]),
    "vector": (pa.array([None, dense(1, 2)], VECTOR), FLOAT, (2,), 0, [[0, 0], [1, 2]]),
}  # fmt: skip


@pytest.mark.parametrize("cut", [lambda array: array, sliced], ids=["whole", "sliced"])
@pytest.mark.parametrize("array, dtype, shape, default, expected", NULLS.values(), ids=NULLS)
def test_a_default_fills_what_is_missing(
    array: pa.Array, dtype: Any, shape: Any, default: Any, expected: Any, cut: Any
) -> None:
    assert lists_of(convert_one(cut(array), dtype, shape, default)) == expected


@pytest.mark.parametrize("array, dtype, shape, default, expected", NULLS.values(), ids=NULLS)
def test_without_a_default_what_is_missing_is_an_error_that_names_the_column(
    array: pa.Array, dtype: Any, shape: Any, default: Any, expected: Any
) -> None:
    with pytest.raises(FeedMismatch, match="column 'x'") as caught:
        convert_one(array, dtype, shape)
    assert "default" in str(caught.value)


def test_nulls_are_counted() -> None:
    with pytest.raises(FeedMismatch, match="column 'x': 2 nulls in 3 rows:"):
        convert_one(pa.array([None, 1, None]), LONG)
    with pytest.raises(FeedMismatch, match="column 'x': 1 null in 2 rows inside of them:"):
        convert_one(pa.array([[1, 2], [None, 4]]), LONG, (2,))


WRONG_ROWS = {
    "lengths": (pa.array([[1, 2], [3]]), LONG, (2,), "1 of 2 lists do not have 2 values"),
    "too long for its padding": (pa.array([[1, 2, 3], [3]]), LONG, (2,), "lists do not have 2"),
    "flat": (pa.array([[1, 2, 3]]), LONG, (2, 2), "1 of 1 lists do not have 4 values"),
    "inner lengths": (pa.array([[[1], [2, 3]]]), LONG, (2, 2), "lists do not have 2 values"),
    "bytes": (pa.array([b"ab", b"c"]), np.uint8, (2,), "1 of 2 values do not have the 2 bytes"),
    "vectors": (pa.array([dense(1, 2)], VECTOR), FLOAT, (3,), "1 of 1 vectors do not have 3"),
    "range": (pa.array([1, 2**40]), INT, (), "values from 1 to 1099511627776 do not fit"),
    "sign": (pa.array([-1]), np.uint8, (), "do not fit into uint8"),
}


@pytest.mark.parametrize("array, dtype, shape, words", WRONG_ROWS.values(), ids=WRONG_ROWS)
def test_rows_of_another_shape_are_an_error(
    array: pa.Array, dtype: Any, shape: Any, words: str
) -> None:
    with pytest.raises(FeedMismatch, match="column 'x'") as caught:
        convert_one(array, dtype, shape)
    assert words in str(caught.value)


def test_two_lists_that_are_as_long_together_as_two_right_ones_are_an_error() -> None:
    with pytest.raises(FeedMismatch, match="2 of 2 lists"):
        convert_one(pa.array([[1, 2, 3], [4]]), LONG, (2,))


def test_numbers_are_not_copied() -> None:
    for array, dtype, shape in (
        (pa.array([1.0, 2.0]), DOUBLE, ()),
        (pa.array([[1, 2], [3, 4]]), LONG, (2,)),
        (pa.array([b"\x01\x02", b"\x03\x04"]), np.uint8, (2,)),
        (pa.array([5, 6], pa.timestamp("us")), LONG, ()),
    ):
        values = convert_one(sliced(array), dtype, shape)
        assert not values.flags.owndata
        assert not values.flags.writeable  # Arrow's own memory


def test_bytes_at_an_odd_place_become_aligned_numbers() -> None:
    array = pa.array([b"x", *[np.array([n], LONG).tobytes() for n in (1, 2)]]).slice(1)
    values = convert_one(array, LONG)
    assert values.flags.aligned
    assert values.tolist() == [1, 2]


def test_columns_may_move_between_batches_but_not_change() -> None:
    converter = Converter(make_specs({"a": ("i8", ()), "b": ("f4", ())}))
    a, b = pa.array([1, 2]), pa.array([0.5, 1.5], pa.float32())
    for batch in (
        pa.record_batch({"a": a, "b": b}),
        pa.record_batch({"b": b, "z": a, "a": a}),
        pa.record_batch({"a": a.cast(pa.int32()), "b": b}),
    ):
        found = converter(batch)
        assert {name: values.tolist() for name, values in found.items()} == {
            "a": [1, 2],
            "b": [0.5, 1.5],
        }
    with pytest.raises(FeedMismatch, match="column 'b': no such column; there are: 'a', 'c'"):
        converter(pa.record_batch({"a": a, "c": b}))
