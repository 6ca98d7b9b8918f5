"""The gRPC services: protobuf in, events to the engine, protobuf out. No decisions here."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import Any

from coordinator import gpu_wire, restart_wire, wire
from coordinator.calls import PRINCIPAL, scoped
from coordinator.core import effects, events
from coordinator.core.access import Principal, Role
from coordinator.core.errors import CoordinatorUnavailable, InvalidReservation, InvalidRun
from coordinator.core.log_values import LogChunk, ReadLog
from coordinator.core.model import IncarnationId, RunId, Slots, TaskState
from coordinator.engine import Engine
from coordinator.limiting import Limiter
from coordinator.member_session import Command, MemberSession
from coordinator.run_pictures import RunPictures
from coordinator.security import Keyring, check_run
from coordinator.v1 import reservation_service_pb2 as reservation_pb
from coordinator.v1 import reservation_service_pb2_grpc as reservation_grpc
from coordinator.v1 import run_service_pb2 as run_pb
from coordinator.v1 import run_service_pb2_grpc as run_grpc

LAST_WORDS = 5.0
"""Seconds that a member has to read what is left to say when its session ends."""


class RunService(run_grpc.RunServiceServicer):
    """The owner's side."""

    def __init__(self, engine: Engine, keyring: Keyring) -> None:
        self._engine = engine
        self._keyring = keyring
        self._pictures = RunPictures(engine)

    async def CreateRun(
        self, request: run_pb.CreateRunRequest, context: Any
    ) -> run_pb.CreateRunResponse:
        if not request.HasField("spec"):
            raise InvalidRun("the request has no spec")
        run_id = self._engine.create_run(
            scoped(request.request_id), wire.spec_from_pb(request.spec)
        )
        return run_pb.CreateRunResponse(
            run=await self._pictures.of(run_id),
            owner_token=self._keyring.token_for(Principal(Role.OWNER, run_id)),
            agent_token=self._keyring.token_for(Principal(Role.AGENT, run_id)),
        )

    async def GetRun(self, request: run_pb.GetRunRequest, context: Any) -> run_pb.GetRunResponse:
        return run_pb.GetRunResponse(run=await self._pictures.of(RunId(request.run_id)))

    async def ListRuns(
        self, request: run_pb.ListRunsRequest, context: Any
    ) -> run_pb.ListRunsResponse:
        return run_pb.ListRunsResponse(runs=await self._pictures.listing())

    async def WatchRun(
        self, request: run_pb.WatchRunRequest, context: Any
    ) -> AsyncGenerator[run_pb.WatchRunResponse, None]:
        async with aclosing(self._engine.watch(RunId(request.run_id))) as views:
            async for view in views:
                yield run_pb.WatchRunResponse(run=await self._pictures.picture(view))

    async def OwnRun(
        self, request: run_pb.OwnRunRequest, context: Any
    ) -> AsyncGenerator[run_pb.OwnRunResponse, None]:
        run_id = RunId(request.run_id)
        self._engine.feed(events.OwnerCame(run_id))
        try:
            async with aclosing(self._engine.watch(run_id)) as views:
                async for view in views:
                    yield run_pb.OwnRunResponse(run=await self._pictures.picture(view))
        finally:
            self._engine.feed(events.OwnerLeft(run_id))

    async def StopRun(self, request: run_pb.StopRunRequest, context: Any) -> run_pb.StopRunResponse:
        grace = request.grace_seconds if request.HasField("grace_seconds") else None
        if grace is not None and (math.isnan(grace) or grace < 0):
            raise InvalidRun(f"grace_seconds={grace}: must be 0 or more")
        run_id = RunId(request.run_id)
        reason = request.reason or "somebody asked for it"
        self._engine.feed(events.StopRequested(run_id, reason, grace))
        return run_pb.StopRunResponse(run=await self._pictures.of(run_id))

    async def ReportScheduling(
        self, request: run_pb.ReportSchedulingRequest, context: Any
    ) -> run_pb.ReportSchedulingResponse:
        tasks = {
            wire.member_id_from_pb(task.member): TaskState(task.running, task.failed, task.message)
            for task in request.tasks
        }
        slots = Slots(request.total_slots, request.busy_slots)
        run_id, restarts = RunId(request.run_id), request.restart_count
        self._engine.feed(events.SchedulingReported(run_id, slots, tasks, restarts))
        return run_pb.ReportSchedulingResponse()

    async def ReportTaskEnd(
        self, request: run_pb.ReportTaskEndRequest, context: Any
    ) -> run_pb.ReportTaskEndResponse:
        self._engine.feed(
            events.TaskReturned(
                run_id=RunId(request.run_id),
                member=wire.member_id_from_pb(request.member),
                incarnation=IncarnationId(request.incarnation),
                report=wire.exit_from_pb(request.exit),
            )
        )
        return run_pb.ReportTaskEndResponse()


class ReservationService(reservation_grpc.ReservationServiceServicer):
    """The members' side."""

    def __init__(self, engine: Engine, limiter: Limiter) -> None:
        self._engine = engine
        self._limiter = limiter
        self._start: tuple[object, reservation_pb.AttendResponse] = (
            None,
            reservation_pb.AttendResponse(),
        )

    async def Reserve(
        self, request: reservation_pb.ReserveRequest, context: Any
    ) -> reservation_pb.ReserveResponse:
        if not request.incarnation:
            raise InvalidReservation("the request names no incarnation")
        run_id = RunId(request.run_id)
        done = self._engine.feed(
            events.ReservationRequested(
                run_id=run_id,
                member=wire.member_id_from_pb(request.member),
                incarnation=IncarnationId(request.incarnation),
                executor=wire.executor_from_pb(request.executor),
                endpoint=wire.endpoint_from_pb(request.endpoint),
                gpus=gpu_wire.offer_from_pb(request.gpus),
            )
        )
        spec = self._engine.spec(run_id)
        response = reservation_pb.ReserveResponse(
            beat_interval=gpu_wire.duration(spec.beat_interval),
            fence_timeout=gpu_wire.duration(spec.fence_timeout),
        )
        match done[0]:
            case effects.Granted():
                response.outcome = reservation_pb.ReserveResponse.OUTCOME_GRANTED
            case effects.StandBy(holder=holder, delay=delay):
                response.outcome = reservation_pb.ReserveResponse.OUTCOME_STAND_BY
                response.holder = holder
                response.retry_delay.CopyFrom(gpu_wire.duration(delay))
            case other:
                raise AssertionError(f"a reservation was answered by {other!r}")
        return response

    async def Attend(self, request_iterator: Any, context: Any) -> None:
        patience = self._limiter.limits.hello_timeout
        try:
            async with asyncio.timeout(patience):
                first = await context.read()
        except TimeoutError:
            # To be tried again: maybe it is we who did not run.
            raise CoordinatorUnavailable(
                f"a session must begin with a hello; none came within {patience:g} s"
            ) from None
        hello = getattr(first, "hello", None)
        if hello is None or not hello.incarnation:
            raise InvalidReservation("the first message of a session must be a hello")
        self._limiter.pace().check(first)
        check_run(PRINCIPAL.get(), hello.run_id)
        session = MemberSession(
            RunId(hello.run_id),
            wire.member_id_from_pb(hello.member),
            hello.incarnation,
            self._limiter.limits.commands,
        )
        key = (session.run_id, session.member, session.incarnation)
        self._engine.open_session(*key, session)
        session.acknowledge(first.sequence, None)  # a new session is no decision
        del first, hello  # a message is some KiB, and the session may last for weeks
        try:
            await self._serve(session, context)
        finally:
            self._engine.close_session(*key, session)

    async def _serve(self, session: MemberSession, context: Any) -> None:
        """Until the member leaves, another session takes over, or a message is refused; what was
        acknowledged last still goes out. Raises what a message was refused with, and LimitExceeded
        when the member does not read."""

        def write_beside() -> None:
            if session.is_idle:
                session.writer = asyncio.create_task(self._write_all(session, context))
                session.writer.add_done_callback(session.forget_writer)

        session.on_news = write_beside
        is_heard = True
        try:
            async with asyncio.timeout(None) as until:
                session.on_end = lambda: until.reschedule(0.0)  # now
                await self._read(session, context)
        except TimeoutError:
            if session.is_overfull:
                most = self._limiter.limits.commands
                raise self._limiter.exceeded("commands", most + 1, most) from None
        except asyncio.CancelledError:  # the call is gone, and gRPC takes no more words for it
            is_heard = False
            raise
        finally:
            session.on_news = session.on_end = lambda: None
            with suppress(TimeoutError):  # a member that does not read
                async with asyncio.timeout(0.0 if session.is_overfull else LAST_WORDS):
                    if session.writer is not None:
                        await asyncio.gather(session.writer, return_exceptions=True)
                    if is_heard:
                        await self._write_all(session, context)

    async def _read(self, session: MemberSession, context: Any) -> None:
        """The one task of a session, as long as all goes well: there may be ten thousand."""
        session.on_news()
        pace = self._limiter.pace()
        while isinstance(message := await context.read(), reservation_pb.AttendRequest):
            pace.check(message)
            if message.HasField("log_chunk"):  # no report: it has no number to acknowledge
                self._take_log(message.log_chunk)
            else:
                self._take_report(message, session)
                await self._write(session, context)
                if session.has_something:
                    session.on_news()  # when the disk has it
            await pace.after(message)  # whoever sends too fast is not read, and nobody else waits
            del message  # see above

    def _take_report(self, message: reservation_pb.AttendRequest, session: MemberSession) -> None:
        came_at = time.perf_counter()
        event = _event_from(message, session)
        if event is not None:
            self._engine.feed(event)
        is_beat = isinstance(event, events.Heard)
        # Progress is no decision either, and the next one says it again: a full disk must not fence
        # whoever reports it.
        is_light = isinstance(event, events.Heard | events.ProgressMade)
        session.acknowledge(message.sequence, None if is_light else self._engine.mark)
        if is_beat and not session.beat_at:
            session.beat_at = came_at

    def _take_log(self, message: reservation_pb.LogChunk) -> None:
        if message.error:
            self._engine.logs.refused(message.request_id, message.error)
            return
        chunk = LogChunk(message.offset, message.data, message.size)
        self._engine.logs.answered(message.request_id, chunk)

    async def _write(self, session: MemberSession, context: Any) -> None:
        """All that may be said now. Whoever is at it already takes along what has come since."""
        if session.is_writing:
            return
        session.is_writing = True
        is_durable = self._engine.is_durable
        try:
            while session.has_something:
                commands = session.take_commands(self._engine.mark, is_durable)
                for command in commands:
                    await context.write(self._command(command))
                sequence, beat_at = session.take_acknowledgement(is_durable)
                if sequence is not None:
                    acknowledgement = reservation_pb.Acknowledgement(sequence=sequence)
                    answer = reservation_pb.AttendResponse(acknowledgement=acknowledgement)
                    await context.write(answer)
                    if beat_at:
                        self._engine.tallies.beat_answers.since(beat_at)
                elif not commands:
                    return  # the rest waits for the disk
        finally:
            session.is_writing = False

    async def _write_all(self, session: MemberSession, context: Any) -> None:
        """Also what waits for the disk."""
        await self._write(session, context)
        while session.has_something and not session.is_writing:
            await self._engine.durable(session.waits_for(self._engine.mark))
            await self._write(session, context)

    def _command(self, command: Command) -> reservation_pb.AttendResponse:
        if isinstance(command, ReadLog):
            question = reservation_pb.ReadLogCommand(
                request_id=command.request_id, offset=command.offset, max_bytes=command.max_bytes
            )
            return reservation_pb.AttendResponse(read_log=question)
        if isinstance(command, effects.SendStart):
            if self._start[0] is not command.spec:  # the same for all members of a generation
                start = reservation_pb.StartCommand(
                    generation=command.generation,
                    cluster_spec_zlib=wire.pack_cluster_spec(command.spec),
                )
                self._start = (command.spec, reservation_pb.AttendResponse(start=start))
            return self._start[1]
        if isinstance(command, effects.InspectGpus):
            inspect = reservation_pb.InspectGpusCommand(
                number=command.number, coordinator_id=command.coordinator_id, uuids=command.uuids
            )
            return reservation_pb.AttendResponse(inspect_gpus=inspect)
        if isinstance(command, effects.ClaimGpus):
            claim = reservation_pb.ClaimGpusCommand(
                number=command.number, grants=gpu_wire.grants_to_pb(command.grants)
            )
            return reservation_pb.AttendResponse(claim_gpus=claim)
        if isinstance(command, effects.DumpStack):
            return reservation_pb.AttendResponse(dump_stack=reservation_pb.DumpStackCommand())
        stop = reservation_pb.StopCommand(
            generation=command.generation,
            reason=command.reason,
            grace=gpu_wire.duration(command.grace),
            again=command.again,
        )
        return reservation_pb.AttendResponse(stop=stop)


def _event_from(
    message: reservation_pb.AttendRequest, session: MemberSession
) -> events.MemberEvent | None:
    """The event of one message; None for a goodbye and for what this version does not know."""
    who = (session.run_id, session.member, session.incarnation)
    match message.WhichOneof("message"):
        case "heartbeat":
            tokens = map(gpu_wire.token_from_pb, message.heartbeat.leases)
            return events.Heard(*who, leases=tuple(tokens))
        case "gpus_inspected":
            seen = message.gpus_inspected
            sights = gpu_wire.sights_from_pb(seen.gpus)
            return events.GpusInspected(*who, number=seen.number, sights=sights)
        case "gpus_claimed":
            told = message.gpus_claimed
            refused = gpu_wire.sights_from_pb(told.refused)
            return events.GpusClaimed(*who, number=told.number, refused=refused)
        case "process_ready":
            return events.ProcessReady(*who)
        case "main_entered":
            return events.MainEntered(*who, generation=message.main_entered.generation)
        case "stack_dumped":
            return events.StackDumped(*who, text=message.stack_dumped.text)
        case "progress":
            progress = message.progress
            return events.ProgressMade(
                *who,
                generation=progress.generation,
                step=progress.step,
                metrics=dict(progress.metrics),
                section=restart_wire.section_from_pb(progress.section),
            )
        case "process_exited":
            ended = message.process_exited
            return events.ProcessEnded(
                *who, generation=ended.generation, report=wire.exit_from_pb(ended.exit)
            )
        case _:
            return None
