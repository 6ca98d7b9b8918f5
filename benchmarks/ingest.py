"""How fast `ctx.fetch` is beside fsspec's own parallel `get`, from the same server.

The server speaks S3's protocol (moto's server mode) in a process of its own on the same machine.
What is compared is what the two need around the same requests; how fast a store answers is not
looked at.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import machine
from benchmarks.figure import Figure, Result, Settings, Table
from benchmarks.spread import in_order
from executor_agent.context import Assignment, Context
from executor_agent.progress import ProgressReporter
from executor_agent.watcher import StopSignal

BOUND = 0.8
"""What was promised: at least so much of the throughput of fsspec's own `get`, in the median."""

FILES, LARGEST = 40, 16  # files; MiB
OURS, UNCHECKED, THEIRS = "ctx.fetch", "ctx.fetch, checksum=False", "fsspec's get"
WAYS = (OURS, UNCHECKED, THEIRS)

_MIB = 1 << 20
_BUCKET = "ingest"
_START_TIMEOUT = 60.0


@dataclass(frozen=True, slots=True)
class Sample:
    """All files once. ``cpu``: of the process that fetched, in seconds."""

    way: str
    seconds: float
    cpu: float
    was_quiet: bool = True
    trouble: str = ""


def sizes() -> list[int]:
    """Bytes of each file: 1 MiB to the largest, evenly."""
    return [(1 + number % LARGEST) * _MIB for number in range(FILES)]


def measure(settings: Settings) -> Result:
    """One after the other in every repetition, each time in another order."""
    samples: list[Sample] = []
    with server() as options, tempfile.TemporaryDirectory(prefix="tflease-ingest-") as folder:
        _fill(options)
        for repeat in range(settings.repeats):
            turn = repeat % len(WAYS)
            for way in (*WAYS[turn:], *WAYS[:turn]):
                samples.append(take(way, options, Path(folder, "to")))
                settings.say(f"{len(samples):3}: {_spelled(samples[-1])}")
    return result(samples)


def take(way: str, options: dict[str, Any], folder: Path) -> Sample:
    """All files into an empty folder, which is removed again."""
    was_quiet = machine.settle()
    began, cpu = time.monotonic(), time.process_time()
    if way == THEIRS:
        _get(options, folder)
    else:
        _fetch(options, folder, is_checked=way == OURS)
    seconds, cpu = time.monotonic() - began, time.process_time() - cpu
    came = sorted(path.stat().st_size for path in folder.iterdir() if path.is_file())
    shutil.rmtree(folder)
    trouble = "" if came == sorted(sizes()) else f"{len(came)} files came, of {FILES}"
    return Sample(way, seconds, cpu, was_quiet, trouble)


def _fetch(options: dict[str, Any], folder: Path, *, is_checked: bool) -> None:
    progress = ProgressReporter(lambda _: None)
    spec = {"worker": ("localhost:1",)}
    assignment = Assignment("run", 1, "worker", 0, spec, "1", str(folder), None, None)
    ctx = Context(assignment, StopSignal(), progress)
    try:
        ctx.fetch(
            f"s3://{_BUCKET}/part-*",
            folder,
            checksum=None if is_checked else False,
            storage_options=options,
        )
    finally:
        progress.close(5.0)


def _get(options: dict[str, Any], folder: Path) -> None:
    import fsspec

    files = fsspec.filesystem("s3", **options)
    files.invalidate_cache()
    folder.mkdir()
    files.get(f"{_BUCKET}/part-*", f"{folder}/")


@contextmanager
def server() -> Iterator[dict[str, Any]]:
    """What fsspec needs to know of a server that runs in the block."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + _START_TIMEOUT
        while not _answers(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("moto's server did not start: is moto[s3] installed?")
            time.sleep(0.05)
        url = f"http://127.0.0.1:{port}"
        yield {"key": "testing", "secret": "testing", "endpoint_url": url}
    finally:
        process.kill()
        process.wait()


def _answers(port: int) -> bool:
    import socket

    try:
        socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
    except OSError:
        return False
    return True


def _fill(options: dict[str, Any]) -> None:
    import fsspec

    files = fsspec.filesystem("s3", **options)
    files.mkdir(_BUCKET)
    content = os.urandom(LARGEST * _MIB)
    for number, size in enumerate(sizes()):
        files.pipe_file(f"{_BUCKET}/part-{number:03}", content[:size])


# --- what it means --------------------------------------------------------------------------------


def result(samples: Sequence[Sample]) -> Result:
    """The table and the verdict."""
    good = [sample for sample in samples if not sample.trouble]
    trouble = [f"{each.way}: {each.trouble}" for each in samples if each.trouble]
    busy = sum(not sample.was_quiet for sample in good)
    mib = sum(sizes()) / _MIB
    return Result(
        what=(
            f"{FILES} files of 1 to {LARGEST} MiB, {mib:.0f} MiB in all, from one S3 server to the "
            "local disk."
        ),
        tables=(_table(good, mib),),
        notes=(
            "The server (moto) is a process of its own on the same machine, so that all of it "
            "shares the cores: no network is waited for, and whatever costs processor time shows.",
            f"{OURS}: 8 files at a time, the MD5 of each compared with the store's ETag. "
            f"{UNCHECKED}: sizes only, as {THEIRS} does less than that: it compares nothing.",
            machine.settling("fetch", busy, len(good)),
            *(f"WENT WRONG: {line}" for line in trouble),
        ),
        verdict=_verdict(good),
        is_sound=not trouble,
    )


def _table(samples: Sequence[Sample], mib: float) -> Table:
    rows = []
    for way in WAYS:
        mine = [each for each in samples if each.way == way]
        if not mine:
            continue
        rows.append(
            (
                way,
                f"{mib / median(each.seconds for each in mine):.0f}",
                f"{_ratio(samples, way):.2f}" if way != THEIRS else "1",
                f"{median(each.cpu for each in mine):.2f}",
                in_order([each.seconds for each in mine], 2),
            )
        )
    columns = ("way", "MiB/s, median", f"of {THEIRS}", "CPU s, median", "seconds, all")
    return Table("All files once", columns, tuple(rows))


def _ratio(samples: Sequence[Sample], way: str) -> float:
    """Throughput beside fsspec's, both in the median."""
    theirs = [each.seconds for each in samples if each.way == THEIRS]
    mine = [each.seconds for each in samples if each.way == way]
    return median(theirs) / median(mine) if theirs and mine else 0.0


def _verdict(samples: Sequence[Sample]) -> str:
    ratio, unchecked = _ratio(samples, OURS), _ratio(samples, UNCHECKED)
    met = "met" if ratio >= BOUND else "MISSED"
    return (
        f"At least {BOUND:.0%} of the throughput of {THEIRS}: {met} ({ratio:.0%} with checksums, "
        f"{unchecked:.0%} without)"
    )


def _spelled(sample: Sample) -> str:
    said = sample.trouble or f"{sample.seconds:.2f} s, {sample.cpu:.2f} s of CPU"
    return f"{sample.way}: {said}"


FIGURE = Figure("ingest", "ctx.fetch beside fsspec's own parallel get, from S3", measure, repeats=9)
