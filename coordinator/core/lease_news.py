"""What the book of GPUs has to tell: one frozen record per piece of news."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from coordinator.core.gpu import LeaseToken


@dataclass(frozen=True, slots=True)
class Acquired:
    """A request has all of its GPUs: the tokens by UUID, and the UUIDs by who wanted them."""

    request_id: str
    tokens: Mapping[str, LeaseToken]
    uuids: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Leased:
    """One GPU has a holder: ``who`` of ``holder``, by this request."""

    uuid: str
    hostname: str
    token: LeaseToken
    request_id: str
    holder: str
    who: str


@dataclass(frozen=True, slots=True)
class Freed:
    """One GPU is free again: the lease is over, and nothing of it is left."""

    uuid: str
    hostname: str
    token: LeaseToken
    request_id: str


@dataclass(frozen=True, slots=True)
class Lapsed:
    """Its holder was not heard of for the lease's time: it is to be told to stop."""

    request_id: str
    who: str
    uuid: str


@dataclass(frozen=True, slots=True)
class Expired:
    """A request was not granted within its patience."""

    request_id: str
    why: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Told:
    """A sentence for the log and for whoever keeps the history of a GPU."""

    uuid: str
    text: str


BookEffect = Acquired | Leased | Freed | Lapsed | Expired | Told
