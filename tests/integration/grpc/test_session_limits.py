"""Sessions that say too much are slowed down, and those that do not read are closed (R5)."""

from __future__ import annotations

import pytest

from coordinator.core import effects
from coordinator.core.log_values import LogChunk
from coordinator.core.model import MemberPhase, Roles, RunSpec
from coordinator.testing import FakeExecutor, FakeGang
from coordinator.testing.hostile import HostilePeer
from coordinator.v1 import reservation_service_pb2 as reservation_pb
from tests.integration.grpc import raw
from tests.integration.grpc.limited import limited, undisturbed

pytestmark = pytest.mark.timeout(60)

ONE = RunSpec(Roles(worker=1))


# -- what is slowed down ---------------------------------------------------------------------------


async def test_a_session_that_says_too_much_is_slowed_down_and_loses_nothing() -> None:
    async with limited(messages_per_second=200, message_burst=100) as coordinator:
        async with undisturbed(coordinator) as gang:
            chatter = gang["worker:0"]
            assert await chatter.flood(400) == 400
            members = {str(member.id): member for member in coordinator.view(gang.run_id).members}
            assert members["worker:0"].step == 400
        assert coordinator.server.limiter.slowed["messages_per_second"] > 100
        assert not coordinator.server.limiter.refused


async def test_large_messages_count_as_several() -> None:
    async with limited(messages_per_second=200, message_burst=100) as coordinator:
        run_id = coordinator.create_run(ONE)
        async with FakeGang(coordinator.address, coordinator.token, run_id, ONE.roles) as gang:
            await gang.form()
            await gang.enter()
            metrics = {f"{number:0100}": 1.0 for number in range(4_000)}
            await gang["worker:0"].progress(1, **metrics)  # of about 110 units
            await gang["worker:0"].beat()
            slowed = coordinator.server.limiter.slowed["messages_per_second"]
            assert slowed >= 1


async def test_log_that_nobody_asked_for_is_slowed_down() -> None:
    async with limited(session_log_bytes_per_second=1_000_000) as coordinator:
        run_id = coordinator.create_run(ONE)
        async with FakeExecutor(coordinator.address, coordinator.token, run_id, "worker:0") as it:
            await it.reserve()
            await it.attend()
            chunk = LogChunk(0, bytes(600_000), 600_000)
            for number in range(2):
                await it._in_session()._attendance.log_chunk(str(number), chunk)
            await it.beat()
        assert coordinator.server.limiter.slowed["session_log_bytes_per_second"] == 1


# -- members that do not read ----------------------------------------------------------------------

WORKER = 2  # of the roles on the wire
ATTEND = "/coordinator.v1.ReservationService/Attend"


async def test_a_member_that_does_not_read_its_commands_has_its_session_closed() -> None:
    async with limited(commands=5) as coordinator, undisturbed(coordinator):
        run_id = coordinator.create_run(ONE)
        async with FakeExecutor(coordinator.address, coordinator.token, run_id, "worker:0") as it:
            await it.reserve()
            async with HostilePeer(coordinator.address, coordinator.token, window=0) as deaf:
                deaf.begin()
                deaf.call(1, ATTEND)
                deaf.say(1, hello(it))
                session = await session_of(coordinator, it)
                for _ in range(20):
                    session.send(
                        effects.SendStop(run_id, it.member, it.incarnation, 1, "x" * 1_000, 1.0)
                    )
                await raw.becomes_true(
                    lambda: coordinator.engine.session(run_id, it.incarnation) is None
                )
                assert coordinator.server.limiter.refused["commands"] == 1
            assert coordinator.view(run_id).members[0].phase is MemberPhase.RESERVED
            await it.attend()


def hello(executor: FakeExecutor) -> bytes:
    message = reservation_pb.AttendRequest()
    message.hello.run_id, message.hello.incarnation = executor.run_id, executor.incarnation
    message.hello.member.role = WORKER
    return message.SerializeToString()


async def session_of(coordinator, executor: FakeExecutor):
    def there() -> bool:
        return coordinator.engine.session(executor.run_id, executor.incarnation) is not None

    await raw.becomes_true(there)
    return coordinator.engine.session(executor.run_id, executor.incarnation)
