"""How a coordinator's log looks: text for people, or JSON for collectors; one line for each record,
whatever its author has put into it.

Authors are users, too: an exception's text may hold line breaks that would look like other records,
and bytes that move a terminal's cursor.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from enum import Enum
from typing import Any, TextIO

_FIELDS = ("run_id", "subject", "kind")
"""What ``chronicle`` says of an event beside its text."""


class LogFormat(Enum):
    """The lines on standard error."""

    TEXT = "text"
    JSON = "json"


def log_to_stderr(level: str, form: LogFormat = LogFormat.TEXT) -> None:
    """For the whole process. Times are in UTC: several machines are compared by them."""
    logging.basicConfig(level=level, handlers=[handler(sys.stderr, form)], force=True)


def handler(stream: TextIO, form: LogFormat) -> logging.Handler:
    """Writes to ``stream``."""
    made = logging.StreamHandler(stream)
    made.setFormatter(JsonLine() if form is LogFormat.JSON else TextLine())
    return made


class TextLine(logging.Formatter):
    """ "2026-11-23T13:00:00Z INFO run 3fa9: formed: all 2 members are there"."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%SZ")
        self.converter = time.gmtime

    def format(self, record: logging.LogRecord) -> str:
        return one_line(super().format(record))


class JsonLine(logging.Formatter):
    """An object with ``time``, ``level``, ``message`` and, where they are known, ``run_id``,
    ``member`` or ``gpu``, ``kind`` and ``exception``."""

    def format(self, record: logging.LogRecord) -> str:
        values: dict[str, Any] = {
            "time": _time(record),
            "level": record.levelname,
            "message": record.getMessage(),
        }
        for name in _FIELDS:
            value = getattr(record, name, "")
            if value:
                values[_name(name, record)] = value
        if record.exc_info:
            values["exception"] = self.formatException(record.exc_info)
        return json.dumps(values, default=str)  # ASCII: no line breaks, no surrogates


def _name(field: str, record: logging.LogRecord) -> str:
    if field != "subject":
        return field
    return "gpu" if str(getattr(record, "kind", "")).startswith("gpu.") else "member"


def _time(record: logging.LogRecord) -> str:
    moment = time.gmtime(record.created)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', moment)}.{int(record.msecs):03d}Z"


def one_line(text: str) -> str:
    r"""What cannot be printed as Python would write it in a string: ``\n``, ``\x1b``."""
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in text
    )
