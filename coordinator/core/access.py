"""Who may do what, and what TLS needs. Values and one table: no secrets are checked here."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field


class Role(enum.Enum):
    """What a token is good for."""

    OPERATOR = "operator"
    """Everything."""
    SUBMITTER = "submitter"
    """Creates runs, and asks for GPUs of its own."""
    READER = "reader"
    """Looks at everything, changes nothing."""
    OWNER = "owner"
    """Watches, stops and reports on one run."""
    AGENT = "agent"
    """Reserves and attends in one run."""

    @property
    def is_of_a_run(self) -> bool:
        """True for tokens that open one run only."""
        return self in (Role.OWNER, Role.AGENT)


@dataclass(frozen=True, slots=True)
class Principal:
    """Who calls. ``name``: for people and logs; of an owner or an agent it is the id of its run."""

    role: Role
    name: str = ""

    def __str__(self) -> str:
        return f"{self.role.value} {self.name}".rstrip()


@dataclass(frozen=True, slots=True)
class ClientTls:
    """What a client needs to speak TLS; PEM texts. ``ca``: who the server's certificate must come
    from; empty: anybody that the system trusts. ``certificate`` and ``key``: its own, where the
    server wants to see one. ``server_name``: the name in the server's certificate, where that is
    not the host that is called."""

    ca: str = field(repr=False)  # pages of text that tell nobody anything
    certificate: str = field(default="", repr=False)
    key: str = field(default="", repr=False)
    server_name: str = ""

    def to_plain(self) -> dict[str, str]:
        """For a configuration that travels as JSON."""
        return {
            "ca": self.ca,
            "certificate": self.certificate,
            "key": self.key,
            "server_name": self.server_name,
        }

    @classmethod
    def of(cls, values: Mapping[str, str]) -> ClientTls:
        """Raises TypeError for anything that ``to_plain`` has not made."""
        if not all(isinstance(value, str) for value in values.values()):
            raise TypeError("TLS is made of texts")
        return cls(**values)


def tls_of(plain: Mapping[str, str] | None) -> ClientTls | None:
    """From ``ClientTls.to_plain``, or None for plaintext. Raises TypeError."""
    return None if plain is None else ClientTls.of(plain)


@dataclass(frozen=True, slots=True)
class ServerTls:
    """What a server needs to speak TLS; PEM texts. ``client_ca``: whoever calls must show a
    certificate of this authority (mutual TLS); empty: nobody has to."""

    certificate: str = field(repr=False)
    key: str = field(repr=False)
    client_ca: str = field(default="", repr=False)


_EVERYBODY = frozenset(Role) - {Role.AGENT}
_OF_SUBMITTERS = frozenset({Role.OPERATOR, Role.SUBMITTER})
_LOOKING_AT_ALL = frozenset({Role.OPERATOR, Role.SUBMITTER, Role.READER})
_OF_OWNERS = frozenset({Role.OPERATOR, Role.OWNER})
_OF_AGENTS = frozenset({Role.OPERATOR, Role.AGENT})
_OF_OPERATORS = frozenset({Role.OPERATOR})

CALLS: Mapping[str, frozenset[Role]] = {
    "RunService/CreateRun": _OF_SUBMITTERS,
    "RunService/GetRun": _EVERYBODY,
    "RunService/ListRuns": _LOOKING_AT_ALL,
    "RunService/WatchRun": _EVERYBODY,
    "RunService/OwnRun": _OF_OWNERS,
    "RunService/StopRun": _OF_OWNERS,
    "RunService/ReportScheduling": _OF_OWNERS,
    "RunService/ReportTaskEnd": _OF_OWNERS,
    "ReservationService/Reserve": _OF_AGENTS,
    "ReservationService/Attend": _OF_AGENTS,
    "LogService/ReadLog": _EVERYBODY,
    "EventService/WatchEvents": _EVERYBODY,
    "FileService/SendFiles": _OF_AGENTS,
    "FileService/ReceiveFiles": _OF_OWNERS,
    "GpuLeaseService/ListGpus": _LOOKING_AT_ALL,
    "GpuLeaseService/ReportGpus": _OF_OPERATORS,
    "GpuLeaseService/InspectGpus": _OF_OPERATORS,
    "GpuLeaseService/AcquireGpus": _OF_SUBMITTERS,
    "GpuLeaseService/UseGpus": _OF_SUBMITTERS,
    "GpuLeaseService/RenewGpus": _OF_SUBMITTERS,
    "GpuLeaseService/ReleaseGpus": _OF_SUBMITTERS,
    "GpuLeaseService/QuarantineGpu": _OF_OPERATORS,
    "GpuLeaseService/ClearGpu": _OF_OPERATORS,
}
"""Who may make which call; the tokens of a run for that run only. A test holds it against the
contract."""


def may_call(role: Role, name: str) -> bool:
    """``name``: "RunService/CreateRun"."""
    return role in CALLS.get(name, frozenset())
