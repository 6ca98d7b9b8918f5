"""Domain <-> protobuf. Beside ``service`` and ``client`` the only module that knows both.

Enum values are mapped by name; a value that this version does not know becomes the least
specific one that makes sense, as the contract demands of receivers.
"""

from __future__ import annotations

import enum
import zlib
from typing import Literal, TypeVar

from coordinator import gpu_wire, restart_wire
from coordinator.core import log_values, model
from coordinator.core.errors import InvalidReservation, InvalidRun
from coordinator.gpu_wire import clean, duration, seconds, timestamp, unix
from coordinator.v1 import log_service_pb2 as log_pb
from coordinator.v1 import model_pb2 as pb
from coordinator.v1 import reservation_service_pb2 as reservation_pb

E = TypeVar("E", bound=enum.Enum)

RunMessage = pb.Run
MemberMessage = pb.Member
"""Names for those who arrange what is made here."""

MAX_CLUSTER_SPEC_BYTES = 64 * 1024 * 1024
"""A compressed spec that unpacks to more is refused."""


def _known(kind: type[E], wrapper: object, number: int, prefix: str) -> E | None:
    """The member of ``kind`` whose name is that of the enum value, or None."""
    try:
        name = wrapper.Name(number)  # type: ignore[attr-defined]
    except ValueError:
        return None
    return kind.__members__.get(name.removeprefix(prefix))


def _name(member: enum.Enum, prefix: str) -> str:
    """Message constructors take an enum value by its name."""
    return prefix + member.name


# -- members ---------------------------------------------------------------------------------


def member_id_to_pb(member: model.MemberId) -> pb.MemberId:
    return pb.MemberId(role=_name(member.role, "ROLE_"), index=member.index)


def member_id_from_pb(message: pb.MemberId) -> model.MemberId:
    """Raises InvalidReservation for a role that is missing or unknown."""
    role = _known(model.Role, pb.Role, message.role, "ROLE_")
    if role is None:
        raise InvalidReservation(f"unknown role number {message.role}")
    return model.MemberId(role, message.index)


def executor_to_pb(info: model.ExecutorInfo) -> pb.ExecutorInfo:
    return pb.ExecutorInfo(
        executor_id=info.executor_id,
        hostname=info.hostname,
        boot_id=info.boot_id,
        pid=info.pid,
        python_version=info.python_version,
        tflease_version=info.tflease_version,
        directory=clean(info.directory),
        leftovers=map(clean, info.leftovers),
    )


def executor_from_pb(message: pb.ExecutorInfo) -> model.ExecutorInfo:
    return model.ExecutorInfo(
        hostname=message.hostname,
        boot_id=message.boot_id,
        pid=message.pid,
        executor_id=message.executor_id,
        python_version=message.python_version,
        tflease_version=message.tflease_version,
        directory=message.directory,
        leftovers=tuple(message.leftovers),
    )


def endpoint_to_pb(endpoint: model.Endpoint) -> pb.Endpoint:
    return pb.Endpoint(host=endpoint.host, port=endpoint.port, feed_port=endpoint.feed_port)


def endpoint_from_pb(message: pb.Endpoint) -> model.Endpoint:
    """Raises InvalidReservation when it cannot be an address."""
    if not message.host or not 0 < message.port < 65536:
        raise InvalidReservation(f"not an endpoint: {message.host!r}:{message.port}")
    if not 0 <= message.feed_port < 65536:
        raise InvalidReservation(f"not a port to be fed at: {message.feed_port}")
    return model.Endpoint(message.host, message.port, message.feed_port)


def exit_to_pb(report: model.ExitReport) -> pb.ExitReport:
    return pb.ExitReport(
        exit_code=report.exit_code,
        signal=report.signal,
        killed_by_us=report.killed_by_us,
        reason=clean(report.reason),
        cause=_name(report.cause, "CAUSE_"),
        exception_type=clean(report.exception_type),
        message=clean(report.message),
        traceback=clean(report.traceback),
        log_tail=clean(report.log_tail),
        proof=_proof_to_pb(report.proof),
        survivors=map(clean, report.survivors),
        max_rss_bytes=report.max_rss_bytes,
        stop_duration=duration(report.stop_seconds),
        gpus=map(gpu_wire.sight_to_pb, report.gpus),
    )


def _proof_to_pb(proof: model.Proof) -> str:
    if proof is model.Proof.NONE:
        return "PROOF_UNSPECIFIED"
    return _name(proof, "PROOF_")


def exit_from_pb(message: pb.ExitReport) -> model.ExitReport:
    """A cause that is unknown here counts as an exit code: a failure without a story."""
    return model.ExitReport(
        cause=_known(model.Cause, pb.Cause, message.cause, "CAUSE_") or model.Cause.EXIT_CODE,
        exit_code=message.exit_code if message.HasField("exit_code") else None,
        signal=message.signal if message.HasField("signal") else None,
        killed_by_us=message.killed_by_us,
        reason=message.reason,
        exception_type=message.exception_type,
        message=message.message,
        traceback=message.traceback,
        log_tail=message.log_tail,
        proof=_known(model.Proof, pb.Proof, message.proof, "PROOF_") or model.Proof.NONE,
        survivors=tuple(message.survivors),
        max_rss_bytes=message.max_rss_bytes,
        stop_seconds=seconds(message.stop_duration),
        gpus=gpu_wire.sights_from_pb(message.gpus),
    )


def member_to_pb(view: model.MemberView, wall_offset: float) -> pb.Member:
    """``wall_offset``: what to add to the machine's clock to have Unix time."""
    task = view.task
    scheduling = "running" if task.running else ""
    return pb.Member(
        id=member_id_to_pb(view.id),
        phase=_name(view.phase, "MEMBER_PHASE_"),
        incarnation=view.incarnation or "",
        executor=executor_to_pb(view.executor) if view.executor else None,
        endpoint=endpoint_to_pb(view.endpoint) if view.endpoint else None,
        exit=exit_to_pb(view.exit) if view.exit else None,
        step=view.step,
        metrics=view.metrics,
        phase_time=timestamp(view.phase_at + wall_offset),
        scheduling=f"failed: {task.message}" if task.failed else scheduling,
        gpus=view.gpus,
        gpu_obstacles=map(clean, view.gpu_obstacles),
        section=_name(view.section, "SECTION_"),
    )


def member_from_pb(message: pb.Member) -> model.MemberView:
    """Times in the view are Unix seconds."""
    phase = _known(model.MemberPhase, pb.MemberPhase, message.phase, "MEMBER_PHASE_")
    scheduling = message.scheduling
    return model.MemberView(
        id=member_id_from_pb(message.id),
        phase=phase or model.MemberPhase.EXPECTED,
        phase_at=unix(message.phase_time),
        incarnation=model.IncarnationId(message.incarnation) if message.incarnation else None,
        executor=executor_from_pb(message.executor) if message.HasField("executor") else None,
        endpoint=endpoint_from_pb(message.endpoint) if message.HasField("endpoint") else None,
        exit=exit_from_pb(message.exit) if message.HasField("exit") else None,
        task=model.TaskState(
            running=scheduling == "running",
            failed=scheduling.startswith("failed: "),
            message=scheduling.removeprefix("failed: ") if scheduling != "running" else "",
        ),
        step=message.step,
        metrics=dict(message.metrics),
        gpus=tuple(message.gpus),
        gpu_obstacles=tuple(message.gpu_obstacles),
        section=restart_wire.section_from_pb(message.section),
    )


# -- runs ------------------------------------------------------------------------------------


def spec_to_pb(spec: model.RunSpec) -> pb.RunSpec:
    return pb.RunSpec(
        name=spec.name,
        roles=_roles_to_pb(spec.roles),
        gpus=_roles_to_pb(spec.gpus),
        reservation_timeout=duration(spec.reservation_timeout),
        liveness_ttl=duration(spec.liveness_ttl),
        fence_timeout=duration(spec.fence_timeout),
        beat_interval=duration(spec.beat_interval),
        grace=[
            pb.RoleGrace(role=_role_to_pb(role), grace=duration(time))
            for role, time in spec.grace.items()
        ],
        completion=[_role_to_pb(role) for role in spec.completion],
        python_version=spec.python_version,
        tflease_version=spec.tflease_version,
        owner_timeout=None if spec.owner_timeout is None else duration(spec.owner_timeout),
        restart=restart_wire.policy_to_pb(spec.restart),
        stall=restart_wire.stall_to_pb(spec.stall),
    )


def _roles_to_pb(roles: model.Roles) -> pb.RoleCounts:
    return pb.RoleCounts(
        chief=roles.chief, worker=roles.worker, ps=roles.ps, evaluator=roles.evaluator
    )


def _roles_from_pb(counts: pb.RoleCounts) -> model.Roles:
    return model.Roles(counts.chief, counts.worker, counts.ps, counts.evaluator)


def _role_to_pb(role: model.Role) -> str:
    return _name(role, "ROLE_")


def _role_from_pb(number: int) -> model.Role:
    role = _known(model.Role, pb.Role, number, "ROLE_")
    if role is None:
        raise InvalidRun(f"unknown role number {number}")
    return role


_SpecDuration = Literal["reservation_timeout", "liveness_ttl", "fence_timeout", "beat_interval"]


def spec_from_pb(message: pb.RunSpec) -> model.RunSpec:
    """Durations that are not set get the defaults. Raises InvalidRun."""
    defaults = model.RunSpec(model.Roles(worker=1))

    def or_default(name: _SpecDuration) -> float:
        value = getattr(message, name) if message.HasField(name) else None
        return float(getattr(defaults, name)) if value is None else seconds(value)

    return model.RunSpec(
        roles=_roles_from_pb(message.roles),
        gpus=_roles_from_pb(message.gpus),
        name=message.name or defaults.name,
        reservation_timeout=or_default("reservation_timeout"),
        liveness_ttl=or_default("liveness_ttl"),
        fence_timeout=or_default("fence_timeout"),
        beat_interval=or_default("beat_interval"),
        grace={
            **model.DEFAULT_GRACE,
            **{_role_from_pb(item.role): seconds(item.grace) for item in message.grace},
        },
        completion=frozenset(_role_from_pb(number) for number in message.completion),
        python_version=message.python_version,
        tflease_version=message.tflease_version,
        owner_timeout=seconds(message.owner_timeout) if message.HasField("owner_timeout") else None,
        restart=restart_wire.policy_from_pb(message.restart),
        stall=(
            restart_wire.stall_from_pb(message.stall)
            if message.HasField("stall")
            else defaults.stall
        ),
    )


def failure_to_pb(failure: model.Failure) -> pb.Failure:
    return pb.Failure(
        cause=_name(failure.cause, "CAUSE_"),
        member=member_id_to_pb(failure.member) if failure.member else None,
        summary=failure.summary,
        exit=exit_to_pb(failure.exit) if failure.exit else None,
        others=failure.others,
    )


def failure_from_pb(message: pb.Failure) -> model.Failure:
    return model.Failure(
        cause=_known(model.Cause, pb.Cause, message.cause, "CAUSE_") or model.Cause.EXIT_CODE,
        summary=message.summary,
        member=member_id_from_pb(message.member) if message.HasField("member") else None,
        exit=exit_from_pb(message.exit) if message.HasField("exit") else None,
        others=tuple(message.others),
    )


def run_to_pb(view: model.RunView, wall_offset: float) -> pb.Run:
    """``wall_offset``: what to add to the machine's clock to have Unix time."""
    return pb.Run(
        run_id=view.run_id,
        spec=spec_to_pb(view.spec),
        phase=_name(view.phase, "RUN_PHASE_"),
        generation=view.generation,
        members=[member_to_pb(member, wall_offset) for member in view.members],
        failure=failure_to_pb(view.failure) if view.failure else None,
        stop_reason=view.stop_reason,
        diagnosis=view.diagnosis,
        revision=view.revision,
        create_time=timestamp(view.created_at + wall_offset),
        settled=view.settled,
        restarts=[restart_wire.restart_to_pb(each, wall_offset) for each in view.restarts],
        restart_count=view.restart_count,
        restart_time=(
            None if view.restart_at is None else timestamp(view.restart_at + wall_offset)
        ),
    )


def run_from_pb(message: pb.Run) -> model.RunView:
    """Times in the view are Unix seconds."""
    phase = _known(model.RunPhase, pb.RunPhase, message.phase, "RUN_PHASE_")
    return model.RunView(
        run_id=model.RunId(message.run_id),
        spec=spec_from_pb(message.spec),
        phase=phase or model.RunPhase.STOPPING,
        generation=message.generation,
        members=tuple(member_from_pb(member) for member in message.members),
        created_at=unix(message.create_time),
        revision=message.revision,
        failure=failure_from_pb(message.failure) if message.HasField("failure") else None,
        stop_reason=message.stop_reason,
        settled=message.settled,
        diagnosis=tuple(message.diagnosis),
        restarts=tuple(map(restart_wire.restart_from_pb, message.restarts)),
        restart_count=message.restart_count,
        restart_at=unix(message.restart_time) if message.HasField("restart_time") else None,
    )


# -- logs ------------------------------------------------------------------------------------


def log_chunk_to_pb(chunk: log_values.LogChunk) -> log_pb.ReadLogResponse:
    return log_pb.ReadLogResponse(
        offset=chunk.offset, data=chunk.data, size=chunk.size, incarnation=chunk.incarnation
    )


def log_chunk_from_pb(message: log_pb.ReadLogResponse) -> log_values.LogChunk:
    offset = message.offset if message.HasField("offset") else None
    return log_values.LogChunk(offset, message.data, message.size, message.incarnation)


# -- cluster specs ---------------------------------------------------------------------------


def pack_cluster_spec(spec: model.ClusterSpec) -> bytes:
    """Serialized and compressed: done once for all members of a generation."""
    jobs = [
        reservation_pb.ClusterSpec.Job(role=_role_to_pb(model.Role(name)), addresses=addresses)
        for name, addresses in spec.items()
    ]
    return zlib.compress(reservation_pb.ClusterSpec(jobs=jobs).SerializeToString(), 1)


def unpack_cluster_spec(data: bytes) -> dict[str, tuple[str, ...]]:
    """The reverse. Raises ValueError when it is no cluster spec or too large."""
    unpacker = zlib.decompressobj()
    try:
        raw = unpacker.decompress(data, MAX_CLUSTER_SPEC_BYTES)
    except zlib.error as error:
        raise ValueError(f"not a compressed cluster spec: {error}") from None
    if unpacker.unconsumed_tail or not unpacker.eof:
        raise ValueError("the cluster spec is cut off or too large")
    message = reservation_pb.ClusterSpec.FromString(raw)
    return {_role_from_pb(job.role).value: tuple(job.addresses) for job in message.jobs}
