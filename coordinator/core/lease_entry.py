"""One GPU in the book. Changed by ``lease_book`` alone."""

from __future__ import annotations

from typing import ClassVar

from coordinator.core.durable import Ledger, Records, Tracked
from coordinator.core.durable_values import Instant, codec
from coordinator.core.gpu import GpuSight, LeaseRequest, LeaseState, LeaseToken, LeaseView

QUARANTINE_AFTER = 60.0
"""Seconds without proof after which a GPU is put aside, for people to look at."""

REVOKE_AFTER = 20.0
"""Seconds from a lease's lapse, of which its holder is told, to its end: the bound of a stop."""

_NEVER = float("inf")


class Entry(Tracked):
    """Mutable state of one GPU.

    ``outsider``: who was seen with it although no lease of this book says so, and its pids. Such a
    GPU is not granted. ``elsewhere``: host and boot where it was seen although it is not free at
    ``hostname`` and ``boot_id``. ``is_put_aside``: by an operator, so that no proof brings it back.
    """

    DURABLE: ClassVar = {
        "hostname": codec(str),
        "boot_id": codec(str),
        "index": codec(int),
        "name": codec(str),
        "state": codec(LeaseState),
        "since": codec(Instant),
        "token": codec(LeaseToken | None),
        "request_id": codec(str),
        "holder": codec(str),
        "who": codec(str),
        "ttl": codec(float),
        "has_lapsed": codec(bool),
        "reason": codec(str),
        "pids": codec(tuple[int, ...]),
        "outsider": codec(tuple[str, tuple[int, ...]] | None),
        "elsewhere": codec(tuple[str, str] | None),
        "is_put_aside": codec(bool),
    }

    def __init__(
        self, uuid: str, hostname: str, boot_id: str, now: float, ledger: Ledger | None = None
    ) -> None:
        self.track(ledger, "gpu", uuid)
        self.uuid = uuid
        self.hostname = hostname
        self.boot_id = boot_id
        self.index = -1
        self.name = ""
        self.state = LeaseState.FREE
        self.since = now
        self.token: LeaseToken | None = None  # of the last lease
        self.request_id = self.holder = self.who = ""  # of the last lease
        self.ttl = _NEVER
        self.renewed_at = now
        self.has_lapsed = False
        self.reason = ""
        self.pids: tuple[int, ...] = ()
        self.outsider: tuple[str, tuple[int, ...]] | None = None
        self.elsewhere: tuple[str, str] | None = None
        self.is_put_aside = False

    @classmethod
    def restore(cls, uuid: str, records: Records, ledger: Ledger | None) -> Entry:
        """As it was; its holder has its full time to be heard of. Raises BrokenRecord."""
        entry = cls.__new__(cls)
        entry.track(ledger, "gpu", uuid)
        entry.uuid, entry.renewed_at = uuid, records.now
        records.load(entry)  # all else that `__init__` sets
        if entry.state is LeaseState.UNPROVEN:
            until = records.postponed(entry.since + QUARANTINE_AFTER, QUARANTINE_AFTER)
            entry.since = until - QUARANTINE_AFTER
        return entry

    # -- what it is ------------------------------------------------------------------------

    @property
    def is_stuck(self) -> bool:
        """True when only a proof, or an operator, makes it free."""
        return self.state in (LeaseState.UNPROVEN, LeaseState.QUARANTINED)

    @property
    def may_be_proven(self) -> bool:
        """True when it is worth an agent's look."""
        if self.state is LeaseState.FREE:
            return self.outsider is not None
        return not self.is_put_aside and (self.is_stuck or self.elsewhere is not None)

    @property
    def is_grantable(self) -> bool:
        """True when the next in the queue may have it."""
        return self.state is LeaseState.FREE and self.outsider is None

    def is_held_with(self, token: LeaseToken) -> bool:
        """True while this lease lives, and was heard of in time."""
        return self.token == token and self.state.is_live and not self.has_lapsed

    def obstacle(self, now: float | None = None) -> str:
        """Why it cannot be granted, in words; empty when it can. With ``now`` also for how long."""
        if self.is_grantable:
            return ""
        if self.state is LeaseState.FREE:
            holder, pids = self.outsider or ("", ())
            return f"{self} is in use by {holder}{_named(pids)}"
        if self.state.is_live:
            leaving = ", which is leaving" if self.state is LeaseState.RELEASING else ""
            return (
                f"{self} is held by {self.who} of {self.holder}{leaving}{self._for_how_long(now)}"
            )
        last = f"; last held by {self.who} of {self.holder}" if self.holder else ""
        why = f"{self.reason}{_named(self.pids)}{last}"
        return f"{self} is {self.state.value}{self._for_how_long(now)}: {why}"

    def _for_how_long(self, now: float | None) -> str:
        return "" if now is None else f", for {max(0.0, now - self.since):.0f} s"

    def __str__(self) -> str:
        return f"GPU {self.uuid}{self.name and f' ({self.name})'} on {self.hostname}"

    # -- what happens to it ----------------------------------------------------------------

    def see(self, sight: GpuSight, *, is_new: bool = False) -> None:
        """What an agent on its host tells of it. That its holder has it is no news. ``is_new``: it
        was asked to look; else "free" may be older than what is known by now."""
        self.index, self.name = sight.index, sight.name or self.name
        if self.state is LeaseState.FREE:
            if not sight.is_free:
                self.outsider = (sight.holder or "somebody", sight.pids)
            elif is_new:
                self.outsider = None
        elif self.is_stuck and not sight.is_free and not self.is_put_aside:
            self.reason, self.pids = sight.holder or self.reason, sight.pids

    def hold(self, token: LeaseToken, request: LeaseRequest, who: str, now: float) -> None:
        """Granted."""
        assert self.is_grantable, self.obstacle()
        assert self.token is None or token > self.token or self._is_foreign(token)
        self.state, self.since, self.token = LeaseState.HELD, now, token
        self.request_id, self.holder, self.who = request.request_id, request.holder, who
        self.ttl, self.renewed_at, self.has_lapsed = request.ttl, now, False

    def _is_foreign(self, token: LeaseToken) -> bool:
        return self.token is None or self.token.coordinator_id != token.coordinator_id

    def renew(self, now: float) -> None:
        """Its holder was heard of."""
        self.renewed_at = max(self.renewed_at, now)

    def free(self, now: float) -> None:
        """Proven, or an operator's word."""
        self.state, self.since = LeaseState.FREE, now
        self.reason, self.pids = "", ()
        self.has_lapsed = self.is_put_aside = False
        if self.elsewhere is not None:
            self.hostname, self.boot_id = self.elsewhere
            self.elsewhere = None

    def doubt(self, reason: str, pids: tuple[int, ...], now: float) -> None:
        """Its holder is gone, or is not to be waited for, and nothing is proven."""
        self.state, self.since = LeaseState.UNPROVEN, now
        self.reason, self.pids, self.has_lapsed = reason, pids, False

    def quarantine(self, now: float) -> None:
        """No proof came in time."""
        self.state, self.since = LeaseState.QUARANTINED, now

    def put_aside(self, reason: str, now: float) -> None:
        """By an operator."""
        self.quarantine(now)
        self.reason, self.pids, self.is_put_aside = reason, (), True
        self.outsider = None

    # -- time ------------------------------------------------------------------------------

    def next_deadline(self) -> float:
        """When something happens to it if nobody does anything."""
        if self.state is LeaseState.UNPROVEN:
            return self.since + QUARANTINE_AFTER
        if self.state.is_live:
            lapse = self.renewed_at + self.ttl
            return lapse + REVOKE_AFTER if self.has_lapsed else lapse
        return _NEVER

    def extend(self, seconds: float) -> None:
        """The coordinator itself was away for so long."""
        self.renewed_at += seconds
        if self.state is LeaseState.UNPROVEN:
            self.since += seconds

    def view(self) -> LeaseView:
        """A frozen copy."""
        reason, pids = self.reason, self.pids
        if self.state is LeaseState.FREE and self.outsider is not None:
            reason, pids = f"in use by {self.outsider[0]}", self.outsider[1]
        return LeaseView(
            uuid=self.uuid,
            state=self.state,
            hostname=self.hostname,
            boot_id=self.boot_id,
            name=self.name,
            token=self.token,
            holder=self.holder,
            who=self.who,
            since=self.since,
            expires_at=self.renewed_at + self.ttl if self.state.is_live else None,
            reason=reason,
            pids=pids,
        )

    def check_invariants(self) -> None:
        """What must hold between events. Raises AssertionError."""
        if self.state.is_live:
            assert self.token is not None
            assert self.request_id
            assert self.who
            assert self.next_deadline() < _NEVER, "a lease without an end"
        if self.is_stuck:
            assert self.reason, "nobody knows why it is not free"
        assert not self.is_put_aside or self.state is LeaseState.QUARANTINED
        if self.state is LeaseState.FREE:
            assert not self.has_lapsed, "a lapse without a lease"
            assert self.elsewhere is None, "a free GPU is where it was seen last"
        else:
            assert self.outsider is None, "an outsider with a GPU that is not free"


def _named(pids: tuple[int, ...]) -> str:
    if not pids:
        return ""
    return f" (pid {pids[0]})" if len(pids) == 1 else f" (pids {', '.join(map(str, pids))})"
