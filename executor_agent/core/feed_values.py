"""What feeders, workers and the driver say to each other when rows are fed. PURE."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

SOCKET_NAME = "feed"
"""The Unix socket of a member's feeds, in its directory."""

MAX_SOCKET_PATH = 100
"""Bytes; longer ones do not fit into a socket's address."""

SERVER_NAME = "tflease-feed"
"""What every member calls itself in the certificate of the run's feeds; those who connect ask for
this name whatever address they call."""

Range = tuple[int, int]
"""Rows of a partition: the first, and the one after the last."""


@dataclass(frozen=True, slots=True)
class FeedEndpoint:
    """Where a member takes rows. ``path``: of its Unix socket on the host with ``boot_id``; ""
    where there is none. ``host`` and ``port``: TCP with TLS, for everybody else."""

    member: str
    host: str
    port: int
    path: str = ""
    boot_id: str = ""

    def to_json(self) -> dict[str, Any]:
        """A plain JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> FeedEndpoint:
        """Raises ValueError for anything else than ``to_json`` gives."""
        try:
            return cls(
                str(plain["member"]),
                str(plain["host"]),
                int(plain["port"]),
                str(plain.get("path", "")),
                str(plain.get("boot_id", "")),
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"no endpoint of a feed: {str(plain)[:200]}: {error!r}") from None


@dataclass(frozen=True, slots=True)
class FeedKey:
    """What opens the feeds of one run, and of no other; made by its driver.

    ``secret``: both ends prove that they know it. ``certificate``: PEM, whose owner is the only one
    that is believed. ``private_key``: PEM, for members alone; feeders have none.
    """

    secret: bytes = field(repr=False)
    certificate: str
    private_key: str = field(default="", repr=False)

    def for_feeders(self) -> FeedKey:
        """Without what only members need."""
        return FeedKey(self.secret, self.certificate)

    def to_plain(self) -> dict[str, str]:
        """Texts, for JSON."""
        return {
            "secret": self.secret.hex(),
            "certificate": self.certificate,
            "private_key": self.private_key,
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, str]) -> FeedKey:
        """Raises ValueError for anything else than ``to_plain`` gives."""
        try:
            secret = bytes.fromhex(plain["secret"])
            return cls(secret, plain["certificate"], plain["private_key"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"no key of a feed: {type(error).__name__}") from None
