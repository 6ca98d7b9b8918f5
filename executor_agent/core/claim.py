"""A member's claim: who was started for it, for whoever has to clean up after a sudden death.

Owns: the claim and what its processes' states say about the member. Written before anybody is
started, removed once it is proven that nobody is left: a claim without a living sentinel is a
member that has to be swept. Must not know processes or files.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Literal, TypeAlias

from executor_agent.core.decoding import json_object, require
from executor_agent.core.record import Record

SENTINEL, AGENT, MEMBER = "sentinel", "agent", "member"

Who: TypeAlias = tuple[int, float]
"""pid and create_time (seconds since boot): a ProcessIdentity in plain values."""

State: TypeAlias = Literal["runs", "stopped", "gone"]
"""stopped: SIGSTOP or a debugger holds it. A zombie is gone."""


class Place(Record):
    """Where we are: process numbers of another boot, host or container are not ours to judge."""

    boot_id: str
    host: str  # stays the same over a boot
    namespace: int  # of process numbers; a container mostly has its own
    booted_at: float = math.inf  # Unix time


class Claim(Record):
    """What one member's processes can be recognised by."""

    member: str
    run_id: str
    incarnation: str
    marker: str
    directory: str
    boot_id: str  # identities of another boot mean nothing
    claimed_at: float  # Unix time
    processes: Mapping[str, Who]  # sentinel, agent, member; the last two once they are started
    anchors: Mapping[str, Who]  # those whose death always is the member's end
    pipe: int  # inode of D1; only the member's descendants hold its reading end
    host: str = ""  # as in Place, and so are the next; empty, 0: not known
    namespace: int = 0

    def to_json(self) -> str:
        """The text that `from_json` reads."""
        return json.dumps(self.to_dict())

    @classmethod
    def from_json(cls, text: str | bytes) -> Claim:
        """ValueError for anything but a complete claim; what a newer version adds is ignored."""
        given = json_object(text)
        raw = {name: given[name] for name in cls.fields if name in given}
        try:
            for name in ("processes", "anchors"):
                raw[name] = {who: (int(pid), float(at)) for who, (pid, at) in raw[name].items()}
            claim = cls(**raw)
        except (KeyError, TypeError, AttributeError, OverflowError) as error:
            raise ValueError(f"claim is incomplete: {error}") from None
        for name in ("member", "run_id", "incarnation", "marker", "directory", "boot_id"):
            value = getattr(claim, name)
            require(isinstance(value, str) and bool(value), f"{name} of the claim is no text")
        for name in ("claimed_at", "pipe", "namespace"):
            value = getattr(claim, name)
            require(isinstance(value, int | float), f"{name} is no number")
            require(0 <= value < 1e15, f"{name} is out of range")  # nor is it not a number
        require(claim.directory.startswith("/"), "directory of the claim is not absolute")
        return claim


class Standing(Enum):
    """What became of the member of a claim."""

    LIVES = "lives"  # its sentinel looks after it
    ELSEWHERE = "of another host or container"  # cannot be judged from here
    # The next ones become reasons in tombstones, where the first word says who went.
    ABANDONED = "sentinel is gone"
    HUNG = "sentinel is stopped, and what it watched is gone"
    EARLIER_BOOT = "executor is gone: the machine was started again since"


def standing(claim: Claim, here: Place, state_of: Callable[[Who], State]) -> Standing:
    """`state_of`: of exactly this process. A sentinel that merely has no turn on a busy machine is
    not hung: only one that is stopped cannot act."""
    if claim.boot_id != here.boot_id:
        # The directory may lie on a disk that several hosts share.
        same_host = bool(claim.host) and claim.host == here.host
        is_earlier = same_host and claim.claimed_at < here.booted_at
        return Standing.EARLIER_BOOT if is_earlier else Standing.ELSEWHERE
    if claim.host and here.host and claim.host != here.host:
        return Standing.ELSEWHERE  # two machines that were restored from one snapshot
    if claim.namespace and here.namespace and claim.namespace != here.namespace:
        return Standing.ELSEWHERE
    sentinel = claim.processes.get(SENTINEL)
    state: State = "gone" if sentinel is None else state_of(sentinel)
    if state == "gone":
        return Standing.ABANDONED
    if state == "stopped" and any(state_of(each) == "gone" for each in claim.anchors.values()):
        return Standing.HUNG
    return Standing.LIVES
