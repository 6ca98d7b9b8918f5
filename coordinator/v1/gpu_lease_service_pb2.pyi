import datetime

from coordinator.v1 import gpu_pb2 as _gpu_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ListGpusRequest(_message.Message):
    __slots__ = ("with_events",)
    WITH_EVENTS_FIELD_NUMBER: _ClassVar[int]
    with_events: bool
    def __init__(self, with_events: bool = ...) -> None: ...

class ListGpusResponse(_message.Message):
    __slots__ = ("gpus", "events")
    GPUS_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    gpus: _containers.RepeatedCompositeFieldContainer[_gpu_pb2.GpuLease]
    events: _containers.RepeatedCompositeFieldContainer[GpuEvent]
    def __init__(self, gpus: _Optional[_Iterable[_Union[_gpu_pb2.GpuLease, _Mapping]]] = ..., events: _Optional[_Iterable[_Union[GpuEvent, _Mapping]]] = ...) -> None: ...

class GpuEvent(_message.Message):
    __slots__ = ("time", "text")
    TIME_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    time: _timestamp_pb2.Timestamp
    text: str
    def __init__(self, time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., text: _Optional[str] = ...) -> None: ...

class ReportGpusRequest(_message.Message):
    __slots__ = ("hostname", "boot_id", "gpus", "number")
    HOSTNAME_FIELD_NUMBER: _ClassVar[int]
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    GPUS_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    hostname: str
    boot_id: str
    gpus: _containers.RepeatedCompositeFieldContainer[_gpu_pb2.GpuSight]
    number: int
    def __init__(self, hostname: _Optional[str] = ..., boot_id: _Optional[str] = ..., gpus: _Optional[_Iterable[_Union[_gpu_pb2.GpuSight, _Mapping]]] = ..., number: _Optional[int] = ...) -> None: ...

class ReportGpusResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class InspectGpusRequest(_message.Message):
    __slots__ = ("uuids",)
    UUIDS_FIELD_NUMBER: _ClassVar[int]
    uuids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, uuids: _Optional[_Iterable[str]] = ...) -> None: ...

class InspectGpusResponse(_message.Message):
    __slots__ = ("number", "coordinator_id")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    COORDINATOR_ID_FIELD_NUMBER: _ClassVar[int]
    number: int
    coordinator_id: str
    def __init__(self, number: _Optional[int] = ..., coordinator_id: _Optional[str] = ...) -> None: ...

class GpuWant(_message.Message):
    __slots__ = ("who", "uuids", "count")
    WHO_FIELD_NUMBER: _ClassVar[int]
    UUIDS_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    who: str
    uuids: _containers.RepeatedScalarFieldContainer[str]
    count: int
    def __init__(self, who: _Optional[str] = ..., uuids: _Optional[_Iterable[str]] = ..., count: _Optional[int] = ...) -> None: ...

class AcquireGpusRequest(_message.Message):
    __slots__ = ("request_id", "holder", "wants", "patience")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    HOLDER_FIELD_NUMBER: _ClassVar[int]
    WANTS_FIELD_NUMBER: _ClassVar[int]
    PATIENCE_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    holder: str
    wants: _containers.RepeatedCompositeFieldContainer[GpuWant]
    patience: _duration_pb2.Duration
    def __init__(self, request_id: _Optional[str] = ..., holder: _Optional[str] = ..., wants: _Optional[_Iterable[_Union[GpuWant, _Mapping]]] = ..., patience: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class AcquireGpusResponse(_message.Message):
    __slots__ = ("grants", "ttl")
    GRANTS_FIELD_NUMBER: _ClassVar[int]
    TTL_FIELD_NUMBER: _ClassVar[int]
    grants: _containers.RepeatedCompositeFieldContainer[GpuGrantTo]
    ttl: _duration_pb2.Duration
    def __init__(self, grants: _Optional[_Iterable[_Union[GpuGrantTo, _Mapping]]] = ..., ttl: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class GpuGrantTo(_message.Message):
    __slots__ = ("who", "uuid", "token")
    WHO_FIELD_NUMBER: _ClassVar[int]
    UUID_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    who: str
    uuid: str
    token: _gpu_pb2.LeaseToken
    def __init__(self, who: _Optional[str] = ..., uuid: _Optional[str] = ..., token: _Optional[_Union[_gpu_pb2.LeaseToken, _Mapping]] = ...) -> None: ...

class RenewGpusRequest(_message.Message):
    __slots__ = ("request_id", "tokens")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    tokens: _containers.RepeatedCompositeFieldContainer[_gpu_pb2.LeaseToken]
    def __init__(self, request_id: _Optional[str] = ..., tokens: _Optional[_Iterable[_Union[_gpu_pb2.LeaseToken, _Mapping]]] = ...) -> None: ...

class RenewGpusResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ReleaseGpusRequest(_message.Message):
    __slots__ = ("request_id", "who", "gpus")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    WHO_FIELD_NUMBER: _ClassVar[int]
    GPUS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    who: str
    gpus: _containers.RepeatedCompositeFieldContainer[_gpu_pb2.GpuSight]
    def __init__(self, request_id: _Optional[str] = ..., who: _Optional[str] = ..., gpus: _Optional[_Iterable[_Union[_gpu_pb2.GpuSight, _Mapping]]] = ...) -> None: ...

class ReleaseGpusResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class QuarantineGpuRequest(_message.Message):
    __slots__ = ("uuid", "reason")
    UUID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    uuid: str
    reason: str
    def __init__(self, uuid: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class QuarantineGpuResponse(_message.Message):
    __slots__ = ("gpu",)
    GPU_FIELD_NUMBER: _ClassVar[int]
    gpu: _gpu_pb2.GpuLease
    def __init__(self, gpu: _Optional[_Union[_gpu_pb2.GpuLease, _Mapping]] = ...) -> None: ...

class ClearGpuRequest(_message.Message):
    __slots__ = ("uuid", "reason")
    UUID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    uuid: str
    reason: str
    def __init__(self, uuid: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class ClearGpuResponse(_message.Message):
    __slots__ = ("gpu",)
    GPU_FIELD_NUMBER: _ClassVar[int]
    gpu: _gpu_pb2.GpuLease
    def __init__(self, gpu: _Optional[_Union[_gpu_pb2.GpuLease, _Mapping]] = ...) -> None: ...

class UseGpusRequest(_message.Message):
    __slots__ = ("questions",)
    QUESTIONS_FIELD_NUMBER: _ClassVar[int]
    questions: _containers.RepeatedCompositeFieldContainer[GpuQuestion]
    def __init__(self, questions: _Optional[_Iterable[_Union[GpuQuestion, _Mapping]]] = ...) -> None: ...

class GpuQuestion(_message.Message):
    __slots__ = ("number", "acquire", "renew", "release")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    ACQUIRE_FIELD_NUMBER: _ClassVar[int]
    RENEW_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    number: int
    acquire: AcquireGpusRequest
    renew: RenewGpusRequest
    release: ReleaseGpusRequest
    def __init__(self, number: _Optional[int] = ..., acquire: _Optional[_Union[AcquireGpusRequest, _Mapping]] = ..., renew: _Optional[_Union[RenewGpusRequest, _Mapping]] = ..., release: _Optional[_Union[ReleaseGpusRequest, _Mapping]] = ...) -> None: ...

class UseGpusResponse(_message.Message):
    __slots__ = ("answers",)
    ANSWERS_FIELD_NUMBER: _ClassVar[int]
    answers: _containers.RepeatedCompositeFieldContainer[GpuAnswer]
    def __init__(self, answers: _Optional[_Iterable[_Union[GpuAnswer, _Mapping]]] = ...) -> None: ...

class GpuAnswer(_message.Message):
    __slots__ = ("number", "acquired", "renewed", "released", "refused")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    ACQUIRED_FIELD_NUMBER: _ClassVar[int]
    RENEWED_FIELD_NUMBER: _ClassVar[int]
    RELEASED_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    number: int
    acquired: AcquireGpusResponse
    renewed: RenewGpusResponse
    released: ReleaseGpusResponse
    refused: GpuRefusal
    def __init__(self, number: _Optional[int] = ..., acquired: _Optional[_Union[AcquireGpusResponse, _Mapping]] = ..., renewed: _Optional[_Union[RenewGpusResponse, _Mapping]] = ..., released: _Optional[_Union[ReleaseGpusResponse, _Mapping]] = ..., refused: _Optional[_Union[GpuRefusal, _Mapping]] = ...) -> None: ...

class GpuRefusal(_message.Message):
    __slots__ = ("code", "reason", "message")
    CODE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    code: int
    reason: str
    message: str
    def __init__(self, code: _Optional[int] = ..., reason: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...
