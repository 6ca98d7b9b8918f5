"""What a Spark task runs: one member, from its slot to its row.

Runs on the main thread of a PySpark worker. Starts a sentinel, waits for it, starts the member once
more where its run is restarted (``incarnations``), and returns one row; a member that fails does
not fail its task, because Spark would spend its retries on it and abort the job of the others
(ARCHITECTURE.md, "The Spark side"). User code and TensorFlow never run in this process.
"""

from __future__ import annotations

import itertools
import os
import resource
import secrets
import struct
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from executor_agent import member_directory, processes, spark_chain
from executor_agent.core.agent_config import AgentConfig
from executor_agent.core.succession import Predecessor
from executor_agent.core.supervision import AnchorName
from executor_agent.incarnations import Incarnations, Row
from executor_agent.jvm_connection import JvmConnection
from executor_agent.launcher import folder_of
from executor_agent.member_launch import MemberLaunch
from executor_agent.processes import ProcessIdentity

if TYPE_CHECKING:
    import pyarrow as pa

_TEXTS = ("member", "incarnation", "refusal", "report", "handed_over")
ROW_SCHEMA = ", ".join([*(f"{name} string" for name in _TEXTS), "result binary"])
"""Spark's DDL of the row that a task returns. ``refusal``: why no member was started at all;
``report``: an ``ExitReport`` as JSON, with the sentinel's own proof; ``result``: pickled.
``handed_over``: the member runs on without the task, under the sentinel with this ``pid`` and
``create_time`` and with its files in this ``directory`` (JSON); report and result are then null."""

_SECRETS = (
    "PYTHON_WORKER_FACTORY_SECRET",
    "PYTHON_WORKER_FACTORY_PORT",
    "PYTHON_WORKER_FACTORY_SOCK_DIR",
    "_SPARK_AUTH_SECRET",
    "SPARK_CONNECT_AUTHENTICATE_TOKEN",
)
"""Spark's own, which a user's program has no business with."""

_SECRETS_OF_TLS = "_SPARK_SSL_"
"""How the names of those begin that open the keystores of ``spark.ssl.rpc``."""


@dataclass(frozen=True, slots=True)
class MemberTask:
    """What the driver puts into a job's closure.

    ``members``: names ("worker:1") by partition. ``grace``: seconds by role name. ``payload``:
    the user's function and arguments, pickled by the driver and opened only in the member's own
    process. ``connect_timeout``: seconds the coordinator may be out of reach. ``ports``: the first
    and the last port that a member may listen on. ``network``: in CIDR notation; members advertise
    their address in it. ``anchor``: what the member lives as long as. "task": the task returns when
    it has ended. "executor": the task returns when the gang has formed, so that its slot is free.
    ``gpus``: for each member of a role, by role name. ``created_at``: when the run was made, Unix
    time. ``tls``: a ``ClientTls`` as plain texts; None: the coordinator speaks plaintext.
    ``feed_key``: a ``FeedKey`` as plain texts; None: Spark does not feed the members.
    ``submission``: the number of this job among those of its members. ``restart_causes``: values of
    ``Cause``. A member that has ended by one of them is started once
    more in the same task; none: nothing is restarted.
    """

    members: tuple[str, ...]
    run_id: str
    coordinator: str
    token: str = field(repr=False)
    payload: bytes = field(repr=False)
    grace: Mapping[str, float]
    preload: tuple[str, ...]
    connect_timeout: float
    env: Mapping[str, str] = field(default_factory=dict)
    has_log_dir: bool = False
    model_dir: str | None = None
    ports: tuple[int, int] | None = None
    network: str | None = None
    anchor: str = "task"
    gpus: Mapping[str, int] = field(default_factory=dict)
    created_at: float = 0.0
    tls: Mapping[str, str] | None = field(default=None, repr=False)
    feed_key: Mapping[str, str] | None = field(default=None, repr=False)
    restart_causes: tuple[str, ...] = ()
    submission: int = 0

    def for_members(self, members: tuple[str, ...]) -> MemberTask:
        """The same task for the partitions of one job."""
        return replace(self, members=members)

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """For ``DataFrame.mapInArrow``: one partition, one member, one row."""
        from pyspark import TaskContext

        context = TaskContext.get()
        if context is None:
            raise RuntimeError("not in a Spark task")
        member = self.members[context.partitionId()]
        incarnation = f"{context.taskAttemptId()}-{secrets.token_hex(4)}"
        incarnation += f"-{self.submission}" if self.submission else ""  # `submission_of`
        assigned = gpu_addresses(context.resources())
        yield _row(self._run(member, incarnation, context.cpus(), assigned))
        for _ in batches:  # consumed, so that Spark may use this worker again
            pass

    def _run(
        self, member: str, incarnation: str, cpus: int, gpus: tuple[str, ...] | None = None
    ) -> Row:
        refusal = _address_space_limit()
        if refusal:
            return {"member": member, "incarnation": incarnation, "refusal": refusal}
        jvm = JvmConnection.of_this_worker()

        def blueprint(
            incarnation: str, directory: Path, predecessor: Predecessor | None
        ) -> MemberLaunch:
            return self._launch(member, incarnation, directory, cpus, jvm, gpus, predecessor)

        incarnations = Incarnations(
            self.run_id,
            member,
            blueprint,
            self.restart_causes,
            is_abandoned=lambda: jvm is not None and jvm.is_closed,
            has_assigned_gpus=gpus is not None,
        )
        return incarnations.run(incarnation)

    def _launch(
        self,
        member: str,
        incarnation: str,
        directory: Path,
        cpus: int,
        jvm: JvmConnection | None = None,
        assigned_gpus: tuple[str, ...] | None = None,
        predecessor: Predecessor | None = None,
    ) -> MemberLaunch:
        chain = _chain(jvm)
        role = member.partition(":")[0]
        claim = member_directory.claim_of(directory)
        marker = f"{self.run_id}/{member}/{incarnation}"
        environment = member_environment(os.environ, sys.path, cpus)
        agent = AgentConfig(
            coordinator=self.coordinator,
            token=self.token,
            run_id=self.run_id,
            member=member,
            incarnation=incarnation,
            marker=marker,
            executor_id=_executor_id(chain),
            directory=str(directory),
            claim=str(claim),
            grace=self.grace[role],
            connect_timeout=self.connect_timeout,
            has_log_dir=self.has_log_dir,
            model_dir=self.model_dir,
            ports=self.ports,
            network=self.network,
            gpus=self.gpus.get(role, 0),
            gpu_addresses=assigned_gpus,
            created_at=self.created_at,
            tls=self.tls,
            feed_key=self.feed_key,
            predecessor=predecessor.incarnation if predecessor is not None else "",
            preferred_ports=predecessor.ports if predecessor is not None else (),
        )
        preload = [part for name in self.preload for part in ("--preload", name)]
        bootstrap = ["-m", "executor_agent.bootstrap", "--directory", str(directory)]
        return MemberLaunch(
            member=member,
            run_id=self.run_id,
            incarnation=incarnation,
            marker=marker,
            directory=directory,
            claim=claim,
            watch=chain,
            grace=self.grace[role],
            agent_argv=(sys.executable, "-m", "executor_agent.agent"),
            agent_env=agent_environment(environment),
            agent_config=agent.to_json().encode(),
            member_argv=(sys.executable, *bootstrap, *preload),
            member_env=_with(without_gpus(environment), self.env),
            payload=self.payload,
            cwd=Path.cwd(),
            detached=self.anchor == "executor",
        )


def submission_of(incarnation: str) -> int:
    """Of which of its member's jobs an incarnation is, the first being number 0."""
    number = incarnation.partition(".")[0].split("-")[2:]
    return int(number[0]) if number and number[0].isdigit() else 0


def member_environment(inherited: Mapping[str, str], path: list[str], cpus: int) -> dict[str, str]:
    """The environment of agent and member: without Spark's secrets, with the task's modules
    (``addPyFile``, ``addArtifacts``: they are in ``sys.path`` only, and may be relative), and with
    as many OpenMP threads as the task has cores (Spark sets 1)."""
    environment = {
        name: value
        for name, value in inherited.items()
        if name not in _SECRETS and not name.startswith(_SECRETS_OF_TLS)
    }
    folders = dict.fromkeys(os.path.abspath(entry) for entry in path)
    environment["PYTHONPATH"] = os.pathsep.join(folders)
    environment["OMP_NUM_THREADS"] = str(max(1, cpus))
    environment["PYTHONUNBUFFERED"] = "1"
    return environment


def without_gpus(environment: Mapping[str, str]) -> dict[str, str]:
    """A member sees no GPU before its agent has leased one for it and says which: not at the
    imports that come first, nor ever in a role that asked for none (G3). The agent's environment
    stays as it is: from it the agent knows what this container may use (G6)."""
    return {**environment, "CUDA_VISIBLE_DEVICES": ""}


def gpu_addresses(resources: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The GPUs that Spark has assigned to this task: indexes, or whatever its discovery script
    prints. None: it has assigned none."""
    found = resources.get("gpu")
    return tuple(map(str, found.addresses)) if found is not None else None


def agent_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """As the member's, but no file of the user's may stand in for a module that the agent needs:
    `addPyFile("random.py")` would come before the standard library."""
    own = [sysconfig.get_path("stdlib"), sysconfig.get_config_var("DESTSHARED")]
    for package in ("executor_agent", "coordinator", "grpc", "google.protobuf", "psutil"):
        with suppress(ImportError, RuntimeError):  # the agent will say what it lacks
            own.append(folder_of(package))
    path = dict.fromkeys([*filter(None, own), *environment["PYTHONPATH"].split(os.pathsep)])
    return {
        **environment,
        "PYTHONPATH": os.pathsep.join(path),
        "PYTHONSAFEPATH": "1",
        "GRPC_ENABLE_FORK_SUPPORT": "0",
    }


def _with(environment: Mapping[str, str], env: Mapping[str, str]) -> dict[str, str]:
    """The user's variables win; a ``PYTHONPATH`` of theirs comes first and does not hide the
    modules that came with the task."""
    member = {**environment, **env}
    if "PYTHONPATH" in env:
        member["PYTHONPATH"] = os.pathsep.join((env["PYTHONPATH"], environment["PYTHONPATH"]))
    return member


def _address_space_limit() -> str:
    """TensorFlow maps far more than it uses: under RLIMIT_AS it dies in strange ways."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return ""
    return (
        f"Spark limits the address space of its Python workers to {limit / 2**20:.0f} MiB, which "
        "TensorFlow's processes inherit: unset spark.executor.pyspark.memory and raise "
        "spark.executor.memoryOverhead instead"
    )


def _chain(jvm: JvmConnection | None) -> dict[AnchorName, ProcessIdentity]:
    """Also for a worker whose daemon was killed, which Spark uses again: it is nobody's child any
    more, but still connected."""
    chain = spark_chain.spark_chain()
    peer = jvm.peer() if jvm is not None and "executor" not in chain else None
    if peer is not None and processes.name_of(peer.pid) == "java":
        chain["executor"] = peer
    return chain


def _executor_id(chain: Mapping[AnchorName, ProcessIdentity]) -> str:
    """Spark tells its Python workers nothing of it, but the executor's JVM was told."""
    executor = chain.get("executor")
    command = spark_chain.command_line(executor.pid) if executor is not None else []
    for flag, value in itertools.pairwise(command):
        if flag == "--executor-id":
            return str(value)
    return "driver" if executor is not None else ""


def _row(values: Mapping[str, Any]) -> pa.RecordBatch:
    import pyarrow as pa

    types = {**dict.fromkeys(_TEXTS, pa.string()), "result": pa.binary()}
    columns = [_column(values.get(name), kind) for name, kind in types.items()]
    return pa.RecordBatch.from_arrays(columns, names=list(types))


def _column(value: str | bytes | None, kind: pa.DataType) -> pa.Array:
    """Of one value. Made from buffers, because ``pa.array`` imports pandas to ask whether a list is
    one of its own, which costs more than the rest of the task."""
    import pyarrow as pa

    if value is None:
        return pa.nulls(1, kind)
    data = value.encode() if isinstance(value, str) else value
    offsets = struct.pack("=ii", 0, len(data))
    return pa.Array.from_buffers(kind, 1, [None, pa.py_buffer(offsets), pa.py_buffer(data)])
