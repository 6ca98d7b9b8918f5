"""How much a coordinator takes from those who call it: numbers only, checked in ``limiting``.

Each default leaves room for a gang of 10,000 members, each with a connection of its own, and keeps
what one caller can cost within what the process can bear.
"""

from __future__ import annotations

import resource
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import Any

KIB = 1024
MIB = 1024 * KIB
_UNITS = {"KiB": KIB, "MiB": MIB, "GiB": 1024 * MIB}

RESERVED_DESCRIPTORS = 128
"""Of the process itself: its listener, journal, log and whatever Python holds open."""


def _limit(default: float, text: str) -> Any:
    return field(default=default, metadata={"text": text})


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one coordinator. Names that end in ``_bytes`` are bytes, ``_timeout`` and
    ``_patience`` seconds, ``_per_second`` and ``_per_minute`` rates; the others are numbers of
    things. Raises ValueError for one that is not above 0."""

    # -- what one message may hold ----------------------------------------------------------
    message_bytes: int = _limit(
        8 * MIB, "the largest message that is read at all: what Spark says of 10,000 tasks"
    )
    report_bytes: int = _limit(2 * MIB, "the largest report of how a member ended")
    request_bytes: int = _limit(
        512 * KIB, "the largest message that is neither a report, a log, nor a list of tasks"
    )
    answer_bytes: int = _limit(
        64 * MIB, "the largest message that is sent, and that clients take: a run's full status"
    )
    metadata_bytes: int = _limit(16 * KIB, "the headers of one call")

    # -- runs -------------------------------------------------------------------------------
    members_per_run: int = _limit(10_000, "members of one run")
    members: int = _limit(20_000, "members of all runs that are alive")
    runs: int = _limit(500, "runs that are alive")
    runs_per_minute: int = _limit(300, "new runs within a minute, from everybody together")

    # -- calls and streams ------------------------------------------------------------------
    connections: int = _limit(20_000, "connections, if the process may open as many descriptors")
    calls: int = _limit(20_000, "single calls that are being answered; as many may wait for that")
    calls_per_connection: int = _limit(
        400, "single calls of one connection beside its streams; gRPC has the others tried again"
    )
    streams_per_connection: int = _limit(1_100, "sessions, watchers and owners of one connection")
    sessions: int = _limit(20_000, "sessions of members")
    watchers_per_run: int = _limit(100, "watchers and owners of one run")
    followers: int = _limit(100, "calls that follow the record of events")
    gpu_waits: int = _limit(1_000, "calls that wait for GPUs")
    gpu_patience: float = _limit(7 * 86_400.0, "how long a call may wait for GPUs")
    file_senders: int = _limit(20_000, "agents that send files")
    file_receivers: int = _limit(500, "drivers that receive files")
    file_bytes: int = _limit(
        64 * MIB,
        "pieces of files that wait for slow drivers, of all runs; of one run at most as much as is "
        "left for the others",
    )
    log_readers_per_member: int = _limit(16, "calls that read the log of one member")

    # -- rates ------------------------------------------------------------------------------
    messages_per_second: float = _limit(
        500.0, "messages of one session; one of more than 4 KiB counts as several"
    )
    message_burst: int = _limit(2_000, "messages of one session that may come at once")
    session_log_bytes_per_second: float = _limit(8.0 * MIB, "log that one session sends")
    session_file_bytes_per_second: float = _limit(8.0 * MIB, "pieces of files that one agent sends")
    log_bytes_per_second: float = _limit(32.0 * MIB, "log that is read from all members together")
    commands: int = _limit(256, "commands that wait for a member that does not read them")

    # -- patience ---------------------------------------------------------------------------
    hello_timeout: float = _limit(10.0, "from the beginning of a session to its first message")
    handshake_timeout: float = _limit(
        20.0, "from the beginning of a connection to the end of the handshakes of TLS and HTTP/2"
    )

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if not 0 < value < float("inf"):
                raise ValueError(f"limit {item.name}={value}: must be more than 0")

    @classmethod
    def parse(cls, texts: Iterable[str]) -> Limits:
        """``["runs=500", "message_bytes=16MiB"]``, the others as usual. Raises ValueError, with
        what to write instead."""
        defaults = {item.name: item.default for item in fields(cls)}
        given: dict[str, float] = {}
        for text in texts:
            name, equals, value = (part.strip() for part in text.partition("="))
            if not equals:
                raise ValueError(f"limit {text!r}: write NAME=VALUE, for instance runs=500")
            if name not in defaults:
                raise ValueError(f"there is no limit {name!r}; there are: {', '.join(defaults)}")
            if name in given:
                raise ValueError(f"limit {name} is given twice")
            given[name] = _number(name, value, whole=isinstance(defaults[name], int))
        return cls(**given)  # type: ignore[arg-type]  # whole numbers where they have to be

    @classmethod
    def describe(cls) -> list[tuple[str, str, str]]:
        """For people: name, default and meaning of each."""
        return [
            (item.name, _text(item.name, item.default), item.metadata["text"])
            for item in fields(cls)
        ]


def _number(name: str, text: str, *, whole: bool) -> float:
    unit = next((unit for unit in _UNITS if text.endswith(unit)), "")
    if unit and "bytes" not in name:
        raise ValueError(f"limit {name}={text}: is no number of bytes and has no unit {unit}")
    try:
        value = float(text.removesuffix(unit).replace("_", "")) * _UNITS.get(unit, 1)
    except ValueError:
        example = " or 16MiB" if "bytes" in name else ""
        raise ValueError(
            f"limit {name}={text!r}: give a number, for instance 500{example}"
        ) from None
    if not whole:
        return value
    if value != value // 1:
        raise ValueError(f"limit {name}={text}: must be a whole number")
    return int(value)


def _text(name: str, value: Any) -> str:
    if "bytes" in name:
        for unit, size in reversed(_UNITS.items()):
            if value >= size and value % size == 0:
                return f"{value / size:g} {unit}"
    seconds = " s" if name.endswith(("_timeout", "_patience")) else ""
    return f"{value:,g}{seconds}" if value >= 1_000_000 else f"{value:,.10g}{seconds}"


def connections_within(limits: Limits) -> int:
    """So many connections as the limits and the operating system allow."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return limits.connections
    return max(1, min(limits.connections, soft - RESERVED_DESCRIPTORS))


def raise_descriptor_limit() -> None:
    """As many descriptors as the system allows: every member has a connection, and the usual soft
    limit of 1,024 is there for the sake of select(), which nobody here uses."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
