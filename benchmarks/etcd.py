"""etcd on this machine, for figures beside ours: its process, and the few messages that leases
take.

The messages are declared here instead of being generated: of etcd's API (etcdserverpb, 3.4) these
are the fields that a lease needs, with their numbers.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from benchmarks.cores import running_on
from benchmarks.daemon import cpu_of
from benchmarks.grpc_by_hand import Connection, Message

GRANT = "/etcdserverpb.Lease/LeaseGrant"
KEEP_ALIVE = "/etcdserverpb.Lease/LeaseKeepAlive"
TTL = 60
"""Seconds; as that of our leases."""

_PACKAGE = "etcdserverpb"
_START_TIMEOUT = 30.0
_FIELDS = {
    "LeaseGrantRequest": {"TTL": 1, "ID": 2},
    "LeaseGrantResponse": {"ID": 2, "TTL": 3},
    "LeaseKeepAliveRequest": {"ID": 1},
    "LeaseKeepAliveResponse": {"ID": 2, "TTL": 3},
}


def _messages() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(
        name="tflease_benchmarks/etcd.proto", package=_PACKAGE, syntax="proto3"
    )
    for name, fields in _FIELDS.items():
        message = file.message_type.add(name=name)
        for field, number in fields.items():
            kind = descriptor_pb2.FieldDescriptorProto
            message.field.add(
                name=field, number=number, type=kind.TYPE_INT64, label=kind.LABEL_OPTIONAL
            )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}"))
        for name in _FIELDS
    }


_CLASSES = _messages()
GrantRequest = _CLASSES["LeaseGrantRequest"]
GrantResponse = _CLASSES["LeaseGrantResponse"]
KeepAliveRequest = _CLASSES["LeaseKeepAliveRequest"]
KeepAliveResponse = _CLASSES["LeaseKeepAliveResponse"]


def why_not() -> str:
    """Why etcd cannot be measured here; empty when it can."""
    if shutil.which("etcd") is None:
        return "etcd is not installed here (Debian: etcd-server)"
    return ""


def version() -> str:
    """For the facts of a figure."""
    told = subprocess.run(["etcd", "--version"], capture_output=True, text=True, check=True)
    return told.stdout.partition("\n")[0].removeprefix("etcd Version: ")


class Etcd:
    """One server, on one core and with one thread of Go's; on leaving it is gone. ``folder``: for
    its data."""

    host = "127.0.0.1"

    def __init__(self, folder: Path, core: int) -> None:
        self.port, peers = _free_port(), _free_port()
        clients = f"http://{self.host}:{self.port}"
        with (folder / "etcd.log").open("ab") as log, running_on([core]):
            self._process = subprocess.Popen(
                [
                    *("etcd", "--data-dir", str(folder / "etcd"), "--name", "measured"),
                    *("--listen-client-urls", clients, "--advertise-client-urls", clients),
                    *("--listen-peer-urls", f"http://{self.host}:{peers}"),
                    *("--initial-advertise-peer-urls", f"http://{self.host}:{peers}"),
                    *("--initial-cluster", f"measured=http://{self.host}:{peers}"),
                    *("--logger", "zap", "--log-level", "error"),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "GOMAXPROCS": "1"},
            )

    def __enter__(self) -> Etcd:
        try:
            self._wait_until_it_grants()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _wait_until_it_grants(self) -> None:
        deadline = time.monotonic() + _START_TIMEOUT
        while not self._grants():
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise RuntimeError("etcd did not start: see etcd.log in its folder")
            time.sleep(0.1)

    def _grants(self) -> bool:
        try:
            connection = Connection(self.host, self.port)
        except OSError:
            return False
        try:
            connection.ask(GRANT, GrantRequest(TTL=TTL).SerializeToString())
            deadline = time.monotonic() + 1.0
            while time.monotonic() < deadline:
                if any(isinstance(news, Message) for news in connection.receive()):
                    return True
                time.sleep(0.01)
        except OSError:
            pass
        finally:
            connection.close()
        return False

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def cpu(self) -> float:
        """Seconds of its life on a core, all threads."""
        return cpu_of(self.pid)

    def close(self) -> None:
        """Idempotent."""
        self._process.kill()
        self._process.wait()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
