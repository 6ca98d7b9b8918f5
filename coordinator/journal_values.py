"""What goes into the journal and comes out of it. Values only, and the one error."""

from __future__ import annotations

from dataclasses import dataclass

Key = tuple[str, str]
"""Of a record: its kind, and its key among those of that kind."""


class JournalUnusable(Exception):
    """The journal cannot be opened, read or written. The text says why and what to do."""


@dataclass(frozen=True, slots=True)
class EventRecord:
    """Something that happened, in one sentence for people.

    ``id`` grows for ever and is given by the caller; the same id again replaces the event. ``at``
    in Unix seconds. ``run_id`` is empty when it is about no run in particular, ``subject`` who or
    what it is about ("worker:1", a GPU's UUID), ``kind`` a short word for programs ("run.failed").
    """

    id: int
    at: float
    run_id: str
    subject: str
    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class EventQuery:
    """Which events, in the order of their ids. What is left empty does not restrict.

    ``since`` and ``until`` in Unix seconds, both included. ``text``: in the text or the subject,
    whatever the case of ASCII letters. ``kind``: this one, or all that begin with it and a dot.
    ``limit``: the first so many after ``after_id``; with ``is_latest`` the last so many.
    """

    run_id: str = ""
    since: float | None = None
    until: float | None = None
    text: str = ""
    kind: str = ""
    after_id: int = 0
    limit: int = 1000
    is_latest: bool = False


@dataclass(frozen=True, slots=True)
class Retention:
    """How long events stay: whichever bound comes first. The newest one always stays, because the
    next id is read from it. Records stay until they are removed."""

    days: float = 30.0
    rows: int = 1_000_000

    def __post_init__(self) -> None:
        if not self.days > 0 or self.rows < 1:
            raise ValueError(f"events must be kept for some time and there must be some: {self}")
