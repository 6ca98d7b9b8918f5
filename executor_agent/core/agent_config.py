"""What the Spark task tells the agent. PURE.

It arrives in an anonymous file, never in argv or the environment: it holds the run's token.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """Times in seconds.

    ``claim``: the member's file among the claims of this host.
    ``coordinator``: "host:port". ``grace``: what a stop leaves this member. ``connect_timeout``:
    how long the coordinator may be out of reach before the member has a slot. ``ports``: the first
    and the last port that the member may listen on; None: any. ``network``: in CIDR notation; the
    member advertises its address in it. None: the address on the route to the coordinator.
    """

    coordinator: str
    token: str = field(repr=False)
    run_id: str
    member: str
    incarnation: str
    marker: str
    executor_id: str
    directory: str
    claim: str
    grace: float
    connect_timeout: float
    log_dir: str | None = None
    model_dir: str | None = None
    ports: tuple[int, int] | None = None
    network: str | None = None

    def to_json(self) -> str:
        """The text that ``from_json`` reads."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str | bytes) -> AgentConfig:
        """Raises ValueError for anything but a complete configuration."""
        try:
            values = json.loads(text)
            if values.get("ports") is not None:
                first, last = values["ports"]
                values["ports"] = (int(first), int(last))
                if not 1 <= int(first) <= int(last) <= 65535:
                    raise ValueError(f"{first}-{last} is no range of ports")
            return cls(**values)
        except (AttributeError, TypeError, ValueError) as error:
            raise ValueError(f"broken agent configuration: {error}") from None
