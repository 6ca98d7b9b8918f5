"""What each token opens: every method of the contract, with every role (R5)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import closing

import grpc
import pytest

from coordinator.client import RunClient
from coordinator.core.access import CALLS, Principal, Role, may_call
from coordinator.core.errors import PermissionDenied, Unauthenticated
from coordinator.core.model import MemberPhase, Roles, RunId, RunPhase, RunSpec
from coordinator.member_client import ReservationClient
from coordinator.security import Keyring, call_metadata
from coordinator.testing import FakeExecutor, Serving, serving
from coordinator.v1 import reservation_service_pb2 as reservation_pb
from tests.integration.grpc import raw

pytestmark = pytest.mark.timeout(60)

SECRET = "the operator's token"
KEYRING = Keyring(SECRET)
SPEC = RunSpec(Roles(worker=1))


def name_of(method) -> str:
    return f"{method.containing_service.name}/{method.name}"


def token(role: Role, name: str = "somebody") -> str:
    return SECRET if role is Role.OPERATOR else KEYRING.token_for(Principal(role, name))


METHODS = [pytest.param(method, id=name_of(method)) for method in raw.methods()]


@pytest.fixture
async def guarded() -> AsyncIterator[Serving]:
    async with serving(token=SECRET) as running:
        yield running


def test_the_table_has_every_method_of_the_contract_and_no_other() -> None:
    assert set(CALLS) == {name_of(method) for method in raw.methods()}


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("method", METHODS)
async def test_a_role_gets_as_far_as_its_message_or_is_refused_before_that(
    method, role: Role, guarded: Serving
) -> None:
    """The bytes are no message, which only those are told who may call."""
    error = await raw.failure_of(guarded.address, method, raw.GARBAGE, *call_metadata(token(role)))
    if may_call(role, name_of(method)):
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        return
    assert error.code() is grpc.StatusCode.PERMISSION_DENIED
    assert raw.info_of(error).reason == "PERMISSION_DENIED"
    assert dict(raw.info_of(error).metadata) == {"role": role.value, "method": name_of(method)}


OF_A_RUN = [
    pytest.param(method, role, id=f"{role.value} {name_of(method)}")
    for method in raw.methods()
    for role in (Role.OWNER, Role.AGENT)
    if may_call(role, name_of(method)) and not method.client_streaming
]


@pytest.mark.parametrize("method, role", OF_A_RUN)
async def test_the_token_of_one_run_opens_no_other(method, role: Role, guarded: Serving) -> None:
    mine, other = guarded.create_run(SPEC), guarded.create_run(SPEC)
    request = method.input_type._concrete_class(run_id=other)
    metadata = call_metadata(token(role, mine))
    for payload in (request.SerializeToString(), b""):  # of another, and of none: of all
        error = await raw.failure_of(guarded.address, method, payload, *metadata)
        assert error.code() is grpc.StatusCode.PERMISSION_DENIED
        assert mine in (error.details() or "")
    assert guarded.view(other).phase is RunPhase.FORMING


def test_every_call_of_a_run_says_which() -> None:
    """Otherwise the check above would hold nobody back."""
    assert {param.values[0].name for param in OF_A_RUN} >= {"GetRun", "StopRun", "Reserve"}
    for method, _ in (param.values for param in OF_A_RUN):
        assert "run_id" in method.input_type.fields_by_name, method.full_name


async def test_an_agent_of_one_run_attends_no_other(guarded: Serving) -> None:
    """The run is in the session's first message, which comes after the call was let in."""
    mine, other = guarded.create_run(SPEC), guarded.create_run(SPEC)
    for role in (Role.AGENT, Role.OPERATOR):  # a member of the other run is really there
        client = ReservationClient(guarded.address, token(role, mine))
        async with FakeExecutor(
            guarded.address, SECRET, other, "worker:0", client=client, incarnation="i"
        ) as executor:
            if role is Role.AGENT:
                with pytest.raises(PermissionDenied, match=mine):
                    await executor.reserve()
            else:
                assert (await executor.reserve()).is_granted
        await client.close()
    hello = reservation_pb.AttendRequest(sequence=1)
    hello.hello.run_id, hello.hello.incarnation, hello.hello.member.role = other, "i", 2
    [attend] = [method for method in raw.methods() if method.name == "Attend"]
    metadata = call_metadata(token(Role.AGENT, mine))
    error = await raw.failure_of(guarded.address, attend, hello.SerializeToString(), *metadata)
    assert error.code() is grpc.StatusCode.PERMISSION_DENIED
    assert guarded.view(other).members[0].phase is MemberPhase.RESERVED


async def test_what_a_new_run_gives_its_driver_and_its_agents(guarded: Serving) -> None:
    """A submitter makes a run; its two tokens do the rest, each its part."""
    with closing(RunClient(guarded.address, token(Role.SUBMITTER, "alice"))) as alice:
        created = await asyncio.to_thread(alice.create, SPEC)
        with pytest.raises(PermissionDenied, match="submitter"):
            await asyncio.to_thread(alice.stop, created.run_id, "no owner of mine")
    agent = FakeExecutor(guarded.address, created.agent_token, created.run_id, "worker:0")
    async with agent:
        assert (await agent.reserve()).is_granted
        await agent.attend()
    with closing(RunClient(guarded.address, created.agent_token)) as member:
        for call in (member.get, lambda run_id: member.stop(run_id, "from within")):
            with pytest.raises(PermissionDenied, match="agent"):
                await asyncio.to_thread(call, created.run_id)
    assert guarded.view(created.run_id).phase is RunPhase.FORMING
    with closing(RunClient(guarded.address, created.owner_token)) as owner:
        assert (await asyncio.to_thread(owner.get, created.run_id)).run_id == created.run_id
        stopped = await asyncio.to_thread(owner.stop, created.run_id, "enough", 0.0)
        assert stopped.phase in (RunPhase.STOPPING, RunPhase.CANCELLED)
        with pytest.raises(PermissionDenied, match="owner"):
            await asyncio.to_thread(owner.list)


async def test_asking_again_for_the_same_run_gives_the_same_tokens(guarded: Serving) -> None:
    with closing(RunClient(guarded.address, SECRET)) as client:
        first = await asyncio.to_thread(client.create, SPEC, "request")
        again = await asyncio.to_thread(client.create, SPEC, "request")
    assert first.run_id == again.run_id
    assert (first.owner_token, first.agent_token) == (again.owner_token, again.agent_token)
    assert first.owner_token not in repr(first)
    assert first.agent_token not in repr(first)


@pytest.mark.parametrize("role", Role)
async def test_tokens_of_an_operator_s_token_that_was_replaced_open_nothing(
    role: Role, guarded: Serving
) -> None:
    old = Keyring("the one before")
    stale = "the one before" if role is Role.OPERATOR else old.token_for(Principal(role, "x"))
    with closing(RunClient(guarded.address, stale)) as client, pytest.raises(Unauthenticated):
        await asyncio.to_thread(client.get, RunId("x"))
