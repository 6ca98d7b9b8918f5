"""The columns of results, as the user writes them, and as the tasks that make them need them."""

from __future__ import annotations

from typing import Any

from coordinator.core.errors import InvalidRun

_EXAMPLE = 'for example "label bigint, score float" or a StructType'


def parse(schema: Any) -> Any:
    """Spark's StructType. Raises InvalidRun for what is none, or has no columns."""
    from pyspark.sql.types import StructType

    if isinstance(schema, str):
        try:
            schema = StructType.fromDDL(schema)
        except Exception as error:
            raise InvalidRun(
                f"output_schema={schema!r}: Spark does not understand it, {_EXAMPLE} is what it "
                f"takes: {error}"
            ) from None
    if not isinstance(schema, StructType):
        raise InvalidRun(f"output_schema must be {_EXAMPLE}, not {schema!r}")
    if not schema.fields:
        raise InvalidRun(f"output_schema has no columns: name those of the results, {_EXAMPLE}")
    names = schema.names
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InvalidRun(f"output_schema names {', '.join(twice)} more than once")
    return schema


def arrow_bytes(schema: Any) -> bytes:
    """The Arrow schema of that StructType, serialized. Raises InvalidRun for a type that no results
    can have."""
    from pyspark.sql.pandas.types import to_arrow_schema

    try:
        return bytes(to_arrow_schema(schema).serialize().to_pybytes())
    except Exception as error:
        raise InvalidRun(f"output_schema: {error}") from None
