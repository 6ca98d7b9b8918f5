"""``tflease version``: what is installed beside this interpreter."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from coordinator.cli import probe


def version(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of lines.")] = (
        False
    ),
) -> None:
    """Versions of tflease and of what it works with, as this interpreter finds them."""
    show(as_json)


def show(as_json: bool = False) -> None:
    """Prints them; something that is missing is said to be."""
    found = versions()
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    width = max(map(len, found))
    for name, value in found.items():
        typer.echo(f"{name:{width}}  {value or 'not installed'}")


def versions() -> dict[str, str | None]:
    """By name; None for what is not installed."""
    import coordinator

    here = probe.this_interpreter()
    protobuf = here.versions.get("protobuf")
    if protobuf is not None:
        how = {"upb": "upb, fast", "cpp": "cpp"}.get(here.protobuf_implementation)
        protobuf = f"{protobuf} ({how or f'{here.protobuf_implementation}, SLOW'})"
    return {
        "tflease": coordinator.__version__,
        "Python": here.python,
        "grpcio": here.versions.get("grpcio"),
        "protobuf": protobuf,
        "pyspark": here.versions.get("pyspark"),
        "tensorflow": here.versions.get("tensorflow"),
    }
