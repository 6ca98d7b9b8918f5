"""``python -m benchmarks.gpu_check``: leases, claims and proofs on a real NVIDIA GPU.

Needs neither Spark nor TensorFlow: a coordinator in this process, the agents' own look at the host,
and processes that take memory of the GPU and are killed. Writes ``docs/gpu-check.md`` on a machine
with a GPU; on one without it says so, and ends with 2. With the fake NVML it goes through the same
motions and writes nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
import uuid as uuids
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from benchmarks import gpu_check_report
from benchmarks.gpu_check_child import FAKE
from benchmarks.gpu_check_report import Kind
from coordinator.core.errors import GpusUnavailable
from coordinator.core.gpu import GpuSight, LeaseToken, Want
from coordinator.gpu_client import GpuClient
from coordinator.testing import serving
from executor_agent.core.gpu_choice import SLACK
from executor_agent.gpus import HostGpus
from executor_agent.linux import boot_id
from executor_agent.nvml import Nvml, open_nvml
from executor_agent.processes import ProcessIdentity, identity_of, is_running

DOCUMENT = Path(__file__).parents[1] / "docs" / "gpu-check.md"
WHO, HOLDER = "member", "gpu-check"
NO_GPU = 2

_READY = 120.0  # seconds for a library to be imported and to take memory
_GONE = 60.0
_BLOCKED = 0.2  # seconds for which a grant is waited for that must not come


class CheckFailed(Exception):
    """Something was not as it must be."""


class Check:
    """One GPU, one coordinator."""

    def __init__(self, client: GpuClient, gpus: HostGpus, nvml: Nvml, uuid: str, size: int) -> None:
        self._client, self._gpus, self._nvml = client, gpus, nvml
        self._uuid, self._size = uuid, size
        self._idle = self._memory()
        self._token = LeaseToken("", 0)  # of the last lease
        self.library = ""

    def plain(self, kind: Kind) -> None:
        """The parent is killed; the kernel kills the worker; nothing else is left."""
        request, fds = self._get()
        with self._member(fds, "alone") as (parent, [worker]):
            self._client.renew(request, [self._token])
            self._expect_busy([worker])
            began_at = time.monotonic()
            parent.kill()
            self._measure(kind, [worker], began_at)
            self._release(request)
            self._grant_again(kind, began_at)

    def helper(self, kind: Kind) -> None:
        """A helper that has inherited the device survives: no grant, and it is named, until it is
        gone as well."""
        request, fds = self._get()
        with self._member(fds, "helper") as (parent, [worker, left]):
            parent.kill()
            _wait_gone([worker])
            self._expect_busy([left])
            self._release(request)
            self._expect_no_grant()
            began_at = time.monotonic()
            _kill(left)
            self._measure(kind, [left], began_at)
            self._inspect()
            self._grant_again(kind, began_at)

    def neighbour(self, kind: Kind) -> None:
        """Somebody who knows nothing of claims: left alone, and in the way."""
        with self._process("neighbour", "alone", ()) as (process, [worker]):
            self._expect_busy([worker])
            self._client.report(*_here(), self._gpus.look([self._uuid]))
            self._expect_no_grant()
            if not is_running(worker):
                raise CheckFailed("the neighbour's process was killed")
            began_at = time.monotonic()
            process.kill()
            self._measure(kind, [worker], began_at)
            self._inspect()
            self._grant_again(kind, began_at)

    # -- steps -----------------------------------------------------------------------------

    def _get(self) -> tuple[str, list[int]]:
        """A lease and its claim."""
        request = uuids.uuid4().hex
        wants = [Want(WHO, (self._uuid,), 1)]
        [(_, _, self._token)], _ = self._client.acquire(request, HOLDER, wants, 30.0)
        taken, refused = self._gpus.claim({self._uuid: self._token}, f"{WHO} of {HOLDER}")
        if refused:
            raise CheckFailed(f"the claim was refused: {refused[0].holder}")
        return request, list(taken.values())

    def _release(self, request: str) -> None:
        self._client.release(request, WHO, self._gpus.await_free([self._uuid], 1.5))

    def _inspect(self) -> None:
        """What makes a GPU free that was not proven free by its holder."""
        number, coordinator_id = self._client.inspect([self._uuid])
        sights = self._gpus.inspect([self._uuid], coordinator_id, number)
        self._client.report(*_here(), sights, number)

    def _grant_again(self, kind: Kind, began_at: float) -> None:
        request, fds = self._get()
        kind.granted.append(_since(began_at))
        _close(fds)
        self._release(request)

    def _measure(self, kind: Kind, processes: list[ProcessIdentity], began_at: float) -> None:
        _wait_gone(processes)
        kind.gone.append(_since(began_at))
        _until(lambda: self._memory() <= self._idle + SLACK, "the GPU's memory", _GONE)
        kind.memory.append(_since(began_at))

    def _expect_busy(self, processes: list[ProcessIdentity]) -> None:
        [sight] = self._gpus.look([self._uuid])
        if sight.is_free:
            raise CheckFailed(f"{sight} is called free, while {processes} use it")

    def _expect_no_grant(self) -> None:
        wants = [Want(WHO, (self._uuid,), 1)]
        try:
            self._client.acquire(uuids.uuid4().hex, HOLDER, wants, _BLOCKED)
        except GpusUnavailable:
            return
        raise CheckFailed("a GPU that is in use was granted")

    def _memory(self) -> int:
        [device] = [each for each in self._nvml.devices() if each.uuid == self._uuid]
        return device.memory_used

    # -- processes -------------------------------------------------------------------------

    @contextmanager
    def _member(
        self, fds: list[int], helper: str
    ) -> Iterator[tuple[subprocess.Popen[str], list[ProcessIdentity]]]:
        try:
            with self._process("parent", helper, tuple(fds)) as started:
                _close(fds)  # from here on the claim is theirs alone
                fds.clear()
                yield started
        finally:
            _close(fds)

    @contextmanager
    def _process(
        self, role: str, helper: str, fds: tuple[int, ...]
    ) -> Iterator[tuple[subprocess.Popen[str], list[ProcessIdentity]]]:
        """Ready, with the memory taken; all of it gone on leaving."""
        visible = {"CUDA_VISIBLE_DEVICES": self._uuid, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
        command = [sys.executable, "-m", "benchmarks.gpu_check_child", role]
        with subprocess.Popen(
            [*command, str(self._size), self._uuid, helper],
            env=os.environ | visible,
            stdout=subprocess.PIPE,
            text=True,
            pass_fds=fds,
        ) as process:
            found: list[ProcessIdentity] = []
            try:
                found = self._ready(process)
                yield process, found
            finally:
                process.kill()
                for each in found:
                    _kill(each)
                _wait_gone(found)

    def _ready(self, process: subprocess.Popen[str]) -> list[ProcessIdentity]:
        assert process.stdout is not None
        if not select.select([process.stdout], [], [], _READY)[0]:
            raise CheckFailed(f"no library took memory of the GPU within {_READY:g} s")
        line = process.stdout.readline()
        if not line:
            raise CheckFailed("no library could take memory of the GPU; its errors are above")
        said = json.loads(line)
        self.library = said["library"]
        return [who for pid in said["pids"] if (who := identity_of(pid))]


# -- driving it ----------------------------------------------------------------------------


def main(argv: list[str] | None = None) -> int:
    """0: all was as it must be. 1: something was not. 2: there is no GPU to check."""
    options = _parser().parse_args(argv)
    gpus = HostGpus.here(None)
    offer = gpus.offer()
    free = [each for each in offer.gpus if each.is_free and options.gpu in ("", each.uuid)]
    if not free:
        for each in offer.gpus:
            print(f"{each} is in use by {each.holder}")
        print(f"nothing was checked: {offer.problem or 'no GPU is free'}")
        return NO_GPU
    try:
        return asyncio.run(_check(options, gpus, free[0]))
    except CheckFailed as error:
        print(f"FAILED: {error}")
        return 1


async def _check(options: argparse.Namespace, gpus: HostGpus, gpu: GpuSight) -> int:
    async with serving() as coordinator:
        client = GpuClient(coordinator.address, coordinator.token)
        try:
            return await asyncio.to_thread(_rounds, options, gpus, gpu, client)
        finally:
            client.close()


def _rounds(options: argparse.Namespace, gpus: HostGpus, gpu: GpuSight, client: GpuClient) -> int:
    client.report(*_here(), [gpu])
    check = Check(client, gpus, open_nvml(), gpu.uuid, int(options.gib * 2**30))
    plain, helper, neighbour = Kind("the parent killed"), Kind("a helper left"), Kind("a neighbour")
    plan: list[tuple[int, Callable[[Kind], None], Kind]] = [
        (options.rounds, check.plain, plain),
        (options.others, check.helper, helper),
        (options.others, check.neighbour, neighbour),
    ]
    for count, play, kind in plan:
        for number in range(count):
            play(kind)
            print(f"{kind.name}: {number + 1} of {count}", flush=True)
    text = gpu_check_report.text(gpu, check.library, options.gib, [plain, helper, neighbour])
    print(text)
    if os.environ.get(FAKE):
        print("with the fake NVML: nothing was measured on a GPU, and nothing is written")
    elif not options.no_report:
        DOCUMENT.write_text(text)
        print(f"written to {DOCUMENT}")
    return 0


def _here() -> tuple[str, str]:
    return socket.gethostname(), boot_id()


def _since(began_at: float) -> float:
    return (time.monotonic() - began_at) * 1000


def _wait_gone(processes: list[ProcessIdentity]) -> None:
    _until(lambda: not any(map(is_running, processes)), f"the end of {processes}", _GONE)


def _until(condition: Callable[[], bool], what: str, timeout: float) -> None:
    give_up_at = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > give_up_at:
            raise CheckFailed(f"waited {timeout:g} s for {what}")
        time.sleep(0.001)


def _kill(process: ProcessIdentity) -> None:
    with suppress(ProcessLookupError):
        if is_running(process):
            os.kill(process.pid, signal.SIGKILL)


def _close(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_check", description=__doc__)
    parser.add_argument("--rounds", type=int, default=50, help="of killing the parent")
    parser.add_argument("--others", type=int, default=10, help="rounds of each other kind")
    parser.add_argument("--gib", type=float, default=4.0, help="memory to take")
    parser.add_argument("--gpu", default="", help="its UUID; the first that is free")
    parser.add_argument("--no-report", action="store_true", help=f"do not write {DOCUMENT.name}")
    return parser


if __name__ == "__main__":
    sys.exit(main())
