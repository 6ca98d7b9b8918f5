"""Those who say that they are alive: a member of ours, the holder of a lease of etcd's, and a node
that polls a reservation server as those of TensorFlowOnSpark do.

Each on a connection of its own, without a thread; whoever owns them polls the connections.
"""

from __future__ import annotations

import os
import socket
from abc import ABC, abstractmethod
from collections import deque
from typing import Any

from benchmarks import etcd, pickle_server
from benchmarks.grpc_by_hand import Connection, ConnectionLost, Ended, Message
from coordinator.core.model import MemberId
from coordinator.security import call_metadata
from coordinator.v1 import reservation_service_pb2 as pb
from coordinator.wire import member_id_to_pb

_RESERVE = "/coordinator.v1.ReservationService/Reserve"
_ATTEND = "/coordinator.v1.ReservationService/Attend"


class Peer(ABC):
    """``is_beating``: it may be told to beat. ``is_settled``: its start is over. ``is_over``: it
    was told to stop, because somebody is lost."""

    def __init__(self) -> None:
        self.is_beating = False
        self.is_settled = False
        self.is_over = False
        self._sent: deque[tuple[int, float]] = deque()
        self._number = 0

    @abstractmethod
    def begin(self) -> None:
        """Connects and says who it is. Raises OSError."""

    @abstractmethod
    def fileno(self) -> int:
        """What to poll."""

    @abstractmethod
    def receive(self, now: float) -> list[float]:
        """How long each beat took that was acknowledged now. Raises OSError: it is cut off."""

    @abstractmethod
    def _say(self, number: int) -> None: ...

    @abstractmethod
    def close(self) -> None:
        """Without a goodbye."""

    def beat(self, now: float) -> None:
        """Raises OSError."""
        self._number += 1
        self._sent.append((self._number, now))
        self._say(self._number)

    @property
    def unanswered(self) -> int:
        """Beats that are not acknowledged yet."""
        return len(self._sent)

    def _acknowledged(self, number: int, now: float) -> list[float]:
        took = []
        while self._sent and self._sent[0][0] <= number:
            took.append(now - self._sent.popleft()[1])
        return took

    def _first_acknowledged(self, now: float) -> list[float]:
        return [now - self._sent.popleft()[1]] if self._sent else []


class Member(Peer):
    """Of a run of ours: reserves, attends, is ready and enters, and beats all the while."""

    def __init__(self, where: Any, run_id: str, member: str) -> None:
        super().__init__()
        self._where = where
        self._run_id = run_id
        self._member = MemberId.parse(member)
        self._incarnation = f"{member}/{os.urandom(4).hex()}"
        self._connection: Connection | None = None
        self._attending = 0

    def begin(self) -> None:
        host, port, token, *tls = self._where
        self._connection = Connection(host, port, call_metadata(token), *tls)
        slot = member_id_to_pb(self._member)
        request = pb.ReserveRequest(run_id=self._run_id, member=slot, incarnation=self._incarnation)
        request.executor.hostname = request.executor.boot_id = "host"
        request.executor.pid = os.getpid()
        request.endpoint.host, request.endpoint.port = "127.0.0.1", 10_000 + self._member.index
        self._connection.ask(_RESERVE, request.SerializeToString())

    def _attend(self) -> None:
        assert self._connection is not None
        self._attending = self._connection.call(_ATTEND)
        slot = member_id_to_pb(self._member)
        hello = pb.AgentHello(run_id=self._run_id, member=slot, incarnation=self._incarnation)
        self._tell(pb.AttendRequest(sequence=0, hello=hello))
        self._number += 1
        ready = pb.ProcessReady()
        self._tell(pb.AttendRequest(sequence=self._number, process_ready=ready))
        self.is_beating = True

    def _tell(self, message: pb.AttendRequest) -> None:
        assert self._connection is not None
        self._connection.send(self._attending, message.SerializeToString())

    def _say(self, number: int) -> None:
        self._tell(pb.AttendRequest(sequence=number, heartbeat=pb.Heartbeat()))

    def receive(self, now: float) -> list[float]:
        assert self._connection is not None
        took: list[float] = []
        for news in self._connection.receive():
            match news:
                case _ if self.is_over:
                    break
                case Ended() if not self.is_beating or news.stream == self._attending:
                    raise ConnectionLost("the coordinator has ended the session")
                case Message(data=data) if news.stream == self._attending:
                    took += self._take(pb.AttendResponse.FromString(data), now)
                case Message(data=data):
                    outcome = pb.ReserveResponse.FromString(data).outcome
                    if outcome != pb.ReserveResponse.OUTCOME_GRANTED:
                        raise ConnectionLost("the slot was not granted")
                    self._attend()
        return took

    def _take(self, response: pb.AttendResponse, now: float) -> list[float]:
        match response.WhichOneof("message"):
            case "acknowledgement":
                return self._acknowledged(response.acknowledgement.sequence, now)
            case "start":
                self._number += 1
                entered = pb.MainEntered(generation=response.start.generation)
                self._tell(pb.AttendRequest(sequence=self._number, main_entered=entered))
                self.is_settled = True
            case "stop":
                self.is_over, self.is_beating, self.is_settled = True, False, True
                self._sent.clear()
        return []

    def fileno(self) -> int:
        assert self._connection is not None
        return self._connection.fileno()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()


class EtcdHolder(Peer):
    """Has a lease of etcd's and keeps it alive, on a stream of its own."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__()
        self._where = (host, port)
        self._connection: Connection | None = None
        self._lease = 0
        self._stream = 0

    def begin(self) -> None:
        self._connection = Connection(*self._where)
        self._connection.ask(etcd.GRANT, etcd.GrantRequest(TTL=etcd.TTL).SerializeToString())

    def _say(self, number: int) -> None:
        assert self._connection is not None
        request = etcd.KeepAliveRequest(ID=self._lease)
        self._connection.send(self._stream, request.SerializeToString())

    def receive(self, now: float) -> list[float]:
        assert self._connection is not None
        took: list[float] = []
        for news in self._connection.receive():
            match news:
                case Ended() if not self._lease or news.stream == self._stream:
                    raise ConnectionLost("etcd has ended the stream")
                case Message(data=data) if news.stream == self._stream:
                    if etcd.KeepAliveResponse.FromString(data).TTL <= 0:
                        raise ConnectionLost("the lease is lost")
                    took += self._first_acknowledged(now)
                case Message(data=data):
                    self._lease = etcd.GrantResponse.FromString(data).ID
                    self._stream = self._connection.call(etcd.KEEP_ALIVE)
                    self.is_beating = self.is_settled = True
        return took

    def fileno(self) -> int:
        assert self._connection is not None
        return self._connection.fileno()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()


class Poller(Peer):
    """Asks a pickle server again and again whether all are there."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__()
        self._where = (host, port)
        self._socket: socket.socket | None = None
        self._in = bytearray()

    def begin(self) -> None:
        self._socket = socket.create_connection(self._where, timeout=30.0)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.setblocking(False)
        self.beat(0.0)  # it is there once this one is answered

    def _say(self, number: int) -> None:
        assert self._socket is not None
        self._socket.sendall(pickle_server.packed({"type": "QUERY"}))

    def receive(self, now: float) -> list[float]:
        assert self._socket is not None
        chunk = self._socket.recv(2**16)
        if not chunk:
            raise ConnectionLost("the server has closed the connection")
        self._in += chunk
        took: list[float] = []
        while pickle_server.unpacked(self._in) is not None:
            took += self._first_acknowledged(now)
        if not self.is_settled:
            self.is_beating = self.is_settled = True
            return []
        return took

    def fileno(self) -> int:
        assert self._socket is not None
        return self._socket.fileno()

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
