"""What counts as a peer that can be reached (R9). What does not, with real networks between them,
is in ``tests/integration/test_networks.py``."""

from __future__ import annotations

import errno
import os
import socket
from contextlib import ExitStack, closing

import pytest

from executor_agent import reach
from executor_agent.core.peers import Peer, Unreached
from executor_agent.ports import HeldPort
from tests.agent.test_ports import needs_version_6


async def test_a_port_that_is_held_and_not_listened_on_can_be_reached() -> None:
    with closing(HeldPort()) as held:
        assert await reach.unreached([Peer("worker:1", f"127.0.0.1:{held.port}")]) == []


@needs_version_6
async def test_so_it_can_by_version_6() -> None:
    with closing(HeldPort()) as held:
        assert await reach.unreached([Peer("worker:1", f"[::1]:{held.port}")]) == []


async def test_a_peer_that_listens_already_can_be_reached_and_hears_nothing() -> None:
    """It may have been quicker to start."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listening:
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        assert await reach.unreached([Peer("worker:1", address)]) == []
        listening.settimeout(5)
        knock, _ = listening.accept()
        with closing(knock):
            assert knock.recv(1) == b""


async def test_a_peer_that_has_just_ended_can_be_reached() -> None:
    """Its end is the coordinator's to tell."""
    with closing(HeldPort()) as held:
        address = f"127.0.0.1:{held.port}"
    assert await reach.unreached([Peer("worker:1", address)]) == []


async def test_a_queue_of_connections_that_is_full_times_out_and_only_that_peer_is_named() -> None:
    """The kernel then drops what comes, as a firewall does."""
    with ExitStack() as stack:
        full = stack.enter_context(closing(socket.socket()))
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        stack.enter_context(closing(socket.create_connection(full.getsockname(), timeout=5)))
        held = stack.enter_context(closing(HeldPort()))
        peer = Peer("worker:1", f"127.0.0.1:{full.getsockname()[1]}")
        other = Peer("worker:2", f"127.0.0.1:{held.port}")
        found = await reach.unreached([peer, other], timeout=0.3)
    assert found == [Unreached(peer, "timed out after 0.3 s")]


async def test_a_way_that_appears_in_time_is_a_way(monkeypatch: pytest.MonkeyPatch) -> None:
    tries = 0

    async def knock(host: str, port: int) -> None:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise OSError(errno.EHOSTUNREACH, f"Connect call failed ('{host}', {port})")
        raise ConnectionRefusedError

    monkeypatch.setattr(reach, "_knock", knock)
    monkeypatch.setattr(reach, "_RETRY_INTERVAL", 0.0)
    assert await reach.unreached([Peer("worker:1", "10.0.0.1:1")]) == []
    assert tries == 3


async def test_where_there_is_no_way_the_kernel_s_reason_is_told() -> None:
    """255.255.255.255 is refused by the kernel before anything is sent."""
    peer = Peer("worker:1", "255.255.255.255:1")
    [found] = await reach.unreached([peer], timeout=0.1)
    assert found.why in (os.strerror(errno.ENETUNREACH), os.strerror(errno.EACCES))
