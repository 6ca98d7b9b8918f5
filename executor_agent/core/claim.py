"""A member's claim: who was started for it, for whoever has to clean up after a sudden death.

Owns: the claim and what its processes' states say about the member. Written before anybody is
started, removed once it is proven that nobody is left: a claim without a living sentinel is a
member that has to be swept. Must not know processes or files.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from enum import Enum
from typing import Literal, TypeAlias

from executor_agent.core.decoding import json_object

SENTINEL, AGENT, MEMBER = "sentinel", "agent", "member"

Who: TypeAlias = tuple[int, float]
"""pid and create_time (seconds since boot): a ProcessIdentity in plain values."""

State: TypeAlias = Literal["runs", "stopped", "gone"]
"""stopped: SIGSTOP or a debugger holds it. A zombie is gone."""


@dataclass(frozen=True, slots=True)
class Claim:
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

    def to_json(self) -> str:
        """The text that `from_json` reads."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str | bytes) -> Claim:
        """ValueError for anything but a complete claim; what a newer version adds is ignored."""
        known = {field.name for field in fields(cls)}
        raw = {name: value for name, value in json_object(text).items() if name in known}
        try:
            for name in ("processes", "anchors"):
                raw[name] = {who: (int(pid), float(at)) for who, (pid, at) in raw[name].items()}
            return cls(**raw)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"claim is incomplete: {error}") from None


class Standing(Enum):
    """What became of the member of a claim."""

    LIVES = "lives"  # its sentinel looks after it
    ABANDONED = "its sentinel is gone"
    HUNG = "its sentinel is stopped, and what it watched is gone"
    EARLIER_BOOT = "the machine was started again since"


def standing(claim: Claim, boot_id: str, state_of: Callable[[Who], State]) -> Standing:
    """`state_of`: of exactly this process. A sentinel that merely has no turn on a busy machine is
    not hung: only one that is stopped cannot act."""
    if claim.boot_id != boot_id:
        return Standing.EARLIER_BOOT
    sentinel = claim.processes.get(SENTINEL)
    state: State = "gone" if sentinel is None else state_of(sentinel)
    if state == "gone":
        return Standing.ABANDONED
    an_anchor_is_gone = any(state_of(anchor) == "gone" for anchor in claim.anchors.values())
    return Standing.HUNG if state == "stopped" and an_anchor_is_gone else Standing.LIVES
