import datetime

from coordinator.v1 import gpu_pb2 as _gpu_pb2
from coordinator.v1 import stall_pb2 as _stall_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Role(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ROLE_UNSPECIFIED: _ClassVar[Role]
    ROLE_CHIEF: _ClassVar[Role]
    ROLE_WORKER: _ClassVar[Role]
    ROLE_PS: _ClassVar[Role]
    ROLE_EVALUATOR: _ClassVar[Role]

class RunPhase(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RUN_PHASE_UNSPECIFIED: _ClassVar[RunPhase]
    RUN_PHASE_FORMING: _ClassVar[RunPhase]
    RUN_PHASE_RUNNING: _ClassVar[RunPhase]
    RUN_PHASE_STOPPING: _ClassVar[RunPhase]
    RUN_PHASE_SUCCEEDED: _ClassVar[RunPhase]
    RUN_PHASE_FAILED: _ClassVar[RunPhase]
    RUN_PHASE_CANCELLED: _ClassVar[RunPhase]
    RUN_PHASE_RESTARTING: _ClassVar[RunPhase]

class MemberPhase(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MEMBER_PHASE_UNSPECIFIED: _ClassVar[MemberPhase]
    MEMBER_PHASE_EXPECTED: _ClassVar[MemberPhase]
    MEMBER_PHASE_RESERVED: _ClassVar[MemberPhase]
    MEMBER_PHASE_READY: _ClassVar[MemberPhase]
    MEMBER_PHASE_STARTING: _ClassVar[MemberPhase]
    MEMBER_PHASE_RUNNING: _ClassVar[MemberPhase]
    MEMBER_PHASE_EXITED: _ClassVar[MemberPhase]
    MEMBER_PHASE_LOST: _ClassVar[MemberPhase]
    MEMBER_PHASE_FENCED: _ClassVar[MemberPhase]
    MEMBER_PHASE_STOPPED: _ClassVar[MemberPhase]

class Cause(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CAUSE_UNSPECIFIED: _ClassVar[Cause]
    CAUSE_COMPLETED: _ClassVar[Cause]
    CAUSE_USER_EXCEPTION: _ClassVar[Cause]
    CAUSE_EXIT_CODE: _ClassVar[Cause]
    CAUSE_KILLED_BY_SIGNAL: _ClassVar[Cause]
    CAUSE_OUT_OF_MEMORY: _ClassVar[Cause]
    CAUSE_LOST_CONTACT: _ClassVar[Cause]
    CAUSE_PREEMPTED: _ClassVar[Cause]
    CAUSE_PEER_LOST: _ClassVar[Cause]
    CAUSE_PRELOAD_FAILED: _ClassVar[Cause]
    CAUSE_PAYLOAD_FAILED: _ClassVar[Cause]
    CAUSE_TASK_FAILED: _ClassVar[Cause]
    CAUSE_AGENT_LOST: _ClassVar[Cause]
    CAUSE_STOPPED: _ClassVar[Cause]
    CAUSE_GANG_INCOMPLETE: _ClassVar[Cause]
    CAUSE_UNREACHABLE: _ClassVar[Cause]
    CAUSE_STALLED: _ClassVar[Cause]
    CAUSE_GPU_LOST: _ClassVar[Cause]

class Proof(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PROOF_UNSPECIFIED: _ClassVar[Proof]
    PROOF_SWEEP: _ClassVar[Proof]
    PROOF_KERNEL: _ClassVar[Proof]

class RestartAction(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RESTART_ACTION_UNSPECIFIED: _ClassVar[RestartAction]
    RESTART_ACTION_FAIL: _ClassVar[RestartAction]
    RESTART_ACTION_RESTART: _ClassVar[RestartAction]
    RESTART_ACTION_RESTART_GANG: _ClassVar[RestartAction]
ROLE_UNSPECIFIED: Role
ROLE_CHIEF: Role
ROLE_WORKER: Role
ROLE_PS: Role
ROLE_EVALUATOR: Role
RUN_PHASE_UNSPECIFIED: RunPhase
RUN_PHASE_FORMING: RunPhase
RUN_PHASE_RUNNING: RunPhase
RUN_PHASE_STOPPING: RunPhase
RUN_PHASE_SUCCEEDED: RunPhase
RUN_PHASE_FAILED: RunPhase
RUN_PHASE_CANCELLED: RunPhase
RUN_PHASE_RESTARTING: RunPhase
MEMBER_PHASE_UNSPECIFIED: MemberPhase
MEMBER_PHASE_EXPECTED: MemberPhase
MEMBER_PHASE_RESERVED: MemberPhase
MEMBER_PHASE_READY: MemberPhase
MEMBER_PHASE_STARTING: MemberPhase
MEMBER_PHASE_RUNNING: MemberPhase
MEMBER_PHASE_EXITED: MemberPhase
MEMBER_PHASE_LOST: MemberPhase
MEMBER_PHASE_FENCED: MemberPhase
MEMBER_PHASE_STOPPED: MemberPhase
CAUSE_UNSPECIFIED: Cause
CAUSE_COMPLETED: Cause
CAUSE_USER_EXCEPTION: Cause
CAUSE_EXIT_CODE: Cause
CAUSE_KILLED_BY_SIGNAL: Cause
CAUSE_OUT_OF_MEMORY: Cause
CAUSE_LOST_CONTACT: Cause
CAUSE_PREEMPTED: Cause
CAUSE_PEER_LOST: Cause
CAUSE_PRELOAD_FAILED: Cause
CAUSE_PAYLOAD_FAILED: Cause
CAUSE_TASK_FAILED: Cause
CAUSE_AGENT_LOST: Cause
CAUSE_STOPPED: Cause
CAUSE_GANG_INCOMPLETE: Cause
CAUSE_UNREACHABLE: Cause
CAUSE_STALLED: Cause
CAUSE_GPU_LOST: Cause
PROOF_UNSPECIFIED: Proof
PROOF_SWEEP: Proof
PROOF_KERNEL: Proof
RESTART_ACTION_UNSPECIFIED: RestartAction
RESTART_ACTION_FAIL: RestartAction
RESTART_ACTION_RESTART: RestartAction
RESTART_ACTION_RESTART_GANG: RestartAction

class MemberId(_message.Message):
    __slots__ = ("role", "index")
    ROLE_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    role: Role
    index: int
    def __init__(self, role: _Optional[_Union[Role, str]] = ..., index: _Optional[int] = ...) -> None: ...

class RoleCounts(_message.Message):
    __slots__ = ("chief", "worker", "ps", "evaluator")
    CHIEF_FIELD_NUMBER: _ClassVar[int]
    WORKER_FIELD_NUMBER: _ClassVar[int]
    PS_FIELD_NUMBER: _ClassVar[int]
    EVALUATOR_FIELD_NUMBER: _ClassVar[int]
    chief: int
    worker: int
    ps: int
    evaluator: int
    def __init__(self, chief: _Optional[int] = ..., worker: _Optional[int] = ..., ps: _Optional[int] = ..., evaluator: _Optional[int] = ...) -> None: ...

class Endpoint(_message.Message):
    __slots__ = ("host", "port", "feed_port")
    HOST_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    FEED_PORT_FIELD_NUMBER: _ClassVar[int]
    host: str
    port: int
    feed_port: int
    def __init__(self, host: _Optional[str] = ..., port: _Optional[int] = ..., feed_port: _Optional[int] = ...) -> None: ...

class ExecutorInfo(_message.Message):
    __slots__ = ("executor_id", "hostname", "boot_id", "pid", "python_version", "tflease_version", "directory", "leftovers")
    EXECUTOR_ID_FIELD_NUMBER: _ClassVar[int]
    HOSTNAME_FIELD_NUMBER: _ClassVar[int]
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    PYTHON_VERSION_FIELD_NUMBER: _ClassVar[int]
    TFLEASE_VERSION_FIELD_NUMBER: _ClassVar[int]
    DIRECTORY_FIELD_NUMBER: _ClassVar[int]
    LEFTOVERS_FIELD_NUMBER: _ClassVar[int]
    executor_id: str
    hostname: str
    boot_id: str
    pid: int
    python_version: str
    tflease_version: str
    directory: str
    leftovers: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, executor_id: _Optional[str] = ..., hostname: _Optional[str] = ..., boot_id: _Optional[str] = ..., pid: _Optional[int] = ..., python_version: _Optional[str] = ..., tflease_version: _Optional[str] = ..., directory: _Optional[str] = ..., leftovers: _Optional[_Iterable[str]] = ...) -> None: ...

class RunSpec(_message.Message):
    __slots__ = ("name", "roles", "reservation_timeout", "liveness_ttl", "fence_timeout", "beat_interval", "grace", "completion", "python_version", "tflease_version", "owner_timeout", "gpus", "restart", "stall")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ROLES_FIELD_NUMBER: _ClassVar[int]
    RESERVATION_TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    LIVENESS_TTL_FIELD_NUMBER: _ClassVar[int]
    FENCE_TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    BEAT_INTERVAL_FIELD_NUMBER: _ClassVar[int]
    GRACE_FIELD_NUMBER: _ClassVar[int]
    COMPLETION_FIELD_NUMBER: _ClassVar[int]
    PYTHON_VERSION_FIELD_NUMBER: _ClassVar[int]
    TFLEASE_VERSION_FIELD_NUMBER: _ClassVar[int]
    OWNER_TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    GPUS_FIELD_NUMBER: _ClassVar[int]
    RESTART_FIELD_NUMBER: _ClassVar[int]
    STALL_FIELD_NUMBER: _ClassVar[int]
    name: str
    roles: RoleCounts
    reservation_timeout: _duration_pb2.Duration
    liveness_ttl: _duration_pb2.Duration
    fence_timeout: _duration_pb2.Duration
    beat_interval: _duration_pb2.Duration
    grace: _containers.RepeatedCompositeFieldContainer[RoleGrace]
    completion: _containers.RepeatedScalarFieldContainer[Role]
    python_version: str
    tflease_version: str
    owner_timeout: _duration_pb2.Duration
    gpus: RoleCounts
    restart: RestartPolicy
    stall: _stall_pb2.StallTimeouts
    def __init__(self, name: _Optional[str] = ..., roles: _Optional[_Union[RoleCounts, _Mapping]] = ..., reservation_timeout: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., liveness_ttl: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., fence_timeout: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., beat_interval: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., grace: _Optional[_Iterable[_Union[RoleGrace, _Mapping]]] = ..., completion: _Optional[_Iterable[_Union[Role, str]]] = ..., python_version: _Optional[str] = ..., tflease_version: _Optional[str] = ..., owner_timeout: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., gpus: _Optional[_Union[RoleCounts, _Mapping]] = ..., restart: _Optional[_Union[RestartPolicy, _Mapping]] = ..., stall: _Optional[_Union[_stall_pb2.StallTimeouts, _Mapping]] = ...) -> None: ...

class RestartPolicy(_message.Message):
    __slots__ = ("max_restarts", "on", "backoff", "max_backoff", "counts_all", "alone")
    MAX_RESTARTS_FIELD_NUMBER: _ClassVar[int]
    ON_FIELD_NUMBER: _ClassVar[int]
    BACKOFF_FIELD_NUMBER: _ClassVar[int]
    MAX_BACKOFF_FIELD_NUMBER: _ClassVar[int]
    COUNTS_ALL_FIELD_NUMBER: _ClassVar[int]
    ALONE_FIELD_NUMBER: _ClassVar[int]
    max_restarts: int
    on: _containers.RepeatedCompositeFieldContainer[CauseAction]
    backoff: _duration_pb2.Duration
    max_backoff: _duration_pb2.Duration
    counts_all: bool
    alone: bool
    def __init__(self, max_restarts: _Optional[int] = ..., on: _Optional[_Iterable[_Union[CauseAction, _Mapping]]] = ..., backoff: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., max_backoff: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., counts_all: bool = ..., alone: bool = ...) -> None: ...

class CauseAction(_message.Message):
    __slots__ = ("cause", "action")
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    cause: Cause
    action: RestartAction
    def __init__(self, cause: _Optional[_Union[Cause, str]] = ..., action: _Optional[_Union[RestartAction, str]] = ...) -> None: ...

class Restart(_message.Message):
    __slots__ = ("decide_time", "generation", "cause", "summary", "member", "hostname", "step", "alone")
    DECIDE_TIME_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    SUMMARY_FIELD_NUMBER: _ClassVar[int]
    MEMBER_FIELD_NUMBER: _ClassVar[int]
    HOSTNAME_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    ALONE_FIELD_NUMBER: _ClassVar[int]
    decide_time: _timestamp_pb2.Timestamp
    generation: int
    cause: Cause
    summary: str
    member: MemberId
    hostname: str
    step: int
    alone: bool
    def __init__(self, decide_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., generation: _Optional[int] = ..., cause: _Optional[_Union[Cause, str]] = ..., summary: _Optional[str] = ..., member: _Optional[_Union[MemberId, _Mapping]] = ..., hostname: _Optional[str] = ..., step: _Optional[int] = ..., alone: bool = ...) -> None: ...

class RoleGrace(_message.Message):
    __slots__ = ("role", "grace")
    ROLE_FIELD_NUMBER: _ClassVar[int]
    GRACE_FIELD_NUMBER: _ClassVar[int]
    role: Role
    grace: _duration_pb2.Duration
    def __init__(self, role: _Optional[_Union[Role, str]] = ..., grace: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class ExitReport(_message.Message):
    __slots__ = ("exit_code", "signal", "killed_by_us", "reason", "cause", "exception_type", "message", "traceback", "log_tail", "proof", "survivors", "max_rss_bytes", "stop_duration", "gpus")
    EXIT_CODE_FIELD_NUMBER: _ClassVar[int]
    SIGNAL_FIELD_NUMBER: _ClassVar[int]
    KILLED_BY_US_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    EXCEPTION_TYPE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    TRACEBACK_FIELD_NUMBER: _ClassVar[int]
    LOG_TAIL_FIELD_NUMBER: _ClassVar[int]
    PROOF_FIELD_NUMBER: _ClassVar[int]
    SURVIVORS_FIELD_NUMBER: _ClassVar[int]
    MAX_RSS_BYTES_FIELD_NUMBER: _ClassVar[int]
    STOP_DURATION_FIELD_NUMBER: _ClassVar[int]
    GPUS_FIELD_NUMBER: _ClassVar[int]
    exit_code: int
    signal: int
    killed_by_us: bool
    reason: str
    cause: Cause
    exception_type: str
    message: str
    traceback: str
    log_tail: str
    proof: Proof
    survivors: _containers.RepeatedScalarFieldContainer[str]
    max_rss_bytes: int
    stop_duration: _duration_pb2.Duration
    gpus: _containers.RepeatedCompositeFieldContainer[_gpu_pb2.GpuSight]
    def __init__(self, exit_code: _Optional[int] = ..., signal: _Optional[int] = ..., killed_by_us: bool = ..., reason: _Optional[str] = ..., cause: _Optional[_Union[Cause, str]] = ..., exception_type: _Optional[str] = ..., message: _Optional[str] = ..., traceback: _Optional[str] = ..., log_tail: _Optional[str] = ..., proof: _Optional[_Union[Proof, str]] = ..., survivors: _Optional[_Iterable[str]] = ..., max_rss_bytes: _Optional[int] = ..., stop_duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., gpus: _Optional[_Iterable[_Union[_gpu_pb2.GpuSight, _Mapping]]] = ...) -> None: ...

class Member(_message.Message):
    __slots__ = ("id", "phase", "incarnation", "executor", "endpoint", "exit", "step", "metrics", "phase_time", "scheduling", "gpus", "gpu_obstacles", "section")
    class MetricsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    ID_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    EXECUTOR_FIELD_NUMBER: _ClassVar[int]
    ENDPOINT_FIELD_NUMBER: _ClassVar[int]
    EXIT_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    PHASE_TIME_FIELD_NUMBER: _ClassVar[int]
    SCHEDULING_FIELD_NUMBER: _ClassVar[int]
    GPUS_FIELD_NUMBER: _ClassVar[int]
    GPU_OBSTACLES_FIELD_NUMBER: _ClassVar[int]
    SECTION_FIELD_NUMBER: _ClassVar[int]
    id: MemberId
    phase: MemberPhase
    incarnation: str
    executor: ExecutorInfo
    endpoint: Endpoint
    exit: ExitReport
    step: int
    metrics: _containers.ScalarMap[str, float]
    phase_time: _timestamp_pb2.Timestamp
    scheduling: str
    gpus: _containers.RepeatedScalarFieldContainer[str]
    gpu_obstacles: _containers.RepeatedScalarFieldContainer[str]
    section: _stall_pb2.Section
    def __init__(self, id: _Optional[_Union[MemberId, _Mapping]] = ..., phase: _Optional[_Union[MemberPhase, str]] = ..., incarnation: _Optional[str] = ..., executor: _Optional[_Union[ExecutorInfo, _Mapping]] = ..., endpoint: _Optional[_Union[Endpoint, _Mapping]] = ..., exit: _Optional[_Union[ExitReport, _Mapping]] = ..., step: _Optional[int] = ..., metrics: _Optional[_Mapping[str, float]] = ..., phase_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., scheduling: _Optional[str] = ..., gpus: _Optional[_Iterable[str]] = ..., gpu_obstacles: _Optional[_Iterable[str]] = ..., section: _Optional[_Union[_stall_pb2.Section, str]] = ...) -> None: ...

class Failure(_message.Message):
    __slots__ = ("cause", "member", "summary", "exit", "others")
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    MEMBER_FIELD_NUMBER: _ClassVar[int]
    SUMMARY_FIELD_NUMBER: _ClassVar[int]
    EXIT_FIELD_NUMBER: _ClassVar[int]
    OTHERS_FIELD_NUMBER: _ClassVar[int]
    cause: Cause
    member: MemberId
    summary: str
    exit: ExitReport
    others: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, cause: _Optional[_Union[Cause, str]] = ..., member: _Optional[_Union[MemberId, _Mapping]] = ..., summary: _Optional[str] = ..., exit: _Optional[_Union[ExitReport, _Mapping]] = ..., others: _Optional[_Iterable[str]] = ...) -> None: ...

class Run(_message.Message):
    __slots__ = ("run_id", "spec", "phase", "generation", "members", "failure", "stop_reason", "diagnosis", "revision", "create_time", "settled", "restarts", "restart_count", "restart_time")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    STOP_REASON_FIELD_NUMBER: _ClassVar[int]
    DIAGNOSIS_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    SETTLED_FIELD_NUMBER: _ClassVar[int]
    RESTARTS_FIELD_NUMBER: _ClassVar[int]
    RESTART_COUNT_FIELD_NUMBER: _ClassVar[int]
    RESTART_TIME_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    spec: RunSpec
    phase: RunPhase
    generation: int
    members: _containers.RepeatedCompositeFieldContainer[Member]
    failure: Failure
    stop_reason: str
    diagnosis: _containers.RepeatedScalarFieldContainer[str]
    revision: int
    create_time: _timestamp_pb2.Timestamp
    settled: bool
    restarts: _containers.RepeatedCompositeFieldContainer[Restart]
    restart_count: int
    restart_time: _timestamp_pb2.Timestamp
    def __init__(self, run_id: _Optional[str] = ..., spec: _Optional[_Union[RunSpec, _Mapping]] = ..., phase: _Optional[_Union[RunPhase, str]] = ..., generation: _Optional[int] = ..., members: _Optional[_Iterable[_Union[Member, _Mapping]]] = ..., failure: _Optional[_Union[Failure, _Mapping]] = ..., stop_reason: _Optional[str] = ..., diagnosis: _Optional[_Iterable[str]] = ..., revision: _Optional[int] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., settled: bool = ..., restarts: _Optional[_Iterable[_Union[Restart, _Mapping]]] = ..., restart_count: _Optional[int] = ..., restart_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...
