"""The ways between driver, coordinator and executors, as an examination has tried them (R9)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from coordinator.check import Check, failed, note, ok
from coordinator.spark.host_lines import grouped, judged
from executor_agent.examination import Facts


@dataclass(frozen=True, slots=True)
class Driver:
    """What executors are compared with. ``address``: where the roll was called, None when it was
    not; ``coordinator``: of a standalone one. ``unreached``: hosts, and why the driver's own
    connection to them failed."""

    python: str
    tflease: str
    java: str = ""
    address: str | None = None
    coordinator: str | None = None
    unreached: Mapping[str, str] = field(default_factory=dict)


def lines(driver: Driver, hosts: Sequence[Facts]) -> Iterator[Check]:
    """One a way."""
    if driver.coordinator is not None:
        yield judged(
            "way to coordinator",
            hosts,
            lambda facts: facts.reached.get("coordinator", "not tried"),
            lambda _: f"{driver.coordinator} can be reached",
            f"executors must reach the coordinator at {driver.coordinator}: let it listen on an "
            "address of its machine's network (tflease serve --listen), and open the port",
        )
    if driver.address is None:
        yield note(
            "way to driver",
            "not tried: with Spark Connect the driver's machine may be out of reach, and nothing "
            "needs it",
        )
        return
    yield judged(
        "way to driver",
        hosts,
        lambda facts: facts.reached.get("driver", "not tried"),
        lambda _: f"{driver.address} can be reached",
        f"the coordinator of a run listens on the driver: let executors reach {driver.address}, "
        "set spark.driver.host or advertise=... to an address that they reach, or bind=... to a "
        "port that is open",
    )
    yield judged(
        "members' ports",
        hosts,
        lambda facts: facts.port_problem,
        lambda facts: facts.address,
        "open a range of ports between the executors and name it (ports=...), and their network "
        "(network=...)",
    )
    unreached = {host: why for host, why in driver.unreached.items() if why}
    if unreached:
        yield note(
            "way from driver",
            grouped(unreached),
            "members do not need it: but where a firewall is in the way here, one may be between "
            "executors, too",
        )
    elif any(each.address for each in hosts):
        yield ok("way from driver", "every executor's port can be reached")
    yield from _between(hosts)


def _between(hosts: Sequence[Facts]) -> Iterator[Check]:
    name = "between executors"
    advice = (
        "name the network in which executors reach each other (network=...), and open the "
        "members' ports (ports=...) between them"
    )
    if len(hosts) < 2:
        return
    addresses = {each.hostname: each.address.rpartition(":")[0] for each in hosts if each.address}
    loopback = {host: at for host, at in addresses.items() if _is_loopback(at)}
    twice = len(set(addresses.values())) < len(addresses)
    if loopback or twice:
        wrong = loopback or addresses
        text = "addresses that do not tell hosts apart: " + grouped(wrong)
        yield failed(name, text, advice)
        return
    yield judged(
        name,
        hosts,
        lambda facts: "; ".join(facts.unreached),
        lambda facts: "all reach each other" if facts.peers else "not tried",
        advice,
    )


def _is_loopback(host: str) -> bool:
    return host.startswith("127.") or host.strip("[]") == "::1"
