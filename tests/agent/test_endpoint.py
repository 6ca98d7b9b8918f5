"""What stands between a member and its endpoint is waited for if it may pass, and told if not."""

from __future__ import annotations

import socket
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest

from executor_agent import endpoint
from executor_agent.attendance import MustStop
from executor_agent.ports import NoFreePort
from tests.agent.test_agent_config import CONFIG

HERE = socket.gethostname()
LOCAL = replace(CONFIG, coordinator="127.0.0.1:7787", ports=(7000, 7001))
IMPATIENT = replace(LOCAL, connect_timeout=0.0)


class Taking:
    """In place of ``HeldPort``: fails so often, then succeeds."""

    def __init__(self, failures: int, error: Exception) -> None:
        self.left = failures
        self.error = error

    def __call__(self, ports: tuple[int, int] | None, preferred: int) -> Any:
        assert ports == (7000, 7001)
        self.preferred = preferred
        if self.left:
            self.left -= 1
            raise self.error
        return self


async def test_a_port_that_a_leaving_member_still_has_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """R8: a retried task may be quicker than the end of the first one."""
    taking = Taking(3, NoFreePort("no free port"))
    monkeypatch.setattr(endpoint, "HeldPort", taking)
    monkeypatch.setattr(endpoint, "_PORT_INTERVAL", 0.0)
    assert await endpoint.hold_port(LOCAL) is taking
    assert taking.left == 0


async def test_a_member_that_starts_again_prefers_the_ports_that_it_had() -> None:
    """Others may know it by them."""
    fed = replace(CONFIG, feed_key={"key": "one"})
    with closing(await endpoint.hold_ports(fed)) as first:
        numbers = first.numbers
    assert len(set(numbers)) == 2
    with closing(await endpoint.hold_ports(replace(fed, preferred_ports=numbers))) as again:
        assert again.numbers == numbers
    with closing(await endpoint.hold_ports(replace(CONFIG, preferred_ports=numbers))) as unfed:
        assert (unfed.numbers, unfed.feed_port) == (numbers[:1], 0)


async def test_a_range_that_stays_used_up_is_given_up_and_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    taking = Taking(1000, NoFreePort("no free port in 7000-7001 on here (2 of 2 taken)"))
    monkeypatch.setattr(endpoint, "HeldPort", taking)
    with pytest.raises(MustStop, match=r"^no free port in 7000-7001 on here .*ports="):
        await endpoint.hold_port(IMPATIENT)
    assert taking.left == 999


async def test_a_host_that_gives_no_port_at_all_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "HeldPort", Taking(1, OSError(24, "Too many open files")))
    with pytest.raises(MustStop, match=f"^{HERE} gives the member no port: .*Too many open files"):
        await endpoint.hold_port(LOCAL)


async def test_the_address_is_the_one_towards_the_coordinator_or_in_the_network() -> None:
    """R9."""
    assert await endpoint.own_address(LOCAL) == "127.0.0.1"
    assert await endpoint.own_address(replace(LOCAL, network="127.0.0.0/8")) == "127.0.0.1"


@pytest.mark.parametrize(
    "network, text",
    [
        ("203.0.113.0/24", f"^{HERE} has no address in 203.0.113.0/24, .*network="),
        ("eth0", f"^cannot tell the address of {HERE} in eth0: "),
    ],
)
async def test_a_network_without_an_address_of_this_host_is_named(network: str, text: str) -> None:
    """R9."""
    with pytest.raises(MustStop, match=text):
        await endpoint.own_address(replace(LOCAL, network=network))


async def test_a_route_that_is_not_there_yet_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    tries = 0

    def address_towards(host: str, port: int) -> str:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise OSError(101, "Network is unreachable")
        return "10.0.0.5"

    monkeypatch.setattr(endpoint, "address_towards", address_towards)
    monkeypatch.setattr(endpoint, "_ROUTE_INTERVAL", 0.0)
    assert await endpoint.own_address(LOCAL) == "10.0.0.5"


@pytest.mark.parametrize(
    "error, text",
    [
        (
            OSError(101, "Network is unreachable"),
            f"no route from {HERE} to the coordinator at driver:7787: ",
        ),
        (
            socket.gaierror(-2, "Name or service not known"),
            f"{HERE} cannot resolve 'driver', the name of the coordinator at driver:7787 ",
        ),
    ],
)
async def test_no_way_to_the_coordinator_names_both_ends(
    monkeypatch: pytest.MonkeyPatch, error: OSError, text: str
) -> None:
    """R1, R9."""

    def address_towards(host: str, port: int) -> str:
        raise error

    monkeypatch.setattr(endpoint, "address_towards", address_towards)
    with pytest.raises(MustStop) as caught:
        await endpoint.own_address(replace(CONFIG, connect_timeout=0.0))
    assert str(caught.value).startswith(text)
    assert str(error.strerror) in str(caught.value)
