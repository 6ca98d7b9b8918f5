"""The agents' end of a stream of files, on asyncio.

Its callers see domain values and ``TfleaseError``s, never protobuf or ``grpc.RpcError``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any

from coordinator import file_wire, wire
from coordinator.core.file_values import AllHeld, Held, Piece, Receiver
from coordinator.core.model import IncarnationId, MemberId, RunId
from coordinator.stream_errors import STREAM_IS_OVER, explain
from coordinator.v1 import file_service_pb2 as pb
from coordinator.v1 import file_service_pb2_grpc as file_grpc


class FileSending:
    """One stream: pieces up, acknowledgements down. Enter it to say hello.

    Every method raises StaleIncarnation, UnknownRun, InvalidReservation, PermissionDenied,
    LimitExceeded or CoordinatorUnavailable when it is over; come again after the last two.
    """

    def __init__(
        self,
        channel: Any,
        metadata: Any,
        run_id: RunId,
        member: MemberId,
        incarnation: IncarnationId,
    ) -> None:
        self._stub = file_grpc.FileServiceStub(channel)
        self._metadata = metadata
        self._hello = pb.FileSenderHello(
            run_id=run_id, member=wire.member_id_to_pb(member), incarnation=incarnation
        )
        self._stream: Any = None
        self._writing = asyncio.Lock()  # a stream takes one message at a time

    async def __aenter__(self) -> FileSending:
        self._stream = self._stub.SendFiles(metadata=self._metadata)
        try:
            await self._send(pb.SendFilesRequest(hello=self._hello))
        except BaseException:
            self._stream.cancel()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stream.cancel()

    async def send(self, piece: Piece) -> None:
        await self._send(pb.SendFilesRequest(piece=file_wire.piece_to_pb(piece)))

    async def complete(self) -> None:
        """Says that nothing more will come."""
        await self._send(pb.SendFilesRequest(complete=pb.FilesComplete()))

    async def _send(self, request: pb.SendFilesRequest) -> None:
        async with self._writing:
            try:
                await self._stream.write(request)
            except STREAM_IS_OVER as error:
                raise await explain(self._stream, error) from None

    async def answers(self) -> AsyncIterator[Held | Receiver | AllHeld]:
        """What comes from the driver, and of it, until the stream is over."""
        try:
            async for response in self._stream:
                answer = file_wire.answer_from_pb(response)
                if answer is not None:
                    yield answer
        except STREAM_IS_OVER as error:
            raise await explain(self._stream, error) from None
