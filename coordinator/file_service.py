"""The gRPC service for files that grow on executors: protobuf in, the relay, protobuf out.

Nothing of it passes through the machine, and nothing waits for the disk: no run depends on it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from coordinator import file_wire, wire
from coordinator.calls import PRINCIPAL
from coordinator.core.errors import (
    CoordinatorUnavailable,
    InvalidReservation,
    StaleIncarnation,
)
from coordinator.core.file_values import AllHeld
from coordinator.core.model import RunId
from coordinator.engine import Engine
from coordinator.file_relay import Delivery, FileRelay, Inbox, Sender, Who
from coordinator.limiting import Limiter
from coordinator.security import check_run
from coordinator.v1 import file_service_pb2 as pb
from coordinator.v1 import file_service_pb2_grpc as file_grpc


class FileService(file_grpc.FileServiceServicer):
    """For agents, and for the driver of their run."""

    def __init__(self, engine: Engine, limiter: Limiter, relay: FileRelay) -> None:
        self._engine = engine
        self._limiter = limiter
        self._relay = relay

    # -- agents ----------------------------------------------------------------------------

    async def SendFiles(self, request_iterator: Any, context: Any) -> None:
        hello = await self._hello(context)
        run_id, who = RunId(hello.run_id), file_wire.who_of(hello)
        self._check_holder(run_id, who)
        sender = self._relay.open_sender(run_id, who)
        try:
            await _both(
                lambda: self._take_pieces(run_id, who, context),
                lambda: self._tell_agent(sender, context),
                sender,
            )
        finally:
            self._relay.close_sender(run_id, who, sender)

    def _check_holder(self, run_id: RunId, who: Who) -> None:
        """Raises UnknownRun, InvalidReservation, StaleIncarnation."""
        member, incarnation = who
        if self._engine.member_view(run_id, member).incarnation != incarnation:
            raise StaleIncarnation(
                f"{member} of run {run_id} is held by another attempt, or by none",
                {"member": str(member)},
            )

    async def _take_pieces(self, run_id: RunId, who: Who, context: Any) -> None:
        pace = self._limiter.pace()
        while isinstance(message := await context.read(), pb.SendFilesRequest):
            size = message.ByteSize()
            self._limiter.check("request_bytes", size)
            self._check_room(run_id, size)
            await self._relay.pass_on(run_id, who, _for_driver(who, message), size)
            await pace.after_piece(size)
            del message  # a quarter of a MiB, and the next may be hours away

    def _check_room(self, run_id: RunId, size: int) -> None:
        """One run may hold no more than it leaves to all others: however many drivers read nothing,
        there is room for one that does. Raises LimitExceeded."""
        most = self._limiter.limits.file_bytes - self._relay.load.size
        wanted = self._relay.waits_for(run_id) + size
        if wanted > most:
            raise self._limiter.exceeded("file_bytes", wanted, max(0, most))

    async def _tell_agent(self, sender: Sender, context: Any) -> None:
        while True:
            for answer in await sender.answers():
                await context.write(file_wire.answer_to_pb(answer))

    # -- the driver ------------------------------------------------------------------------

    async def ReceiveFiles(self, request_iterator: Any, context: Any) -> None:
        run_id = RunId((await self._hello(context)).run_id)
        self._engine.spec(run_id)  # raises UnknownRun
        inbox = self._relay.open_receiver(run_id)
        try:
            await _both(
                lambda: self._take_answers(run_id, inbox, context),
                lambda: self._tell_driver(inbox, context),
                inbox,
            )
        finally:
            self._relay.close_receiver(run_id, inbox)

    async def _take_answers(self, run_id: RunId, inbox: Inbox, context: Any) -> None:
        while isinstance(message := await context.read(), pb.ReceiveFilesRequest):
            match message.WhichOneof("message"):
                case "held":
                    told = file_wire.held_from_pb(message.held.held)
                    self._relay.answer(run_id, inbox, file_wire.who_of(message.held), told)
                case "complete":
                    who = file_wire.who_of(message.complete)
                    self._relay.answer(run_id, inbox, who, AllHeld())
                case _:
                    raise InvalidReservation("a driver says what it has, after its hello")

    async def _tell_driver(self, inbox: Inbox, context: Any) -> None:
        while True:
            await context.write(_delivery_to_pb(await inbox.get()))

    # -- both ------------------------------------------------------------------------------

    async def _hello(self, context: Any) -> Any:
        """Raises InvalidReservation, PermissionDenied, CoordinatorUnavailable."""
        patience = self._limiter.limits.hello_timeout
        try:
            async with asyncio.timeout(patience):
                first = await context.read()
        except TimeoutError:  # to be tried again: maybe it is we who did not run
            raise CoordinatorUnavailable(
                f"a stream of files must begin with a hello; none came within {patience:g} s"
            ) from None
        is_message = isinstance(first, pb.SendFilesRequest | pb.ReceiveFilesRequest)
        if not is_message or first.WhichOneof("message") != "hello":
            raise InvalidReservation("the first message of a stream of files must be a hello")
        self._limiter.check("request_bytes", first.ByteSize())
        check_run(PRINCIPAL.get(), first.hello.run_id)
        return first.hello


async def _both(
    read: Callable[[], Coroutine[Any, Any, None]],
    write: Callable[[], Coroutine[Any, Any, None]],
    stream: Sender | Inbox,
) -> None:
    """Until the peer has said its last word, or another stream takes over. Raises what either
    raises."""
    reading, writing = asyncio.create_task(read()), asyncio.create_task(write())
    stream.on_end = lambda: _cancel(reading)
    try:
        await asyncio.wait((reading, writing), return_when=asyncio.FIRST_COMPLETED)
        for task in (reading, writing):
            if task.done() and not task.cancelled():
                task.result()
    finally:
        stream.on_end = lambda: None
        reading.cancel()
        writing.cancel()
        await asyncio.gather(reading, writing, return_exceptions=True)


def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()


def _for_driver(who: Who, message: pb.SendFilesRequest) -> pb.ReceiveFilesResponse:
    """Raises InvalidReservation."""
    response = _addressed(who)
    match message.WhichOneof("message"):
        case "piece":
            file_wire.piece_from_pb(message.piece)  # what is handed on makes sense
            response.piece.CopyFrom(message.piece)
        case "complete":
            response.complete.SetInParent()
        case _:
            raise InvalidReservation("an agent sends pieces, after its hello")
    return response


def _delivery_to_pb(delivery: Delivery) -> pb.ReceiveFilesResponse:
    if delivery.message is not None:
        assert isinstance(delivery.message, pb.ReceiveFilesResponse)
        return delivery.message
    response = _addressed(delivery.who)
    response.sender.is_there = bool(delivery.is_there)
    return response


def _addressed(who: Who) -> pb.ReceiveFilesResponse:
    member, incarnation = who
    return pb.ReceiveFilesResponse(member=wire.member_id_to_pb(member), incarnation=incarnation)
