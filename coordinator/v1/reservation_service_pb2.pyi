import datetime

from coordinator.v1 import gpu_pb2 as _gpu_pb2
from coordinator.v1 import model_pb2 as _model_pb2
from coordinator.v1 import stall_pb2 as _stall_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ReserveRequest(_message.Message):
    __slots__ = ("run_id", "member", "incarnation", "executor", "endpoint", "gpus")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    MEMBER_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    EXECUTOR_FIELD_NUMBER: _ClassVar[int]
    ENDPOINT_FIELD_NUMBER: _ClassVar[int]
    GPUS_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    member: _model_pb2.MemberId
    incarnation: str
    executor: _model_pb2.ExecutorInfo
    endpoint: _model_pb2.Endpoint
    gpus: _gpu_pb2.GpuOffer
    def __init__(self, run_id: _Optional[str] = ..., member: _Optional[_Union[_model_pb2.MemberId, _Mapping]] = ..., incarnation: _Optional[str] = ..., executor: _Optional[_Union[_model_pb2.ExecutorInfo, _Mapping]] = ..., endpoint: _Optional[_Union[_model_pb2.Endpoint, _Mapping]] = ..., gpus: _Optional[_Union[_gpu_pb2.GpuOffer, _Mapping]] = ...) -> None: ...

class ReserveResponse(_message.Message):
    __slots__ = ("outcome", "retry_delay", "holder", "beat_interval", "fence_timeout")
    class Outcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        OUTCOME_UNSPECIFIED: _ClassVar[ReserveResponse.Outcome]
        OUTCOME_GRANTED: _ClassVar[ReserveResponse.Outcome]
        OUTCOME_STAND_BY: _ClassVar[ReserveResponse.Outcome]
    OUTCOME_UNSPECIFIED: ReserveResponse.Outcome
    OUTCOME_GRANTED: ReserveResponse.Outcome
    OUTCOME_STAND_BY: ReserveResponse.Outcome
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    RETRY_DELAY_FIELD_NUMBER: _ClassVar[int]
    HOLDER_FIELD_NUMBER: _ClassVar[int]
    BEAT_INTERVAL_FIELD_NUMBER: _ClassVar[int]
    FENCE_TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    outcome: ReserveResponse.Outcome
    retry_delay: _duration_pb2.Duration
    holder: str
    beat_interval: _duration_pb2.Duration
    fence_timeout: _duration_pb2.Duration
    def __init__(self, outcome: _Optional[_Union[ReserveResponse.Outcome, str]] = ..., retry_delay: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., holder: _Optional[str] = ..., beat_interval: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., fence_timeout: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class AttendRequest(_message.Message):
    __slots__ = ("sequence", "hello", "heartbeat", "process_ready", "main_entered", "progress", "process_exited", "goodbye", "log_chunk", "gpus_inspected", "gpus_claimed", "stack_dumped")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    HELLO_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    PROCESS_READY_FIELD_NUMBER: _ClassVar[int]
    MAIN_ENTERED_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    PROCESS_EXITED_FIELD_NUMBER: _ClassVar[int]
    GOODBYE_FIELD_NUMBER: _ClassVar[int]
    LOG_CHUNK_FIELD_NUMBER: _ClassVar[int]
    GPUS_INSPECTED_FIELD_NUMBER: _ClassVar[int]
    GPUS_CLAIMED_FIELD_NUMBER: _ClassVar[int]
    STACK_DUMPED_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    hello: AgentHello
    heartbeat: Heartbeat
    process_ready: ProcessReady
    main_entered: MainEntered
    progress: Progress
    process_exited: ProcessExited
    goodbye: Goodbye
    log_chunk: LogChunk
    gpus_inspected: GpusInspected
    gpus_claimed: GpusClaimed
    stack_dumped: StackDumped
    def __init__(self, sequence: _Optional[int] = ..., hello: _Optional[_Union[AgentHello, _Mapping]] = ..., heartbeat: _Optional[_Union[Heartbeat, _Mapping]] = ..., process_ready: _Optional[_Union[ProcessReady, _Mapping]] = ..., main_entered: _Optional[_Union[MainEntered, _Mapping]] = ..., progress: _Optional[_Union[Progress, _Mapping]] = ..., process_exited: _Optional[_Union[ProcessExited, _Mapping]] = ..., goodbye: _Optional[_Union[Goodbye, _Mapping]] = ..., log_chunk: _Optional[_Union[LogChunk, _Mapping]] = ..., gpus_inspected: _Optional[_Union[GpusInspected, _Mapping]] = ..., gpus_claimed: _Optional[_Union[GpusClaimed, _Mapping]] = ..., stack_dumped: _Optional[_Union[StackDumped, _Mapping]] = ...) -> None: ...

class AgentHello(_message.Message):
    __slots__ = ("run_id", "member", "incarnation")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    MEMBER_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    member: _model_pb2.MemberId
    incarnation: str
    def __init__(self, run_id: _Optional[str] = ..., member: _Optional[_Union[_model_pb2.MemberId, _Mapping]] = ..., incarnation: _Optional[str] = ...) -> None: ...

class Heartbeat(_message.Message):
    __slots__ = ("leases",)
    LEASES_FIELD_NUMBER: _ClassVar[int]
    leases: _containers.RepeatedCompositeFieldContainer[_gpu_pb2.LeaseToken]
    def __init__(self, leases: _Optional[_Iterable[_Union[_gpu_pb2.LeaseToken, _Mapping]]] = ...) -> None: ...

class GpusInspected(_message.Message):
    __slots__ = ("number", "gpus")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    GPUS_FIELD_NUMBER: _ClassVar[int]
    number: int
    gpus: _containers.RepeatedCompositeFieldContainer[_gpu_pb2.GpuSight]
    def __init__(self, number: _Optional[int] = ..., gpus: _Optional[_Iterable[_Union[_gpu_pb2.GpuSight, _Mapping]]] = ...) -> None: ...

class GpusClaimed(_message.Message):
    __slots__ = ("number", "refused")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    number: int
    refused: _containers.RepeatedCompositeFieldContainer[_gpu_pb2.GpuSight]
    def __init__(self, number: _Optional[int] = ..., refused: _Optional[_Iterable[_Union[_gpu_pb2.GpuSight, _Mapping]]] = ...) -> None: ...

class ProcessReady(_message.Message):
    __slots__ = ("versions",)
    class VersionsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    versions: _containers.ScalarMap[str, str]
    def __init__(self, versions: _Optional[_Mapping[str, str]] = ...) -> None: ...

class MainEntered(_message.Message):
    __slots__ = ("generation",)
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    generation: int
    def __init__(self, generation: _Optional[int] = ...) -> None: ...

class Progress(_message.Message):
    __slots__ = ("generation", "step", "metrics", "section")
    class MetricsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    SECTION_FIELD_NUMBER: _ClassVar[int]
    generation: int
    step: int
    metrics: _containers.ScalarMap[str, float]
    section: _stall_pb2.Section
    def __init__(self, generation: _Optional[int] = ..., step: _Optional[int] = ..., metrics: _Optional[_Mapping[str, float]] = ..., section: _Optional[_Union[_stall_pb2.Section, str]] = ...) -> None: ...

class StackDumped(_message.Message):
    __slots__ = ("text",)
    TEXT_FIELD_NUMBER: _ClassVar[int]
    text: str
    def __init__(self, text: _Optional[str] = ...) -> None: ...

class ProcessExited(_message.Message):
    __slots__ = ("generation", "exit")
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    EXIT_FIELD_NUMBER: _ClassVar[int]
    generation: int
    exit: _model_pb2.ExitReport
    def __init__(self, generation: _Optional[int] = ..., exit: _Optional[_Union[_model_pb2.ExitReport, _Mapping]] = ...) -> None: ...

class Goodbye(_message.Message):
    __slots__ = ("reason",)
    REASON_FIELD_NUMBER: _ClassVar[int]
    reason: str
    def __init__(self, reason: _Optional[str] = ...) -> None: ...

class LogChunk(_message.Message):
    __slots__ = ("request_id", "offset", "data", "size", "error")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    offset: int
    data: bytes
    size: int
    error: str
    def __init__(self, request_id: _Optional[str] = ..., offset: _Optional[int] = ..., data: _Optional[bytes] = ..., size: _Optional[int] = ..., error: _Optional[str] = ...) -> None: ...

class AttendResponse(_message.Message):
    __slots__ = ("acknowledgement", "start", "stop", "read_log", "inspect_gpus", "claim_gpus", "dump_stack")
    ACKNOWLEDGEMENT_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    READ_LOG_FIELD_NUMBER: _ClassVar[int]
    INSPECT_GPUS_FIELD_NUMBER: _ClassVar[int]
    CLAIM_GPUS_FIELD_NUMBER: _ClassVar[int]
    DUMP_STACK_FIELD_NUMBER: _ClassVar[int]
    acknowledgement: Acknowledgement
    start: StartCommand
    stop: StopCommand
    read_log: ReadLogCommand
    inspect_gpus: InspectGpusCommand
    claim_gpus: ClaimGpusCommand
    dump_stack: DumpStackCommand
    def __init__(self, acknowledgement: _Optional[_Union[Acknowledgement, _Mapping]] = ..., start: _Optional[_Union[StartCommand, _Mapping]] = ..., stop: _Optional[_Union[StopCommand, _Mapping]] = ..., read_log: _Optional[_Union[ReadLogCommand, _Mapping]] = ..., inspect_gpus: _Optional[_Union[InspectGpusCommand, _Mapping]] = ..., claim_gpus: _Optional[_Union[ClaimGpusCommand, _Mapping]] = ..., dump_stack: _Optional[_Union[DumpStackCommand, _Mapping]] = ...) -> None: ...

class DumpStackCommand(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Acknowledgement(_message.Message):
    __slots__ = ("sequence",)
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    def __init__(self, sequence: _Optional[int] = ...) -> None: ...

class StartCommand(_message.Message):
    __slots__ = ("generation", "cluster_spec_zlib")
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_SPEC_ZLIB_FIELD_NUMBER: _ClassVar[int]
    generation: int
    cluster_spec_zlib: bytes
    def __init__(self, generation: _Optional[int] = ..., cluster_spec_zlib: _Optional[bytes] = ...) -> None: ...

class ClusterSpec(_message.Message):
    __slots__ = ("jobs",)
    class Job(_message.Message):
        __slots__ = ("role", "addresses")
        ROLE_FIELD_NUMBER: _ClassVar[int]
        ADDRESSES_FIELD_NUMBER: _ClassVar[int]
        role: _model_pb2.Role
        addresses: _containers.RepeatedScalarFieldContainer[str]
        def __init__(self, role: _Optional[_Union[_model_pb2.Role, str]] = ..., addresses: _Optional[_Iterable[str]] = ...) -> None: ...
    JOBS_FIELD_NUMBER: _ClassVar[int]
    jobs: _containers.RepeatedCompositeFieldContainer[ClusterSpec.Job]
    def __init__(self, jobs: _Optional[_Iterable[_Union[ClusterSpec.Job, _Mapping]]] = ...) -> None: ...

class StopCommand(_message.Message):
    __slots__ = ("generation", "reason", "grace", "again")
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    GRACE_FIELD_NUMBER: _ClassVar[int]
    AGAIN_FIELD_NUMBER: _ClassVar[int]
    generation: int
    reason: str
    grace: _duration_pb2.Duration
    again: bool
    def __init__(self, generation: _Optional[int] = ..., reason: _Optional[str] = ..., grace: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., again: bool = ...) -> None: ...

class InspectGpusCommand(_message.Message):
    __slots__ = ("number", "coordinator_id", "uuids")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    COORDINATOR_ID_FIELD_NUMBER: _ClassVar[int]
    UUIDS_FIELD_NUMBER: _ClassVar[int]
    number: int
    coordinator_id: str
    uuids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, number: _Optional[int] = ..., coordinator_id: _Optional[str] = ..., uuids: _Optional[_Iterable[str]] = ...) -> None: ...

class ClaimGpusCommand(_message.Message):
    __slots__ = ("number", "grants")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    GRANTS_FIELD_NUMBER: _ClassVar[int]
    number: int
    grants: _containers.RepeatedCompositeFieldContainer[GpuGrant]
    def __init__(self, number: _Optional[int] = ..., grants: _Optional[_Iterable[_Union[GpuGrant, _Mapping]]] = ...) -> None: ...

class GpuGrant(_message.Message):
    __slots__ = ("uuid", "token")
    UUID_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    uuid: str
    token: _gpu_pb2.LeaseToken
    def __init__(self, uuid: _Optional[str] = ..., token: _Optional[_Union[_gpu_pb2.LeaseToken, _Mapping]] = ...) -> None: ...

class ReadLogCommand(_message.Message):
    __slots__ = ("request_id", "offset", "max_bytes")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    MAX_BYTES_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    offset: int
    max_bytes: int
    def __init__(self, request_id: _Optional[str] = ..., offset: _Optional[int] = ..., max_bytes: _Optional[int] = ...) -> None: ...
