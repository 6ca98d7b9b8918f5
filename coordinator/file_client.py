"""The driver's end of a stream of files, synchronous.

Its callers see domain values and ``TfleaseError``s, never protobuf or ``grpc.RpcError``.
"""

from __future__ import annotations

import queue
from collections.abc import Iterator
from dataclasses import dataclass

import grpc

from coordinator import file_wire, wire
from coordinator.channels import channel
from coordinator.core.access import ClientTls
from coordinator.core.errors import CoordinatorUnavailable, InvalidReservation
from coordinator.core.file_values import Held, Piece
from coordinator.core.model import IncarnationId, MemberId, RunId
from coordinator.security import call_metadata
from coordinator.status import error_from_rpc
from coordinator.v1 import file_service_pb2 as pb
from coordinator.v1 import file_service_pb2_grpc as file_grpc


@dataclass(frozen=True, slots=True)
class Origin:
    """Whose files: which attempt of which member."""

    member: MemberId
    incarnation: IncarnationId


@dataclass(frozen=True, slots=True)
class SenderCame:
    """An agent is connected."""

    origin: Origin


@dataclass(frozen=True, slots=True)
class SenderLeft:
    """It is no more; it may come again."""

    origin: Origin


@dataclass(frozen=True, slots=True)
class PieceCame:
    """To be kept, and then acknowledged."""

    origin: Origin
    piece: Piece


@dataclass(frozen=True, slots=True)
class SentAll:
    """Nothing more will come of this attempt; to be acknowledged."""

    origin: Origin


FileNews = SenderCame | SenderLeft | PieceCame | SentAll


class FileClient:
    """The receiver of one run's files. ``close`` from any thread; the rest in one."""

    def __init__(
        self, address: str, token: str, run_id: RunId, tls: ClientTls | None = None
    ) -> None:
        # Its own connection: pieces must not stand in the way of the run's pictures.
        self._channel = channel(address, tls, [("grpc.use_local_subchannel_pool", 1)])
        self._stub = file_grpc.FileServiceStub(self._channel)
        self._metadata = call_metadata(token)
        self._run_id = run_id
        self._answers: queue.SimpleQueue[pb.ReceiveFilesRequest | None] = queue.SimpleQueue()

    def receive(self) -> Iterator[FileNews]:
        """One stream; it ends when another receiver takes over. Raises UnknownRun,
        PermissionDenied, Unauthenticated, LimitExceeded, CoordinatorUnavailable."""
        answers = self._answers = queue.SimpleQueue()
        hello = pb.FileReceiverHello(run_id=self._run_id)
        answers.put(pb.ReceiveFilesRequest(hello=hello))
        try:
            stream = self._stub.ReceiveFiles(iter(answers.get, None), metadata=self._metadata)
        except ValueError as error:  # grpc's word for a channel that was closed before
            raise CoordinatorUnavailable(str(error)) from None
        try:
            for response in stream:
                news = _news(response)
                if news is not None:
                    yield news
        except grpc.RpcError as error:
            raise error_from_rpc(error) from None
        finally:
            answers.put(None)
            stream.cancel()

    def held(self, origin: Origin, held: Held) -> None:
        """So much of a file is kept."""
        told = pb.ReceivedFile(
            member=wire.member_id_to_pb(origin.member),
            incarnation=origin.incarnation,
            held=file_wire.held_to_pb(held),
        )
        self._answers.put(pb.ReceiveFilesRequest(held=told))

    def held_all(self, origin: Origin) -> None:
        """All of this attempt's is kept."""
        told = pb.ReceivedAll(
            member=wire.member_id_to_pb(origin.member), incarnation=origin.incarnation
        )
        self._answers.put(pb.ReceiveFilesRequest(complete=told))

    def close(self) -> None:
        """A stream that is open ends with CoordinatorUnavailable."""
        self._channel.close()


def _news(response: pb.ReceiveFilesResponse) -> FileNews | None:
    """None: what makes no sense, or is newer than we are."""
    try:
        origin = Origin(*file_wire.who_of(response))
        match response.WhichOneof("message"):
            case "piece":
                return PieceCame(origin, file_wire.piece_from_pb(response.piece))
            case "complete":
                return SentAll(origin)
            case "sender":
                return SenderCame(origin) if response.sender.is_there else SenderLeft(origin)
            case _:
                return None
    except InvalidReservation:
        return None
