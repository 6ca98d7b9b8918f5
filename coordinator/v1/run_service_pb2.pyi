from coordinator.v1 import model_pb2 as _model_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class CreateRunRequest(_message.Message):
    __slots__ = ("request_id", "spec")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    spec: _model_pb2.RunSpec
    def __init__(self, request_id: _Optional[str] = ..., spec: _Optional[_Union[_model_pb2.RunSpec, _Mapping]] = ...) -> None: ...

class CreateRunResponse(_message.Message):
    __slots__ = ("run", "owner_token", "agent_token")
    RUN_FIELD_NUMBER: _ClassVar[int]
    OWNER_TOKEN_FIELD_NUMBER: _ClassVar[int]
    AGENT_TOKEN_FIELD_NUMBER: _ClassVar[int]
    run: _model_pb2.Run
    owner_token: str
    agent_token: str
    def __init__(self, run: _Optional[_Union[_model_pb2.Run, _Mapping]] = ..., owner_token: _Optional[str] = ..., agent_token: _Optional[str] = ...) -> None: ...

class GetRunRequest(_message.Message):
    __slots__ = ("run_id",)
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    def __init__(self, run_id: _Optional[str] = ...) -> None: ...

class GetRunResponse(_message.Message):
    __slots__ = ("run",)
    RUN_FIELD_NUMBER: _ClassVar[int]
    run: _model_pb2.Run
    def __init__(self, run: _Optional[_Union[_model_pb2.Run, _Mapping]] = ...) -> None: ...

class ListRunsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListRunsResponse(_message.Message):
    __slots__ = ("runs",)
    RUNS_FIELD_NUMBER: _ClassVar[int]
    runs: _containers.RepeatedCompositeFieldContainer[_model_pb2.Run]
    def __init__(self, runs: _Optional[_Iterable[_Union[_model_pb2.Run, _Mapping]]] = ...) -> None: ...

class WatchRunRequest(_message.Message):
    __slots__ = ("run_id",)
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    def __init__(self, run_id: _Optional[str] = ...) -> None: ...

class WatchRunResponse(_message.Message):
    __slots__ = ("run",)
    RUN_FIELD_NUMBER: _ClassVar[int]
    run: _model_pb2.Run
    def __init__(self, run: _Optional[_Union[_model_pb2.Run, _Mapping]] = ...) -> None: ...

class OwnRunRequest(_message.Message):
    __slots__ = ("run_id",)
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    def __init__(self, run_id: _Optional[str] = ...) -> None: ...

class OwnRunResponse(_message.Message):
    __slots__ = ("run",)
    RUN_FIELD_NUMBER: _ClassVar[int]
    run: _model_pb2.Run
    def __init__(self, run: _Optional[_Union[_model_pb2.Run, _Mapping]] = ...) -> None: ...

class StopRunRequest(_message.Message):
    __slots__ = ("run_id", "reason", "grace_seconds")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    GRACE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    reason: str
    grace_seconds: float
    def __init__(self, run_id: _Optional[str] = ..., reason: _Optional[str] = ..., grace_seconds: _Optional[float] = ...) -> None: ...

class StopRunResponse(_message.Message):
    __slots__ = ("run",)
    RUN_FIELD_NUMBER: _ClassVar[int]
    run: _model_pb2.Run
    def __init__(self, run: _Optional[_Union[_model_pb2.Run, _Mapping]] = ...) -> None: ...

class TaskState(_message.Message):
    __slots__ = ("member", "running", "failed", "message")
    MEMBER_FIELD_NUMBER: _ClassVar[int]
    RUNNING_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    member: _model_pb2.MemberId
    running: bool
    failed: bool
    message: str
    def __init__(self, member: _Optional[_Union[_model_pb2.MemberId, _Mapping]] = ..., running: bool = ..., failed: bool = ..., message: _Optional[str] = ...) -> None: ...

class ReportSchedulingRequest(_message.Message):
    __slots__ = ("run_id", "total_slots", "busy_slots", "tasks", "restart_count")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    TOTAL_SLOTS_FIELD_NUMBER: _ClassVar[int]
    BUSY_SLOTS_FIELD_NUMBER: _ClassVar[int]
    TASKS_FIELD_NUMBER: _ClassVar[int]
    RESTART_COUNT_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    total_slots: int
    busy_slots: int
    tasks: _containers.RepeatedCompositeFieldContainer[TaskState]
    restart_count: int
    def __init__(self, run_id: _Optional[str] = ..., total_slots: _Optional[int] = ..., busy_slots: _Optional[int] = ..., tasks: _Optional[_Iterable[_Union[TaskState, _Mapping]]] = ..., restart_count: _Optional[int] = ...) -> None: ...

class ReportSchedulingResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ReportTaskEndRequest(_message.Message):
    __slots__ = ("run_id", "member", "incarnation", "exit")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    MEMBER_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    EXIT_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    member: _model_pb2.MemberId
    incarnation: str
    exit: _model_pb2.ExitReport
    def __init__(self, run_id: _Optional[str] = ..., member: _Optional[_Union[_model_pb2.MemberId, _Mapping]] = ..., incarnation: _Optional[str] = ..., exit: _Optional[_Union[_model_pb2.ExitReport, _Mapping]] = ...) -> None: ...

class ReportTaskEndResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
