"""The member's port is held until TensorFlow listens on it (R8); its address is the one on the
way to the coordinator (R9)."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing

import pytest

from executor_agent import ports
from executor_agent.ports import HeldPort, address_towards, split_address


def has_version_6() -> bool:
    try:
        with closing(socket.socket(socket.AF_INET6)) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


needs_version_6 = pytest.mark.skipif(not has_version_6(), reason="no IPv6 on this machine")


@pytest.fixture
def held() -> Iterator[HeldPort]:
    port = HeldPort()
    yield port
    port.close()


def test_a_strangers_bind_is_refused(held: HeldPort) -> None:
    """R8: nobody takes the port between the reservation and TensorFlow's start."""
    for host in ("127.0.0.1", "0.0.0.0"):
        with closing(socket.socket()) as stranger:
            stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with pytest.raises(OSError, match="in use"):
                stranger.bind((host, held.port))


def test_no_other_process_is_given_the_port_by_chance(held: HeldPort) -> None:
    """R8."""
    with closing(HeldPort()) as another:
        assert another.port != held.port


def test_a_preferred_port_is_taken_where_nobody_has_it(held: HeldPort) -> None:
    """R8: whoever is on it keeps it, be he ready to share or not."""
    with closing(HeldPort(preferred=held.port)) as another:
        assert another.port != held.port
    port = held.port
    held.close()
    with closing(HeldPort(preferred=port)) as again:
        assert again.port == port
        with closing(socket.socket()) as stranger, pytest.raises(OSError, match="in use"):
            stranger.bind(("0.0.0.0", port))
    with closing(socket.socket()) as stranger:
        stranger.bind(("127.0.0.1", port))
        with closing(HeldPort(preferred=port)) as elsewhere:
            assert elsewhere.port != port


def test_a_preferred_port_may_have_connections_of_an_earlier_member_behind_it() -> None:
    """R8: in TIME_WAIT, which refuses a plain bind for a minute."""
    with closing(HeldPort()) as first, closing(socket.socket()) as listener:
        port = first.port
        for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):  # as gRPC does
            listener.setsockopt(socket.SOL_SOCKET, option, 1)
        listener.bind(("0.0.0.0", port))
        listener.listen(1)
        with closing(socket.create_connection(("127.0.0.1", port), timeout=5)) as peer:
            listener.accept()[0].close()  # first, so that this end waits
            assert peer.recv(1) == b""
    with closing(socket.socket()) as plain, pytest.raises(OSError, match="in use"):
        plain.bind(("0.0.0.0", port))
    with closing(HeldPort(preferred=port)) as again:
        assert again.port == port


def test_a_listener_that_shares_the_port_gets_every_connection(held: HeldPort) -> None:
    """R8: as TensorFlow with TF_GRPC_REUSE_PORT=true."""
    with closing(socket.socket()) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(("0.0.0.0", held.port))
        listener.listen(32)
        listener.settimeout(5)
        for _ in range(20):
            with closing(socket.create_connection(("127.0.0.1", held.port), timeout=5)):
                listener.accept()[0].close()


def test_a_connection_before_that_is_refused_and_not_swallowed(held: HeldPort) -> None:
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", held.port), timeout=5)


def test_a_port_that_is_closed_is_free_again() -> None:
    held = HeldPort()
    port = held.port
    held.close()
    with closing(socket.socket()) as next_one:
        next_one.bind(("127.0.0.1", port))


@needs_version_6
def test_the_port_is_held_on_both_versions_of_ip(held: HeldPort) -> None:
    """R8: TensorFlow listens on both, and cannot where a stranger is on one of them."""
    with closing(socket.socket(socket.AF_INET6)) as stranger:
        stranger.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        with pytest.raises(OSError, match="in use"):
            stranger.bind(("::", held.port))


def test_without_version_6_the_port_is_held_on_version_4(monkeypatch: pytest.MonkeyPatch) -> None:
    class OnlyVersion4(socket.socket):
        def __init__(self, family: int = -1, type: int = -1) -> None:
            if family == socket.AF_INET6:
                raise OSError(97, "Address family not supported by protocol")
            super().__init__(family, type)

    monkeypatch.setattr(ports.socket, "socket", OnlyVersion4)
    with closing(HeldPort()) as held:
        assert held._sockets[0].family is socket.AF_INET


def test_towards_this_machine_the_address_is_the_loopback_s() -> None:
    assert address_towards("127.0.0.1", 1) == "127.0.0.1"


@needs_version_6
def test_towards_an_address_of_version_6_it_is_one_of_version_6() -> None:
    assert address_towards("::1", 1) == "::1"


def answers(*addresses: str) -> list[tuple[object, ...]]:
    """As `getaddrinfo` has them."""
    found: list[tuple[object, ...]] = []
    for address in addresses:
        is_6 = ":" in address
        family = socket.AF_INET6 if is_6 else socket.AF_INET
        target = (address, 1, 0, 0) if is_6 else (address, 1)
        found.append((family, socket.SOCK_DGRAM, socket.IPPROTO_UDP, "", target))
    return found


def test_a_name_of_both_versions_is_reached_by_version_4(monkeypatch: pytest.MonkeyPatch) -> None:
    """R9: hosts are more often without a route of version 6."""
    monkeypatch.setattr(ports.socket, "getaddrinfo", lambda *_, **__: answers("::1", "127.0.0.1"))
    assert address_towards("driver", 1) == "127.0.0.1"


@needs_version_6
def test_an_address_without_a_route_is_not_the_last_word(monkeypatch: pytest.MonkeyPatch) -> None:
    """R9: a multi-homed driver."""
    no_route = "255.255.255.255"  # refused without SO_BROADCAST
    monkeypatch.setattr(ports.socket, "getaddrinfo", lambda *_, **__: answers(no_route, "::1"))
    assert address_towards("driver", 1) == "::1"
    monkeypatch.setattr(ports.socket, "getaddrinfo", lambda *_, **__: answers(no_route))
    with pytest.raises(PermissionError):
        address_towards("driver", 1)


@pytest.mark.parametrize(
    "text, address",
    [
        ("host:7077", ("host", 7077)),
        ("10.0.0.1:1", ("10.0.0.1", 1)),
        ("[::1]:7077", ("::1", 7077)),
    ],
)
def test_addresses_are_split(text: str, address: tuple[str, int]) -> None:
    assert split_address(text) == address


@pytest.mark.parametrize("text", ["host", ":7077", "host:", "host:http", ""])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        split_address(text)
