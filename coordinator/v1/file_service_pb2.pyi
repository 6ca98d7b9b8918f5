from coordinator.v1 import model_pb2 as _model_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SendFilesRequest(_message.Message):
    __slots__ = ("hello", "piece", "complete")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    PIECE_FIELD_NUMBER: _ClassVar[int]
    COMPLETE_FIELD_NUMBER: _ClassVar[int]
    hello: FileSenderHello
    piece: FilePiece
    complete: FilesComplete
    def __init__(self, hello: _Optional[_Union[FileSenderHello, _Mapping]] = ..., piece: _Optional[_Union[FilePiece, _Mapping]] = ..., complete: _Optional[_Union[FilesComplete, _Mapping]] = ...) -> None: ...

class FileSenderHello(_message.Message):
    __slots__ = ("run_id", "member", "incarnation")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    MEMBER_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    member: _model_pb2.MemberId
    incarnation: str
    def __init__(self, run_id: _Optional[str] = ..., member: _Optional[_Union[_model_pb2.MemberId, _Mapping]] = ..., incarnation: _Optional[str] = ...) -> None: ...

class FilePiece(_message.Message):
    __slots__ = ("path", "offset", "data", "version")
    PATH_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    path: str
    offset: int
    data: bytes
    version: int
    def __init__(self, path: _Optional[str] = ..., offset: _Optional[int] = ..., data: _Optional[bytes] = ..., version: _Optional[int] = ...) -> None: ...

class FilesComplete(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class SendFilesResponse(_message.Message):
    __slots__ = ("held", "receiver", "complete")
    HELD_FIELD_NUMBER: _ClassVar[int]
    RECEIVER_FIELD_NUMBER: _ClassVar[int]
    COMPLETE_FIELD_NUMBER: _ClassVar[int]
    held: FileHeld
    receiver: FileReceiver
    complete: FilesComplete
    def __init__(self, held: _Optional[_Union[FileHeld, _Mapping]] = ..., receiver: _Optional[_Union[FileReceiver, _Mapping]] = ..., complete: _Optional[_Union[FilesComplete, _Mapping]] = ...) -> None: ...

class FileHeld(_message.Message):
    __slots__ = ("path", "size", "version", "missed")
    PATH_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    MISSED_FIELD_NUMBER: _ClassVar[int]
    path: str
    size: int
    version: int
    missed: bool
    def __init__(self, path: _Optional[str] = ..., size: _Optional[int] = ..., version: _Optional[int] = ..., missed: bool = ...) -> None: ...

class FileReceiver(_message.Message):
    __slots__ = ("is_there", "window")
    IS_THERE_FIELD_NUMBER: _ClassVar[int]
    WINDOW_FIELD_NUMBER: _ClassVar[int]
    is_there: bool
    window: int
    def __init__(self, is_there: bool = ..., window: _Optional[int] = ...) -> None: ...

class ReceiveFilesRequest(_message.Message):
    __slots__ = ("hello", "held", "complete")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    COMPLETE_FIELD_NUMBER: _ClassVar[int]
    hello: FileReceiverHello
    held: ReceivedFile
    complete: ReceivedAll
    def __init__(self, hello: _Optional[_Union[FileReceiverHello, _Mapping]] = ..., held: _Optional[_Union[ReceivedFile, _Mapping]] = ..., complete: _Optional[_Union[ReceivedAll, _Mapping]] = ...) -> None: ...

class FileReceiverHello(_message.Message):
    __slots__ = ("run_id",)
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    def __init__(self, run_id: _Optional[str] = ...) -> None: ...

class ReceivedFile(_message.Message):
    __slots__ = ("member", "incarnation", "held")
    MEMBER_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    member: _model_pb2.MemberId
    incarnation: str
    held: FileHeld
    def __init__(self, member: _Optional[_Union[_model_pb2.MemberId, _Mapping]] = ..., incarnation: _Optional[str] = ..., held: _Optional[_Union[FileHeld, _Mapping]] = ...) -> None: ...

class ReceivedAll(_message.Message):
    __slots__ = ("member", "incarnation")
    MEMBER_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    member: _model_pb2.MemberId
    incarnation: str
    def __init__(self, member: _Optional[_Union[_model_pb2.MemberId, _Mapping]] = ..., incarnation: _Optional[str] = ...) -> None: ...

class ReceiveFilesResponse(_message.Message):
    __slots__ = ("member", "incarnation", "piece", "complete", "sender")
    MEMBER_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    PIECE_FIELD_NUMBER: _ClassVar[int]
    COMPLETE_FIELD_NUMBER: _ClassVar[int]
    SENDER_FIELD_NUMBER: _ClassVar[int]
    member: _model_pb2.MemberId
    incarnation: str
    piece: FilePiece
    complete: FilesComplete
    sender: FileSender
    def __init__(self, member: _Optional[_Union[_model_pb2.MemberId, _Mapping]] = ..., incarnation: _Optional[str] = ..., piece: _Optional[_Union[FilePiece, _Mapping]] = ..., complete: _Optional[_Union[FilesComplete, _Mapping]] = ..., sender: _Optional[_Union[FileSender, _Mapping]] = ...) -> None: ...

class FileSender(_message.Message):
    __slots__ = ("is_there",)
    IS_THERE_FIELD_NUMBER: _ClassVar[int]
    is_there: bool
    def __init__(self, is_there: bool = ...) -> None: ...
