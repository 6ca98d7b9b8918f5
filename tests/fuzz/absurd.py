"""Messages that are well formed and make no sense, for every method, made from the descriptors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from hypothesis import strategies as st

from tests.integration.grpc import raw

METHODS = sorted(raw.methods(), key=raw.path_of)

_INTEGERS = {
    FieldDescriptor.TYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.TYPE_UINT64: (0, 2**64 - 1),
}
_TEXTS = st.one_of(
    st.sampled_from(["", "\0", "\n" * 50, "../../etc/passwd", "%s%n{}", "NaN", "run", "x" * 2_000]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=30),
)
_FLOATS = st.one_of(
    st.sampled_from([float("nan"), float("inf"), float("-inf"), -0.0, -1.0, 1e308, 5e-324]),
    st.floats(),
)
_NEAR_ZERO = st.integers(-2, 3)
_DEPTH = 4

Known = Callable[[FieldDescriptor], st.SearchStrategy[Any] | None]
"""Values for a field that lead further than nonsense does: ids that exist."""


def messages(kind: Descriptor, known: Known, depth: int = 0) -> st.SearchStrategy[bytes]:
    """Serialized, so that examples are small and repeat exactly."""
    return fields(kind, known, depth).map(lambda values: _message(kind, values).SerializeToString())


def fields(kind: Descriptor, known: Known, depth: int) -> st.SearchStrategy[dict[str, Any]]:
    """Some of the fields of a message, with their values."""
    optional = {
        field.name: _value(field, known, depth)
        for field in kind.fields
        if depth < _DEPTH or field.message_type is None
    }
    return st.fixed_dictionaries({}, optional=optional)


def _value(field: FieldDescriptor, known: Known, depth: int) -> st.SearchStrategy[Any]:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        value = _one(field.message_type.fields_by_name["value"], known, depth)
        return st.dictionaries(_TEXTS, value, max_size=3)
    one = _one(field, known, depth)
    if not field.is_repeated:
        return one
    many = st.builds(lambda value, count: [value] * count, one, st.sampled_from([50, 1_500]))
    return st.one_of(st.lists(one, max_size=3), many if depth < 2 else st.nothing())


def _one(field: FieldDescriptor, known: Known, depth: int) -> st.SearchStrategy[Any]:
    if field.message_type is not None:
        return fields(field.message_type, known, depth + 1)
    leading = known(field)
    absurd = _absurd(field)
    return absurd if leading is None else st.one_of(leading, leading, absurd)


def _absurd(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    if field.type in _INTEGERS:
        low, high = _INTEGERS[field.type]
        small = _NEAR_ZERO if low < 0 else _NEAR_ZERO.map(abs)
        return st.one_of(small, st.sampled_from([low, high]), st.integers(low, high))
    match field.type:
        case FieldDescriptor.TYPE_STRING:
            return _TEXTS
        case FieldDescriptor.TYPE_BYTES:
            return st.binary(max_size=50)
        case FieldDescriptor.TYPE_BOOL:
            return st.booleans()
        case FieldDescriptor.TYPE_ENUM:
            return st.one_of(_NEAR_ZERO.map(abs), st.integers(-(2**31), 2**31 - 1))
        case FieldDescriptor.TYPE_DOUBLE:
            return _FLOATS
    raise AssertionError(f"no strategy for {field.full_name}, of type {field.type}")


def _message(kind: Descriptor, values: dict[str, Any]) -> Any:
    return message_factory.GetMessageClass(kind)(
        **{name: _built(kind.fields_by_name[name], value) for name, value in values.items()}
    )


def _built(field: FieldDescriptor, value: Any) -> Any:
    kind = field.message_type
    if kind is None or kind.GetOptions().map_entry:
        return value
    if field.is_repeated:
        return [_message(kind, each) for each in value]
    return _message(kind, value)
