"""A coordinator in a thread of its own, a gang that must not notice anything, and a run to play
with."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import grpc
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from hypothesis import strategies as st

from coordinator.core.gpu import GpuSight
from coordinator.core.model import MemberPhase, Roles, RunId, RunSpec
from coordinator.engine import Engine
from coordinator.limits import Limits
from coordinator.security import call_metadata
from coordinator.server import Server
from coordinator.testing import FakeExecutor, FakeGang
from tests.integration.grpc import raw

T = TypeVar("T")

TOKEN = "secret"
VICTIM = "VICTIM-VICTIM"[:12]
"""Stands for the id of the run to play with, which is as long."""
INCARNATION = "incarnation-0"
PATIENCE = 20.0
SHORT = 0.2
"""Seconds for calls that wait for something when they are asked to."""
LIMITS = Limits(runs=300, runs_per_minute=1_000_000)
WITNESSES = Roles(chief=1, worker=2)

_KNOWN: dict[str, st.SearchStrategy[Any]] = {
    "run_id": st.just(VICTIM),
    "incarnation": st.just(INCARNATION),
    "role": st.sampled_from([1, 2, 3]),
    "index": st.sampled_from([0, 1]),
    "generation": st.sampled_from([0, 1, 2]),
    "request_id": st.sampled_from(["first", "second"]),
    "who": st.just("who"),
    "uuid": st.sampled_from(["GPU-1", "GPU-2"]),
    "uuids": st.sampled_from(["GPU-1", "GPU-2"]),
    "count": st.sampled_from([1, 2]),
    "reason": st.just("because"),
    "hostname": st.just("host"),
    "boot_id": st.just("boot"),
    "host": st.just("127.0.0.1"),
    "port": st.sampled_from([1, 65_535]),
    "worker": st.sampled_from([1, 3]),
}

FORBIDDEN = (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN)


def known(field: FieldDescriptor) -> st.SearchStrategy[Any] | None:
    """Values that lead further than nonsense does."""
    return _KNOWN.get(field.name)


class Scene:
    """What the fuzzers attack. Use from the test's thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="coordinator")
        self._log = _Log()

    def start(self) -> None:
        self._thread.start()
        self._wait_for(self._start())
        options = (*raw.NO_PROXY, ("grpc.max_receive_message_length", 64 * 2**20))
        self._channel = grpc.insecure_channel(self.address, options=options)
        for name in ("tflease", "grpc"):
            logging.getLogger(name).addHandler(self._log)

    def stop(self) -> None:
        for name in ("tflease", "grpc"):
            logging.getLogger(name).removeHandler(self._log)
        self._channel.close()
        self._wait_for(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _wait_for(self, what: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(what, self._loop).result(PATIENCE)

    async def _start(self) -> None:
        self.engine = Engine()
        self._server = Server(self.engine, TOKEN, limits=LIMITS)
        self.address = f"127.0.0.1:{await self._server.start()}"
        sights = [GpuSight(uuid, is_free=True) for uuid in ("GPU-1", "GPU-2")]
        self.engine.gpus.use(lambda book, now: book.see("host", "boot", sights, now))
        self.witness_id = self.engine.create_run("", RunSpec(WITNESSES, beat_interval=0.5))
        self.witnesses = FakeGang(self.address, TOKEN, self.witness_id, WITNESSES)
        await self.witnesses.form()
        await self.witnesses.enter()
        await self._make_victim()

    async def _make_victim(self) -> None:
        spec = RunSpec(Roles(worker=2), liveness_ttl=900, fence_timeout=1_000)
        self.victim_id: RunId = self.engine.create_run("", spec)
        victim = FakeExecutor(
            self.address, TOKEN, self.victim_id, "worker:0", incarnation=INCARNATION
        )
        await victim.reserve()
        await victim.close()

    async def _stop(self) -> None:
        await self.witnesses.close()
        await self._server.stop(grace=0.0)

    # -- attacks ---------------------------------------------------------------------------

    def aimed(self, body: bytes) -> bytes:
        """At the run to play with, as it is now."""
        return body.replace(VICTIM.encode(), self.victim_id.encode())

    def call(self, method: MethodDescriptor, bodies: list[bytes]) -> grpc.StatusCode:
        """Calls a method and returns how that ended; a stream is left after its first answer. Only
        one that takes a stream is given more than one body."""
        path, metadata = raw.path_of(method), call_metadata(TOKEN)
        sent = [self.aimed(body) for body in bodies]
        try:
            if method.client_streaming:
                stream = self._channel.stream_stream(path)(
                    iter(sent), metadata=metadata, timeout=PATIENCE
                )
                for _ in stream:
                    pass
            elif method.server_streaming:
                answers = self._channel.unary_stream(path)(
                    sent[0], metadata=metadata, timeout=SHORT
                )
                next(answers, None)
                answers.cancel()
            else:
                patience = SHORT if method.name == "AcquireGpus" else PATIENCE
                self._channel.unary_unary(path)(sent[0], metadata=metadata, timeout=patience)
        except grpc.RpcError as error:
            if error.details() == raw.STATUS_LOST:  # the client's own, not the server's
                return grpc.StatusCode.OK
            self.told = f"{error.code()}: {error.details()}"
            return error.code()
        return grpc.StatusCode.OK

    def speak(self, data: bytes) -> None:
        """All of a connection."""
        host, _, port = self.address.rpartition(":")
        connection = socket.create_connection((host, int(port)), timeout=PATIENCE)
        with connection, suppress(OSError):
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            connection.settimeout(0.02)  # what it answers is of no interest
            connection.recv(65_536)

    # -- what must be true after each ------------------------------------------------------

    def check(self) -> None:
        """Nothing was logged, others are answered, and the machine is sound."""
        logged = [self._log.format(record) for record in self._log.records]
        self._log.records.clear()
        assert not logged, logged[0]
        self._wait_for(self._check())

    async def _check(self) -> None:
        await self.witnesses["worker:0"].beat()
        self.engine.check_invariants()
        view = self.engine.view(self.witness_id)
        assert {member.phase for member in view.members} == {MemberPhase.RUNNING}
        known = {run.run_id: run for run in self.engine.views()}
        victim = known.get(self.victim_id)
        if victim is None or victim.settled or victim.phase.is_terminal:
            await self._make_victim()


class _Log(logging.Handler):
    """Keeps what no caller may cause: warnings about a pause are the machine's own."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.setFormatter(logging.Formatter())
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@contextmanager
def scene() -> Iterator[Scene]:
    made = Scene()
    made.start()
    try:
        yield made
    finally:
        made.stop()
