"""Many questions about GPUs over one stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest

from coordinator.channels import aio_channel
from coordinator.core.gpu import GpuSight, LeaseState
from coordinator.core.lease_book import LeaseBook
from coordinator.security import call_metadata
from coordinator.testing import Serving
from coordinator.v1 import gpu_lease_service_pb2 as pb
from coordinator.v1 import gpu_lease_service_pb2_grpc as lease_grpc
from tests.integration.grpc import raw
from tests.integration.grpc.limited import limited

pytestmark = pytest.mark.timeout(60)

GPUS = [f"GPU-{number}" for number in range(50)]
FREE = [GpuSight(uuid, is_free=True) for uuid in GPUS]


class Stream:
    """One client's. ``ask`` returns the answer of this question, whenever it comes."""

    def __init__(self, call: Any) -> None:
        self._call = call
        self._number = 0
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self.messages = 0
        self.reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for message in self._call:
            self.messages += 1
            for answer in message.answers:
                self._answers.pop(answer.number).set_result(answer)

    async def ask_all(self, questions: list[dict[str, Any]]) -> list[asyncio.Future[Any]]:
        """In one message."""
        request = pb.UseGpusRequest()
        answers = []
        for question in questions:
            self._number += 1
            request.questions.add(number=self._number, **question)
            answers.append(asyncio.get_running_loop().create_future())
            self._answers[self._number] = answers[-1]
        await self._call.write(request)
        return answers

    async def ask(self, **question: Any) -> Any:
        [answer] = await self.ask_all([question])
        return await answer

    async def end(self) -> None:
        await self._call.done_writing()
        await self.reading


@asynccontextmanager
async def stream_to(coordinator: Serving) -> AsyncIterator[Stream]:
    async with aio_channel(coordinator.address) as channel:
        stub = lease_grpc.GpuLeaseServiceStub(channel)
        call = stub.UseGpus(metadata=call_metadata(coordinator.token))
        stream = Stream(call)
        try:
            yield stream
        finally:
            call.cancel()
            await asyncio.gather(stream.reading, return_exceptions=True)


@pytest.fixture
async def gpus(coordinator: Serving) -> Serving:
    coordinator.engine.gpus.use(lambda book, now: book.see("host", "boot", FREE, now))
    return coordinator


def acquire(request_id: str, *uuids: str, patience: int = 0) -> dict[str, Any]:
    request = pb.AcquireGpusRequest(request_id=request_id)
    request.wants.add(who="one", uuids=uuids, count=1)
    request.patience.seconds = patience
    return {"acquire": request}


def release(request_id: str, uuid: str) -> dict[str, Any]:
    request = pb.ReleaseGpusRequest(request_id=request_id, who="one")
    request.gpus.add(uuid=uuid, is_free=True)
    return {"release": request}


def waiting_or_held(coordinator: Serving) -> tuple[int, int]:
    def count(book: LeaseBook, _: float) -> int:
        return sum(view.state is LeaseState.HELD for view in book.views())

    return len(coordinator.engine.gpus.waiting), coordinator.engine.gpus.use(count)


async def test_each_question_has_its_answer_and_they_come_in_groups(gpus: Serving) -> None:
    async with stream_to(gpus) as stream:
        answers = await stream.ask_all([acquire(uuid, uuid) for uuid in GPUS])
        granted = [(await answer).acquired.grants[0] for answer in answers]
        assert [grant.uuid for grant in granted] == GPUS
        assert len({grant.token.number for grant in granted}) == len(GPUS)
        assert stream.messages < len(GPUS)
        token = granted[0].token
        renewal = pb.RenewGpusRequest(request_id=GPUS[0], tokens=[token])
        assert (await stream.ask(renew=renewal)).HasField("renewed")
        assert (await stream.ask(**release(GPUS[0], GPUS[0]))).HasField("released")
        lost = await stream.ask(renew=renewal)
        assert (lost.refused.reason, lost.refused.code) == (
            "LEASE_LOST",
            grpc.StatusCode.ABORTED.value[0],
        )
        await stream.end()


async def test_who_has_to_wait_is_answered_later_and_others_are_not_kept(gpus: Serving) -> None:
    async with stream_to(gpus) as stream:
        await stream.ask(**acquire("first", "GPU-0"))
        [later] = await stream.ask_all([acquire("second", "GPU-0", patience=30)])
        assert (await stream.ask(**acquire("third", "GPU-1"))).HasField("acquired")
        assert not later.done()
        await stream.ask(**release("first", "GPU-0"))
        assert (await later).acquired.grants[0].uuid == "GPU-0"


async def test_refusals_say_what_the_call_of_its_own_would(gpus: Serving) -> None:
    async with stream_to(gpus) as stream:
        unknown = await stream.ask(**acquire("r", "GPU-nowhere"))
        assert unknown.refused.reason == "UNKNOWN_GPU"
        await stream.ask(**acquire("first", "GPU-0"))
        taken = await stream.ask(**acquire("second", "GPU-0"))
        assert taken.refused.reason == "GPUS_UNAVAILABLE"
        assert "is held by one of operator" in taken.refused.message
        assert (await stream.ask()).refused.reason == "INVALID_RUN"
        assert (await stream.ask(**acquire("third", "GPU-1"))).HasField("acquired")


async def test_a_stream_that_breaks_gives_back_its_places_and_nothing_else(gpus: Serving) -> None:
    async with stream_to(gpus) as stream:
        await stream.ask(**acquire("first", "GPU-0"))
        await stream.ask_all([acquire(f"r{number}", "GPU-0", patience=60) for number in range(20)])
        await raw.becomes_true(lambda: waiting_or_held(gpus) == (20, 1))
    await raw.becomes_true(lambda: waiting_or_held(gpus) == (0, 1))


async def test_so_many_may_wait_and_who_has_leases_is_heard_all_the_same() -> None:
    async with limited(gpu_waits=20) as gpus, stream_to(gpus) as stream:
        gpus.engine.gpus.use(lambda book, now: book.see("host", "boot", FREE, now))
        first = await stream.ask(**acquire("first", "GPU-0"))
        await stream.ask_all([acquire(f"r{each}", "GPU-0", patience=60) for each in range(20)])
        refused = await stream.ask(**acquire("another", "GPU-0", patience=60))
        assert refused.refused.reason == "LIMIT_EXCEEDED"
        renewal = pb.RenewGpusRequest(request_id="first", tokens=[first.acquired.grants[0].token])
        assert (await stream.ask(renew=renewal)).HasField("renewed")
        assert waiting_or_held(gpus) == (20, 1)


async def test_whoever_comes_back_on_another_stream_keeps_its_place_and_its_grant(
    gpus: Serving,
) -> None:
    async with stream_to(gpus) as new:
        async with stream_to(gpus) as old:
            await old.ask(**acquire("held", "GPU-1"))
            await old.ask(**acquire("first", "GPU-0"))
            await old.ask_all([acquire("second", "GPU-0", patience=60)])
            await raw.becomes_true(lambda: waiting_or_held(gpus)[0] == 1)
            [waits] = await new.ask_all([acquire("second", "GPU-0", patience=60)])
            again = await new.ask(**acquire("held", "GPU-1"))
            assert again.HasField("acquired")
        await new.ask(**release("first", "GPU-0"))
        assert (await waits).acquired.grants[0].uuid == "GPU-0"
        assert waiting_or_held(gpus) == (0, 2)
