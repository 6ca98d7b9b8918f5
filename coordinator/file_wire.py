"""Pieces of files and what is said about them: domain values <-> protobuf."""

from __future__ import annotations

from typing import Any

from coordinator import wire
from coordinator.core.errors import InvalidReservation
from coordinator.core.file_values import PIECE_BYTES, AllHeld, Held, Piece, Receiver, path_problem
from coordinator.core.model import IncarnationId, MemberId
from coordinator.v1 import file_service_pb2 as pb


def piece_to_pb(piece: Piece) -> pb.FilePiece:
    return pb.FilePiece(
        path=piece.path, offset=piece.offset, data=piece.data, version=piece.version
    )


def piece_from_pb(piece: pb.FilePiece) -> Piece:
    """Raises InvalidReservation."""
    problem = path_problem(piece.path)
    if problem:
        raise InvalidReservation(f"path {ascii(piece.path)[:200]}: {problem}")
    if piece.offset < 0 or piece.version < 0:
        raise InvalidReservation("the offset and version of a piece must be 0 or more")
    if len(piece.data) > PIECE_BYTES:
        raise InvalidReservation(
            f"a piece of {len(piece.data):,} bytes: send at most {PIECE_BYTES:,} at once"
        )
    return Piece(piece.path, piece.version, piece.offset, piece.data)


def held_to_pb(held: Held) -> pb.FileHeld:
    return pb.FileHeld(path=held.path, size=held.size, version=held.version, missed=held.missed)


def held_from_pb(held: pb.FileHeld) -> Held:
    return Held(held.path, held.version, held.size, held.missed)


def answer_to_pb(answer: Held | Receiver | AllHeld) -> pb.SendFilesResponse:
    match answer:
        case Held():
            return pb.SendFilesResponse(held=held_to_pb(answer))
        case Receiver(is_there=is_there, window=window):
            receiver = pb.FileReceiver(is_there=is_there, window=window)
            return pb.SendFilesResponse(receiver=receiver)
        case AllHeld():
            return pb.SendFilesResponse(complete=pb.FilesComplete())


def answer_from_pb(response: pb.SendFilesResponse) -> Held | Receiver | AllHeld | None:
    """None: it is newer than we are."""
    match response.WhichOneof("message"):
        case "held":
            return held_from_pb(response.held)
        case "receiver":
            return Receiver(response.receiver.is_there, response.receiver.window)
        case "complete":
            return AllHeld()
        case _:
            return None


def who_of(message: Any) -> tuple[MemberId, IncarnationId]:
    """Raises InvalidReservation."""
    if not message.incarnation:
        raise InvalidReservation("the message names no incarnation")
    return wire.member_id_from_pb(message.member), IncarnationId(message.incarnation)
