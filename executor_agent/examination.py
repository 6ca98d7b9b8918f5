"""What ``tflease doctor --spark`` asks of executors: a small task that looks and changes nothing.

Owns: the facts about one host. Whether they are good is for the driver to say
(``coordinator.spark.host_checks``). All tasks of an examination look at where they are; of those on
one host the first one looks at the host.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from executor_agent import reach
from executor_agent.addresses import NoSuchAddress, address_in
from executor_agent.core.peers import Peer
from executor_agent.host_facts import (
    Imports,
    examine_gpu_claims,
    examine_gpus,
    executor,
    java_of,
    kernel_problem,
    leftovers_here,
    limits,
    members_directory,
    versions,
)
from executor_agent.ports import NoFreePort, address_towards, split_address
from executor_agent.roll_call import CONNECT_TIMEOUT, RollCall
from executor_agent.spark_task import ROW_SCHEMA, gpu_addresses

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["ROW_SCHEMA", "ExaminationTask", "Facts"]

_PEERS_TIMEOUT = 15.0  # seconds until the driver must have said who the others are
_PATIENCE = 45.0  # seconds for all: the driver hears of a slow host before it gives the job up


@dataclass(frozen=True, slots=True)
class Facts:
    """What a task has seen. Plain values, for they travel as JSON; texts are empty where all is
    well.

    ``examined``: whether this task has looked at its host, and not only at itself. ``assigned``:
    GPUs that Spark has given to the task, None where it gave none. ``reached``: by name ("driver",
    "coordinator"), why the connection failed. ``imports``: by module, why it cannot be imported.
    ``unreached``: other executors, and why. ``limits``: soft ones by name, None for unlimited.
    ``unseen``: what could not be looked at, and why.
    """

    hostname: str = ""
    executor_id: str = ""
    examined: bool = False
    python: str = ""
    executable: str = ""
    java: str = ""
    assigned: list[str] | None = None
    address: str = ""
    port_problem: str = ""
    reached: dict[str, str] = field(default_factory=dict)
    unreached: list[str] = field(default_factory=list)
    peers: int = 0
    versions: dict[str, str] = field(default_factory=dict)
    imports: dict[str, str] = field(default_factory=dict)
    kernel: str = ""
    limits: dict[str, int | None] = field(default_factory=dict)
    home: dict[str, Any] = field(default_factory=dict)
    leftovers: dict[str, Any] = field(default_factory=dict)
    gpus: dict[str, Any] = field(default_factory=dict)
    gpu_claims: dict[str, Any] = field(default_factory=dict)
    unseen: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> str:
        """One line."""
        return json.dumps({each.name: getattr(self, each.name) for each in fields(self)})

    @classmethod
    def from_json(cls, text: str) -> Facts:
        """Also of another version's: what is not known here is left out."""
        known = {each.name for each in fields(cls)}
        return cls(**{name: value for name, value in json.loads(text).items() if name in known})


@dataclass(frozen=True, slots=True)
class ExaminationTask:
    """What the driver puts into the job's closure.

    ``members``: one name for each task. ``name``: of this examination, not to be guessed.
    ``driver``: "host:port" where the roll is called, None where nobody calls it. ``coordinator``:
    "host:port" of a standalone one. ``ports`` and ``network`` as for a member. ``modules``: what
    has to be importable.
    """

    members: tuple[str, ...]
    driver: str | None
    coordinator: str | None
    ports: tuple[int, int] | None = None
    network: str | None = None
    modules: tuple[str, ...] = ("executor_agent.agent", "executor_agent.bootstrap", "tensorflow")
    name: str = field(default_factory=lambda: secrets.token_hex(8), repr=False)

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """For ``DataFrame.mapInArrow``: one partition, one row."""
        import pyarrow as pa
        from pyspark import TaskContext

        context = TaskContext.get()
        if context is None:
            raise RuntimeError("not in a Spark task")
        facts = self.examine(gpu_addresses(context.resources()))
        texts = ("member", "incarnation", "refusal", "report", "handed_over")
        schema = pa.schema([*((name, pa.string()) for name in texts), ("result", pa.binary())])
        row = {
            "member": self.members[context.partitionId()],
            "incarnation": str(context.taskAttemptId()),
            "report": facts.to_json(),
        }
        full = {name: row.get(name) for name in schema.names}
        yield pa.RecordBatch.from_pylist([full], schema)
        for _ in batches:  # consumed, so that Spark may use this worker again
            pass

    def examine(self, assigned: tuple[str, ...] | None = None) -> Facts:
        """At most `_PATIENCE` seconds. Never raises because of what it finds."""
        give_up_at = time.monotonic() + _PATIENCE
        executor_id, java_pid = executor()
        facts = Facts(
            hostname=socket.gethostname(),
            executor_id=executor_id,
            python="{}.{}.{}".format(*sys.version_info[:3]),
            executable=sys.executable,
            assigned=None if assigned is None else list(assigned),
        )
        # The kernel frees the name with this socket: nothing has to be removed. A container with a
        # network of its own counts as a host of its own.
        first = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        with first:
            try:
                first.bind(f"\0tflease-examination-{self.name}")
            except OSError:
                self._only_call_in()
                return facts
            return self._examine_host(facts, java_pid, give_up_at)

    def _only_call_in(self) -> None:
        """So that nobody waits for this task."""
        if self.driver is not None:
            with suppress(OSError):
                RollCall(self.driver, self.name, "").close()

    def _examine_host(self, facts: Facts, java_pid: int | None, give_up_at: float) -> Facts:
        seen: dict[str, Any] = {}
        unseen: dict[str, str] = {}

        def look(name: str, at: Callable[[], Any]) -> None:
            try:
                seen[name] = at()
            except Exception as error:  # an odd host must not hide what the rest has to say
                unseen[name] = f"{type(error).__name__}: {error}"

        imports: Imports | None = None
        try:
            try:
                imports = Imports(self.modules)  # takes longest: meanwhile the rest is looked at
            except OSError as error:  # no process is to be had
                unseen["imports"] = str(error)
            look("ways", self._ways)
            look("versions", versions)
            look("java", lambda: java_of(java_pid))
            look("kernel", kernel_problem)
            look("limits", limits)
            look("home", members_directory)
            look("leftovers", leftovers_here)
            look("gpus", lambda: examine_gpus(facts.assigned))
            look("gpu_claims", lambda: examine_gpu_claims(seen.get("gpus", {})))
            if imports is not None:
                look("imports", partial(imports.result, give_up_at - time.monotonic()))
        finally:
            if imports is not None:
                imports.close()
        ways = seen.pop("ways", {})
        return replace(facts, examined=True, unseen=unseen, **ways, **seen)

    # -- the network -----------------------------------------------------------------------

    def _ways(self) -> dict[str, Any]:
        """To the driver and the coordinator, from the driver, and to the other executors."""
        found: dict[str, Any] = {"reached": {}}
        if self.coordinator is not None:
            found["reached"]["coordinator"] = _why_not(self.coordinator)
        towards = self.driver or self.coordinator
        if towards is None:
            return found
        try:
            listening, found["address"] = self._listen(towards)
        except (OSError, NoFreePort, NoSuchAddress, ValueError) as error:
            found["port_problem"] = str(error)
            listening = None
        try:
            if self.driver is not None:
                address = found.get("address", "")
                found |= self._answer_roll_call(self.driver, address, found["reached"])
        finally:
            if listening is not None:
                listening.close()
        return found

    def _answer_roll_call(
        self, driver: str, address: str, reached: dict[str, str]
    ) -> dict[str, Any]:
        try:
            with RollCall(driver, self.name, address) as call:
                reached["driver"] = ""
                others = call.wait_for_the_others(_PEERS_TIMEOUT)
        except OSError as error:
            reached["driver"] = reached.get("driver") or _words(error)
            return {"peers": 0}
        peers = [Peer(name, at) for name, at in others.items() if at != address]
        unreached = asyncio.run(reach.unreached(peers))
        return {"peers": len(peers), "unreached": list(map(str, unreached))}

    def _listen(self, towards: str) -> tuple[socket.socket, str]:
        """A port as a member would take one, and the address that it would advertise. The kernel
        answers whoever knocks. Raises OSError, NoFreePort, NoSuchAddress, and
        ValueError for what is no address."""
        own = address_towards(*split_address(towards))
        if self.network is not None:
            own = address_in(self.network, own)
        listening = _free_port(":" in own, self.ports)
        host = f"[{own}]" if ":" in own else own
        return listening, f"{host}:{listening.getsockname()[1]}"


def _free_port(is_version_6: bool, ports: tuple[int, int] | None) -> socket.socket:
    family = socket.AF_INET6 if is_version_6 else socket.AF_INET
    first, last = ports or (0, 0)
    for port in range(first, last + 1):
        listening = socket.socket(family, socket.SOCK_STREAM)
        try:
            listening.bind(("", port))
            listening.listen(128)
        except OSError:
            listening.close()
        else:
            return listening
    raise NoFreePort(f"no free port in {first}-{last}")


def _why_not(address: str) -> str:
    """ "" when it can be reached."""
    try:
        socket.create_connection(split_address(address), CONNECT_TIMEOUT).close()
    except (OSError, ValueError) as error:
        return _words(error)
    return ""


def _words(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
