"""What members write into ``ctx.log_dir`` is on the driver while they train, and all of it when
``wait`` returns."""

from __future__ import annotations

import hashlib
import os
import struct
from pathlib import Path
from typing import Any

import pytest

from coordinator import InvalidRun, RestartPolicy, Roles, TFCluster
from tests.spark.helpers import eventually, member_process_of

OPTIONS: dict[str, Any] = {
    "roles": Roles(worker=2),
    "preload": (),
    "progress": False,
    "reservation_timeout": 120.0,
    "grace": {"worker": 0.0},
}


def digests(directory: Path) -> dict[str, str]:
    """By path from there."""
    return {
        path.relative_to(directory).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in directory.rglob("*")
        if path.is_file()
    }


def write_scalars(gate: str, ctx: Any) -> dict[str, str]:
    """As a user would; what the member itself has in the end."""
    import tensorflow as tf

    writer = tf.summary.create_file_writer(os.path.join(ctx.log_dir, "train"))
    step = 0
    with writer.as_default():
        while not os.path.exists(gate) and not ctx.wait_for_stop(0.02):
            tf.summary.scalar("loss", 1.0 / (step + 1), step=step)
            step += 1
    writer.close()
    found = {}
    for folder, _, names in os.walk(ctx.log_dir):
        for name in names:
            path = os.path.join(folder, name)
            with open(path, "rb") as file:
                digest = hashlib.sha256(file.read()).hexdigest()
            found[os.path.relpath(path, ctx.log_dir)] = digest
    return found


def records(path: Path) -> int:
    """Whole records of an event file; -1: it has something torn."""
    data, at, count = path.read_bytes(), 0, 0
    while at + 12 <= len(data):
        (length,) = struct.unpack_from("<Q", data, at)
        at += 16 + length
        count += 1
    return count if at == len(data) else -1


@pytest.mark.tensorflow
def test_scalars_are_on_the_driver_during_the_training_and_all_of_them_after_it(
    spark: Any, gate: Path, tmp_path: Path
) -> None:
    mirror = tmp_path / "logs"

    def has_scalars(worker: str) -> bool:
        found = list((mirror / worker).rglob("*tfevents*"))
        return len(found) == 1 and found[0].stat().st_size > 1_000

    with TFCluster.run(spark, write_scalars, str(gate), log_dir=str(mirror), **OPTIONS) as cluster:
        for worker in ("worker-0", "worker-1"):
            eventually(lambda: has_scalars(worker), f"scalars of {worker}")  # noqa: B023
        gate.touch()
        returned = cluster.wait(60).returned
        assert digests(mirror / "worker-0") == returned["worker:0"]
        assert digests(mirror / "worker-1") == returned["worker:1"]
        events = next((mirror / "worker-1").rglob("*tfevents*"))
        assert records(events) > 20


def write_lines(gate: str, ctx: Any) -> int:
    """A file of the same name in each generation, of which every line is written at once."""
    step = 0
    while not os.path.exists(gate) and not ctx.should_stop:
        with open(os.path.join(ctx.log_dir, "lines.txt"), "a") as file:
            file.write(f"{ctx.generation} {step}\n")
        step += 1
        ctx.wait_for_stop(0.05)
    return step


def test_a_killed_member_loses_nothing_of_what_it_had_written(
    spark: Any, gate: Path, tmp_path: Path
) -> None:
    mirror = tmp_path / "logs"
    lines = mirror / "worker-1" / "lines.txt"
    with TFCluster.run(
        spark, write_lines, str(gate), log_dir=str(mirror), restart=RestartPolicy(), **OPTIONS
    ) as cluster:
        eventually(lambda: lines.exists() and lines.stat().st_size > 20, "lines of worker:1")
        member_process_of(cluster.run_id, "worker:1").kill()
        second = lines.with_name("lines.txt.2")
        eventually(lambda: second.exists() and second.stat().st_size > 20, "of its next attempt")
        gate.touch()
        returned = cluster.wait(60).returned
        steps = [f"2 {step}" for step in range(returned["worker:1"])]
        assert second.read_text().splitlines() == steps
    first = lines.read_text()
    assert first.endswith("\n")
    assert first.splitlines() == [f"1 {step}" for step in range(len(first.splitlines()))]


def test_a_log_dir_that_cannot_be_made_is_refused_before_anything_starts(
    spark: Any, gate: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InvalidRun, match=r"log_dir=.*cannot be made"):
        TFCluster.run(
            spark, write_lines, str(gate), log_dir=str(tmp_path / "file" / "logs"), **OPTIONS
        )
    with pytest.raises(InvalidRun, match="log_dir='nosuch://bucket/logs' cannot be opened"):
        TFCluster.run(spark, write_lines, str(gate), log_dir="nosuch://bucket/logs", **OPTIONS)
