"""A member that is told a network advertises its own address in it (R9)."""

from __future__ import annotations

import ipaddress
import re
import socket

import psutil
import pytest

from executor_agent import addresses
from executor_agent.addresses import NoSuchAddress, OwnAddress, address_in, own_addresses


def own(*texts: str) -> list[OwnAddress]:
    return [OwnAddress(f"eth{i}", ipaddress.ip_address(each)) for i, each in enumerate(texts)]


def test_the_addresses_are_those_that_another_library_finds() -> None:
    expected = {
        (name, each.address.partition("%")[0])
        for name, found in psutil.net_if_addrs().items()
        for each in found
        if each.family in (socket.AF_INET, socket.AF_INET6)
    }
    assert {(each.interface, str(each.address)) for each in own_addresses()} == expected
    assert ("lo", "127.0.0.1") in expected


def test_loopback_is_a_network_too() -> None:
    assert address_in("127.0.0.0/8") == "127.0.0.1"


@pytest.mark.parametrize(
    "network, preferred, address",
    [
        ("10.2.0.0/24", "", "10.2.0.5"),
        ("10.2.0.0/24", "10.2.0.6", "10.2.0.6"),  # the one on the route to the coordinator
        ("10.2.0.0/24", "10.1.0.5", "10.2.0.5"),
        ("10.2.0.7/24", "", "10.2.0.5"),  # somebody's address, as people write it
        ("10.2.0.6/32", "", "10.2.0.6"),
        ("10.0.0.0/8", "", "10.1.0.5"),
        ("fd00::/64", "", "fd00::5"),
    ],
)
def test_the_address_is_one_in_the_network(
    monkeypatch: pytest.MonkeyPatch, network: str, preferred: str, address: str
) -> None:
    found = own("127.0.0.1", "10.1.0.5", "10.2.0.5", "10.2.0.6", "fd00::5")
    monkeypatch.setattr(addresses, "own_addresses", lambda: found)
    assert address_in(network, preferred) == address


def test_a_host_outside_of_the_network_is_named_with_its_addresses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """R10: 10.20.0.5 begins as 10.2 does, and is not in it."""
    monkeypatch.setattr(addresses, "own_addresses", lambda: own("127.0.0.1", "10.20.0.5"))
    text = (
        f"{socket.gethostname()} has no address in 10.2.0.0/24, it has "
        "127.0.0.1 (eth0), 10.20.0.5 (eth1)"
    )
    with pytest.raises(NoSuchAddress, match=f"^{re.escape(text)}$"):
        address_in("10.2.0.0/24")


@pytest.mark.parametrize("network", ["10.2.0.0/33", "eth0", ""])
def test_what_is_no_network_is_refused(network: str) -> None:
    with pytest.raises(ValueError, match="does not appear to be"):
        address_in(network)
