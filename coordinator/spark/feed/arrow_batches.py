"""How large Spark's Arrow batches are while a DataFrame is fed.

Batches of a few MB beat Spark's default of 64 MB for wide rows. The default of 10,000 records stays
as it is: without any, Spark 4.3 fails to run Python functions that the DataFrame itself has. The
setting belongs to a session: it is put back when the last feed of it has ended.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

_log = logging.getLogger("tflease")

NAME = "spark.sql.execution.arrow.maxBytesPerBatch"
VALUE = "4m"


@dataclass
class _Held:
    """One session. ``is_set``: by us; ``count``: feeds under way."""

    is_set: bool
    count: int = 0


_lock = threading.Lock()
_held: dict[str, _Held] = {}


@contextmanager
def small(session: Any) -> Iterator[None]:
    """Inside of it the session's batches are small, unless the user has said how large they are.
    Settings that a server keeps to itself stay as they are: batches are cut by the feeder too."""
    name = _identity(session)
    with _lock:
        held = _held.get(name)
        if held is None:
            held = _held[name] = _Held(_set(session.conf))
        held.count += 1
    try:
        yield
    finally:
        with _lock:
            held.count -= 1
            if held.count == 0:
                del _held[name]
                if held.is_set:
                    _unset(session.conf)


def _set(conf: Any) -> bool:
    try:
        # The user's own value stays; an older Spark has no such bound.
        if conf.get(NAME, None) is None and conf.isModifiable(NAME):
            conf.set(NAME, VALUE)
            return True
    except Exception as error:  # py4j's, Connect's: rows are fed all the same
        _log.debug("the size of Arrow batches stays as it is: %s", error)
    return False


def _unset(conf: Any) -> None:
    try:
        conf.unset(NAME)
    except Exception as error:  # a session that was stopped has no settings any more
        _log.debug("the size of Arrow batches was not put back: %s", error)


def _identity(session: Any) -> str:
    """The same for all objects that stand for one session."""
    found = getattr(session, "session_id", None)  # of Spark Connect
    if isinstance(found, str):
        return found
    try:
        return str(session._jsparkSession.sessionUUID())
    except Exception:  # an internal interface: then each object counts for itself
        return str(id(session))
