"""Members whose `model_dir` is in an object store, for tests: they save as TensorFlow does."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import s3fs

from executor_agent.context import Context
from executor_agent.progress import ProgressReporter
from executor_agent.watcher import StopSignal
from tests.agent.test_context import context

DEADLINE = 30.0
END_OF_INDEX = bytes.fromhex("57fb808b247547db")
GENERATION = "bucket/model/checkpoints/19700101T000000Z-run-1-{:04d}"
FIRST = GENERATION.format(1)


def forget_connections() -> None:
    """fsspec keeps its file systems, with the address and the keys of another test's server."""
    s3fs.S3FileSystem.clear_instance_cache()


class Member:
    """A chief, unless told otherwise, of that generation."""

    def __init__(
        self,
        folder: Path,
        role: str = "chief",
        generation: int = 1,
        model_dir: str = "s3://bucket/model",
    ) -> None:
        self.messages: list[Any] = []
        self.progress = ProgressReporter(self.messages.append, interval=0.0)
        self.stop = StopSignal()
        local_dir = folder / f"{role}-{generation}"
        local_dir.mkdir(exist_ok=True)
        self.ctx: Context = context(
            role,
            stop=self.stop,
            progress=self.progress,
            model_dir=model_dir,
            local_dir=str(local_dir),
            generation=generation,
        )

    @property
    def folder(self) -> Path:
        return Path(self.ctx.checkpoint_dir or "")

    @property
    def section(self) -> str:
        return str(self.messages[-1]["section"]) if self.messages else ""

    def save(self, step: int, data: bytes = b"data") -> None:
        """As TensorFlow does it: the data, the index, the note."""
        with self.ctx.section("checkpoint"):
            (self.folder / f"ckpt-{step}.data-00000-of-00001").write_bytes(data)
            (self.folder / f"ckpt-{step}.index").write_bytes(b"index" + END_OF_INDEX)
            (self.folder / "checkpoint").write_text(f'model_checkpoint_path: "ckpt-{step}"\n')

    def delete(self, step: int) -> None:
        """As `CheckpointManager` does it."""
        for end in ("index", "data-00000-of-00001"):
            (self.folder / f"ckpt-{step}.{end}").unlink()

    def finish(self, patience: float = DEADLINE) -> None:
        self.ctx._finish_uploads(patience)


def files(*steps: int, folder: str = FIRST) -> list[str]:
    ends = ("data-00000-of-00001", "index")
    return [f"{folder}/checkpoint", *(f"{folder}/ckpt-{s}.{e}" for s in steps for e in ends)]


def eventually(is_so: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + DEADLINE
    while not is_so():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)
