"""One line for each record, whatever its author has put into it."""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Iterator

import pytest

from coordinator import logging_setup
from coordinator.logging_setup import LogFormat

NASTY = "first\nsecond\r\x1b[2J\u2028\x00\udce4 \U0001f980"


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    made = logging.getLogger("test of the log")
    made.propagate = False
    made.setLevel(logging.DEBUG)
    yield made
    made.handlers.clear()


def written(logger: logging.Logger, form: LogFormat) -> io.StringIO:
    stream = io.StringIO()
    logger.addHandler(logging_setup.handler(stream, form))
    return stream


@pytest.mark.parametrize("form", LogFormat)
def test_a_record_is_one_line_whatever_is_in_it(logger: logging.Logger, form: LogFormat) -> None:
    stream = written(logger, form)
    logger.info("%s", NASTY, extra={"run_id": NASTY, "subject": NASTY, "kind": NASTY})
    try:
        raise ValueError(NASTY)
    except ValueError:
        logger.exception("a bug")
    lines = stream.getvalue().split("\n")
    assert len(lines) == 3
    assert lines[2] == ""
    for line in lines:
        assert line.isprintable()
        line.encode()  # without surrogates, so that a file takes it
    assert "ValueError" in lines[1]


def test_text_is_for_people(logger: logging.Logger) -> None:
    stream = written(logger, LogFormat.TEXT)
    logger.warning("run %s: %s", "3fa9", "föhn\nwind")
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ WARNING run 3fa9: föhn\\nwind\n", stream.getvalue()
    )


@pytest.mark.parametrize(
    "fields, expected",
    [
        (
            {"run_id": "3fa9", "subject": "worker:1", "kind": "member.lost"},
            {"run_id": "3fa9", "member": "worker:1", "kind": "member.lost"},
        ),
        (
            {"run_id": "", "subject": "GPU-5", "kind": "gpu.unproven"},
            {"gpu": "GPU-5", "kind": "gpu.unproven"},
        ),
        ({}, {}),
    ],
)
def test_json_is_for_collectors(
    logger: logging.Logger, fields: dict[str, str], expected: dict[str, str]
) -> None:
    stream = written(logger, LogFormat.JSON)
    logger.info("it is %d", 5, extra=fields)
    values = json.loads(stream.getvalue())
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", values.pop("time"))
    assert values == {"level": "INFO", "message": "it is 5", **expected}


def test_an_exception_is_a_field(logger: logging.Logger) -> None:
    stream = written(logger, LogFormat.JSON)
    try:
        raise ValueError("no")
    except ValueError:
        logger.exception("a bug")
    values = json.loads(stream.getvalue())
    assert values["message"] == "a bug"
    assert values["exception"].endswith("ValueError: no")
