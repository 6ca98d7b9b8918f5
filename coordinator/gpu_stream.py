"""Many questions about GPUs over one stream, answered in groups as they become durable."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from coordinator import gpu_wire, status
from coordinator.calls import PRINCIPAL, scoped
from coordinator.core.errors import InvalidRun, TfleaseError
from coordinator.core.gpu import LeaseRequest
from coordinator.core.lease_news import Acquired
from coordinator.engine import Engine
from coordinator.limiting import Limiter
from coordinator.v1 import gpu_lease_service_pb2 as pb

LEASE_TTL = 60.0
"""Seconds of silence after which a lease lapses that was acquired by a client. Those of a run's
members have the run's fence timeout."""

MOST_UNREAD = 1_000
"""Answers that a client has not read yet; until it does, no more questions are read."""


@dataclass(slots=True, eq=False)
class _Answer:
    """``grant``: the request whose grant it tells."""

    message: pb.GpuAnswer
    grant: LeaseRequest | None = None


class GpuStream:
    """One client's stream. ``renew`` and ``release`` do what the calls of that name do."""

    def __init__(
        self,
        engine: Engine,
        limiter: Limiter,
        context: Any,
        renew: Callable[[Any], Any],
        release: Callable[[Any], Any],
    ) -> None:
        self._engine = engine
        self._limiter = limiter
        self._context = context
        self._renew = renew
        self._release = release
        self._waiting: dict[asyncio.Task[None], tuple[LeaseRequest, _Answer]] = {}
        self._answers: list[_Answer] = []
        self._being_written: list[_Answer] = []
        self._news = asyncio.Event()
        self._room = asyncio.Event()

    async def serve(self) -> None:
        """Until the client has asked its last question and has all answers."""
        writer = asyncio.create_task(self._write())
        try:
            while isinstance(message := await self._context.read(), pb.UseGpusRequest):
                self._limiter.check("request_bytes", message.ByteSize())
                for question in message.questions:
                    self._take(question)
                await self._until(lambda: len(self._answers) < MOST_UNREAD, writer)
            await self._until(
                lambda: not (self._waiting or self._answers or self._being_written), writer
            )
        finally:
            await self._end(writer)

    async def _until(self, condition: Callable[[], bool], writer: asyncio.Task[None]) -> None:
        while not condition() and not writer.done():
            self._room.clear()
            await self._room.wait()

    def _take(self, question: pb.GpuQuestion) -> None:
        answer = _Answer(pb.GpuAnswer(number=question.number))
        try:
            match question.WhichOneof("question"):
                case "acquire":
                    if not self._acquire(request_from_pb(question.acquire), answer):
                        return
                case "renew":
                    answer.message.renewed.CopyFrom(self._renew(question.renew))
                case "release":
                    answer.message.released.CopyFrom(self._release(question.release))
                case _:
                    raise InvalidRun("a question must ask something")
        except TfleaseError as error:
            answer.message.refused.CopyFrom(_refusal(error))
        self._answer(answer)

    def _acquire(self, request: LeaseRequest, answer: _Answer) -> bool:
        """True: it has its GPUs, or is refused; else it waits."""
        self._limiter.check("gpu_patience", request.patience)
        granted = self._engine.gpus.acquire_now(request, answer)
        if granted is not None:
            answer.message.acquired.CopyFrom(granted_to_pb(granted))
            answer.grant = request
            return True
        try:
            self._limiter.check("gpu_waits", len(self._waiting) + 1)
        except TfleaseError:
            self._engine.gpus.broken_off(request, answer)
            raise
        self._wait(request, answer)
        return False

    def _wait(self, request: LeaseRequest, answer: _Answer) -> None:
        async def wait() -> None:
            try:
                granted = await self._engine.gpus.acquire(request, answer)
                answer.message.acquired.CopyFrom(granted_to_pb(granted))
                answer.grant = request
            except TfleaseError as error:
                answer.message.refused.CopyFrom(_refusal(error))
            self._answer(answer)

        task = asyncio.create_task(wait())
        self._waiting[task] = request, answer
        task.add_done_callback(lambda task: self._waiting.pop(task, None))

    def _answer(self, answer: _Answer) -> None:
        self._answers.append(answer)
        self._news.set()

    async def _write(self) -> None:
        """As many as there are in one message: what is committed together goes out together."""
        try:
            while True:
                await self._news.wait()
                self._news.clear()
                self._being_written, self._answers = self._answers, []
                await self._engine.durable()
                messages = [answer.message for answer in self._being_written]
                await self._context.write(pb.UseGpusResponse(answers=messages))
                for answer in self._being_written:
                    if answer.grant is not None:
                        self._engine.gpus.learned(answer.grant)
                self._being_written = []
                self._room.set()
        finally:
            self._room.set()  # whoever waits for us must not do so for ever

    async def _end(self, writer: asyncio.Task[None]) -> None:
        """Places in the queue are given back, also of those that have not begun to wait; and
        grants of which nobody has learned."""
        waiting = dict(self._waiting)
        for task in (writer, *waiting):
            task.cancel()
        await asyncio.gather(writer, *waiting, return_exceptions=True)
        for request, answer in waiting.values():
            self._engine.gpus.broken_off(request, answer)
        for answer in (*self._being_written, *self._answers):
            if answer.grant is not None:
                self._engine.gpus.broken_off(answer.grant, answer)


def _refusal(error: TfleaseError) -> pb.GpuRefusal:
    return pb.GpuRefusal(
        code=status.code_of(error).value[0], reason=error.reason, message=status.text_of(error)
    )


def request_from_pb(request: pb.AcquireGpusRequest) -> LeaseRequest:
    """Raises InvalidRun."""
    patience = gpu_wire.seconds(request.patience)
    if patience < 0:
        raise InvalidRun(f"patience={patience:g}: must be 0 or more")
    return LeaseRequest(
        request_id=internal(request.request_id),
        holder=request.holder or str(PRINCIPAL.get()),  # never the id, by which it is released
        wants=tuple(map(gpu_wire.want_from_pb, request.wants)),
        ttl=LEASE_TTL,
        patience=patience,
    )


def granted_to_pb(acquired: Acquired) -> pb.AcquireGpusResponse:
    """All GPUs of a request."""
    response = pb.AcquireGpusResponse(ttl=gpu_wire.duration(LEASE_TTL))
    for who, uuids in acquired.uuids.items():
        for uuid in uuids:
            token = gpu_wire.token_to_pb(acquired.tokens[uuid])
            response.grants.add(who=who, uuid=uuid, token=token)
    return response


def internal(request_id: str) -> str:
    """The requests of clients have a room of their own: whatever id they choose, it is never that
    of a run's gang."""
    if not request_id:
        raise InvalidRun("the request has no request_id")
    return f"client/{scoped(request_id)}"
