"""What the Spark task tells the agent. PURE.

It arrives in an anonymous file, never in argv or the environment: it holds the run's token and the
key of its clients.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """Times in seconds.

    ``claim``: the member's file among the claims of this host.
    ``coordinator``: "host:port". ``grace``: what a stop leaves this member. ``connect_timeout``:
    how long the coordinator may be out of reach before the member has a slot. ``ports``: the first
    and the last port that the member may listen on; None: any. ``network``: in CIDR notation; the
    member advertises its address in it. None: the address on the route to the coordinator.
    ``gpus``: how many the member's role asked for. ``gpu_addresses``: those that Spark has assigned
    to the task; None: it has assigned none, so that any of the host will do. ``created_at``: when
    the driver made the run, Unix time: the same for all of its members. ``tls``: what the client
    needs for TLS, as plain texts; None: the coordinator speaks plaintext.
    ``feed_key``: a ``FeedKey`` as plain texts; None: Spark does not feed the member.
    ``has_log_dir``: what the member writes into its log directory is streamed to the driver.
    ``predecessor``: the incarnation that had the slot before, in the same task; empty: none had.
    ``preferred_ports``: the member listens on these where it can: others may know it by them.
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
    has_log_dir: bool = False
    model_dir: str | None = None
    ports: tuple[int, int] | None = None
    network: str | None = None
    gpus: int = 0
    gpu_addresses: tuple[str, ...] | None = None
    created_at: float = 0.0
    tls: Mapping[str, str] | None = field(default=None, repr=False)
    feed_key: Mapping[str, str] | None = field(default=None, repr=False)
    predecessor: str = ""
    preferred_ports: tuple[int, ...] = ()

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
            values["preferred_ports"] = tuple(map(int, values.get("preferred_ports", ())))
            if values.get("gpu_addresses") is not None:
                values["gpu_addresses"] = tuple(map(str, values["gpu_addresses"]))
            if not int(values.get("gpus", 0)) >= 0:
                raise ValueError(f"{values['gpus']} GPUs cannot be asked for")
            for name in ("tls", "feed_key"):
                texts = values.get(name)
                if texts is not None and not all(isinstance(each, str) for each in texts.values()):
                    raise ValueError(f"{name} is made of texts")
            return cls(**values)
        except (AttributeError, TypeError, ValueError) as error:
            raise ValueError(f"broken agent configuration: {error}") from None
