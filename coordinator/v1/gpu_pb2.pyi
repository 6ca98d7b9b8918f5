import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class LeaseState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LEASE_STATE_UNSPECIFIED: _ClassVar[LeaseState]
    LEASE_STATE_FREE: _ClassVar[LeaseState]
    LEASE_STATE_HELD: _ClassVar[LeaseState]
    LEASE_STATE_RELEASING: _ClassVar[LeaseState]
    LEASE_STATE_UNPROVEN: _ClassVar[LeaseState]
    LEASE_STATE_QUARANTINED: _ClassVar[LeaseState]
LEASE_STATE_UNSPECIFIED: LeaseState
LEASE_STATE_FREE: LeaseState
LEASE_STATE_HELD: LeaseState
LEASE_STATE_RELEASING: LeaseState
LEASE_STATE_UNPROVEN: LeaseState
LEASE_STATE_QUARANTINED: LeaseState

class LeaseToken(_message.Message):
    __slots__ = ("coordinator_id", "number")
    COORDINATOR_ID_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    coordinator_id: str
    number: int
    def __init__(self, coordinator_id: _Optional[str] = ..., number: _Optional[int] = ...) -> None: ...

class GpuSight(_message.Message):
    __slots__ = ("uuid", "is_free", "index", "name", "memory_total", "memory_used", "holder", "pids")
    UUID_FIELD_NUMBER: _ClassVar[int]
    IS_FREE_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    MEMORY_TOTAL_FIELD_NUMBER: _ClassVar[int]
    MEMORY_USED_FIELD_NUMBER: _ClassVar[int]
    HOLDER_FIELD_NUMBER: _ClassVar[int]
    PIDS_FIELD_NUMBER: _ClassVar[int]
    uuid: str
    is_free: bool
    index: int
    name: str
    memory_total: int
    memory_used: int
    holder: str
    pids: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, uuid: _Optional[str] = ..., is_free: bool = ..., index: _Optional[int] = ..., name: _Optional[str] = ..., memory_total: _Optional[int] = ..., memory_used: _Optional[int] = ..., holder: _Optional[str] = ..., pids: _Optional[_Iterable[int]] = ...) -> None: ...

class GpuOffer(_message.Message):
    __slots__ = ("gpus", "is_assigned", "problem")
    GPUS_FIELD_NUMBER: _ClassVar[int]
    IS_ASSIGNED_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    gpus: _containers.RepeatedCompositeFieldContainer[GpuSight]
    is_assigned: bool
    problem: str
    def __init__(self, gpus: _Optional[_Iterable[_Union[GpuSight, _Mapping]]] = ..., is_assigned: bool = ..., problem: _Optional[str] = ...) -> None: ...

class GpuLease(_message.Message):
    __slots__ = ("uuid", "state", "hostname", "boot_id", "name", "token", "holder", "who", "state_time", "expire_time", "reason", "pids")
    UUID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    HOSTNAME_FIELD_NUMBER: _ClassVar[int]
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    HOLDER_FIELD_NUMBER: _ClassVar[int]
    WHO_FIELD_NUMBER: _ClassVar[int]
    STATE_TIME_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    PIDS_FIELD_NUMBER: _ClassVar[int]
    uuid: str
    state: LeaseState
    hostname: str
    boot_id: str
    name: str
    token: LeaseToken
    holder: str
    who: str
    state_time: _timestamp_pb2.Timestamp
    expire_time: _timestamp_pb2.Timestamp
    reason: str
    pids: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, uuid: _Optional[str] = ..., state: _Optional[_Union[LeaseState, str]] = ..., hostname: _Optional[str] = ..., boot_id: _Optional[str] = ..., name: _Optional[str] = ..., token: _Optional[_Union[LeaseToken, _Mapping]] = ..., holder: _Optional[str] = ..., who: _Optional[str] = ..., state_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., reason: _Optional[str] = ..., pids: _Optional[_Iterable[int]] = ...) -> None: ...
