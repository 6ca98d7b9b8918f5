"""TLS on real connections: who gets in, and who is believed to be the coordinator."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from coordinator.authority import new_authority
from coordinator.channels import aio_channel
from coordinator.client import RunClient
from coordinator.core.access import ClientTls, ServerTls
from coordinator.core.errors import CoordinatorUnavailable, Unauthenticated
from coordinator.core.handshakes import advice
from coordinator.core.model import Roles, RunPhase, RunSpec
from coordinator.gpu_client import GpuClient
from coordinator.testing import FakeGang, Serving, serving
from coordinator.tls import client_tls, server_tls
from tests.coordinator.certificates import TestAuthority

pytestmark = pytest.mark.timeout(60)

ROOT = Path(__file__).parents[3]


@pytest.fixture
async def secured() -> AsyncIterator[Serving]:
    """As an embedded coordinator: both sides show a certificate of its own authority."""
    async with serving(tls=True) as running:
        yield running


async def gets_in(coordinator: Serving, tls: ClientTls | None, address: str = "") -> bool:
    """Whether a client with the right token does."""
    with closing(RunClient(address or coordinator.address, coordinator.token, tls)) as client:
        try:
            await asyncio.to_thread(client.list)
        except CoordinatorUnavailable:
            return False
    return True


def tls_of(coordinator: Serving) -> ClientTls:
    assert coordinator.tls is not None
    return coordinator.tls


async def test_a_whole_run_goes_over_tls(secured: Serving) -> None:
    with closing(RunClient(secured.address, secured.token, secured.tls)) as owner:
        created = await asyncio.to_thread(owner.create, RunSpec(Roles(worker=2, ps=1)))
        async with FakeGang(
            secured.address,
            created.agent_token,
            created.run_id,
            Roles(worker=2, ps=1),
            tls=secured.tls,
        ) as gang:
            await gang.form()
            await gang.enter()
            await gang.finish()
        views = await asyncio.to_thread(list, owner.watch(created.run_id))
    assert views[-1].phase is RunPhase.SUCCEEDED
    with closing(GpuClient(secured.address, secured.token, secured.tls)) as gpus:
        assert await asyncio.to_thread(gpus.list) == []


async def test_the_right_token_is_of_no_use_without_tls(secured: Serving) -> None:
    assert await gets_in(secured, secured.tls)
    assert not await gets_in(secured, None)


async def test_the_right_token_is_of_no_use_without_a_certificate(secured: Serving) -> None:
    assert not await gets_in(secured, replace(tls_of(secured), certificate="", key=""))


async def test_a_certificate_of_another_run_opens_nothing(secured: Serving) -> None:
    other = new_authority()[1]
    mine = tls_of(secured)
    assert not await gets_in(secured, replace(mine, certificate=other.certificate, key=other.key))


async def test_a_certificate_without_the_token_opens_nothing_either(secured: Serving) -> None:
    """Agents and driver share one; what each may do is its token's business."""
    forged = RunClient(secured.address, "forged", secured.tls)
    with closing(forged) as client, pytest.raises(Unauthenticated):
        await asyncio.to_thread(client.list)


async def test_a_client_talks_to_no_coordinator_of_another_authority(secured: Serving) -> None:
    """Whoever takes over the address of a coordinator that has ended learns no token."""
    assert not await gets_in(secured, new_authority()[1])


async def test_a_member_cannot_pose_as_the_coordinator() -> None:
    """It has the clients' certificate, of the right authority, but not for that side."""
    _, client = new_authority()
    posing = ServerTls(client.certificate, client.key)
    async with serving(tls=posing) as impostor:
        assert not await gets_in(impostor, replace(client, server_name="client.tflease.internal"))


async def test_any_address_will_do_for_an_embedded_coordinator() -> None:
    """R9: a NAT, a service of Kubernetes, a name of which the driver knows nothing."""
    async with serving(tls=True) as secured:
        port = secured.address.rpartition(":")[2]
        for host in ("127.0.0.1", "localhost"):
            assert await gets_in(secured, secured.tls, f"{host}:{port}")
        # The name is asked for, not ignored.
        assert not await gets_in(secured, replace(tls_of(secured), server_name="other.internal"))
        assert not await gets_in(secured, replace(tls_of(secured), server_name=""))


async def test_a_daemon_without_an_authority_for_clients_takes_those_without_a_certificate() -> (
    None
):
    authority = TestAuthority()
    certificate, key = authority.issue("localhost")
    async with serving(tls=ServerTls(certificate, key)) as daemon:
        here = daemon.address.replace("127.0.0.1", "localhost")
        assert await gets_in(daemon, ClientTls(authority.pem), here)
        assert not await gets_in(daemon, ClientTls(authority.pem))  # not the name in it
        assert not await gets_in(daemon, ClientTls(TestAuthority().pem), here)


async def test_without_a_ca_file_the_system_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = TestAuthority()
    certificate, key = authority.issue("localhost")
    async with serving(tls=ServerTls(certificate, key)) as daemon:
        here = daemon.address.replace("127.0.0.1", "localhost")
        assert not await gets_in(daemon, ClientTls(""), here)
        (tmp_path / "system.pem").write_text(authority.pem)
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "system.pem"))
        assert await gets_in(daemon, ClientTls(""), here)


async def test_tls_where_plaintext_is_spoken_fails_and_sends_no_token() -> None:
    async with serving() as plain:
        assert not await gets_in(plain, new_authority()[1])
        assert await gets_in(plain, None)


async def test_health_needs_no_token_but_tls(secured: Serving) -> None:
    async with aio_channel(secured.address, secured.tls) as channel:
        answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    async with aio_channel(secured.address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize(
    "spoken, is_served, advised",
    [
        (None, True, "grpcs://"),
        ({"certificate": "", "key": ""}, True, "cert_file and key_file"),
        ({"server_name": "other.internal"}, True, "for another name"),
        ({"ca": new_authority()[1].ca}, True, "trusted here"),
        ({}, False, "it speaks plaintext"),
    ],
    ids=["plaintext", "no certificate", "another name", "another authority", "TLS to plaintext"],
)
async def test_what_grpc_says_of_it_is_put_into_words(
    spoken: dict[str, str] | None, is_served: bool, advised: str
) -> None:
    """gRPC's texts may change with its version: then this fails, and not the user's day."""
    async with serving(tls=True) as secured, serving() as plain:
        tls = None if spoken is None else replace(tls_of(secured), **spoken)
        address = (secured if is_served else plain).address
        client = RunClient(address, secured.token, tls)
        with closing(client), pytest.raises(CoordinatorUnavailable) as failed:
            await asyncio.to_thread(client.list)
    assert advised in advice(failed.value.message, tls)


def test_of_other_troubles_tls_is_not_said_to_be_the_reason() -> None:
    for tls in (None, new_authority()[1]):
        assert advice("UNAVAILABLE: failed to connect: Connection refused", tls) == ""


# -- what the documentation says to type -----------------------------------------------------------


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl on this machine")
async def test_the_commands_of_the_documentation_make_what_a_daemon_needs(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "security.md").read_text()
    [commands] = re.findall(r"```sh\n(# The authority.*?)```", text, re.DOTALL)
    await asyncio.to_thread(
        subprocess.run,
        ["sh", "-e", "-c", commands.replace("coordinator.example.com", "localhost")],
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )
    here = tmp_path
    mutual = server_tls(here / "server.pem", here / "server.key", here / "ca.pem")
    client = client_tls(here / "ca.pem", here / "client.pem", here / "client.key")
    async with serving(tls=mutual) as daemon:
        address = daemon.address.replace("127.0.0.1", "localhost")
        assert await gets_in(daemon, client, address)
        assert not await gets_in(daemon, client_tls(here / "ca.pem"), address)
    async with serving(tls=ServerTls(client.certificate, client.key)) as impostor:
        assert not await gets_in(
            impostor, client, impostor.address.replace("127.0.0.1", "localhost")
        )
