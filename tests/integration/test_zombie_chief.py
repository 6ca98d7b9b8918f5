"""A chief of an earlier generation that was frozen, was taken for dead, and goes on: whatever it
writes then, nobody takes it for the latest checkpoint."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.integration.bootstrap_harness import MemberProcess, wait_until

pytestmark = pytest.mark.timeout(60)


def saving(args: Any, ctx: Any) -> str | None:
    """Saves one checkpoint as TensorFlow does, shards first and the index last, and stops in
    between until it is let go on. Returns what it finds to be the latest."""
    import time
    from pathlib import Path

    directory = Path(ctx.checkpoint_dir)
    go = Path(args["go"])
    (directory / f"{args['name']}.data-00000-of-00001").write_text(args["name"])
    Path(args["half"]).touch()
    while not go.exists():
        time.sleep(0.002)
    (directory / f"{args['name']}.index").touch()
    (directory / "checkpoint").write_text(f'model_checkpoint_path: "{args["name"]}"')
    latest: str | None = ctx.latest_checkpoint()
    return latest


class Chief(MemberProcess):
    """Of one generation."""

    def __init__(self, root: Path, generation: int, name: str) -> None:
        self.half, self.go = root / f"half-{generation}", root / f"go-{generation}"
        args = {"name": name, "half": str(self.half), "go": str(self.go)}
        super().__init__(root / f"member-{generation}", saving, args)
        self._fields = {
            "job_name": "chief",
            "cluster_spec": {"chief": ["127.0.0.1:4000"]},
            "generation": generation,
            "model_dir": str(root / "model"),
            "created_at": 1_000_000_000.0,
        }

    def begin(self) -> None:
        """Until it has saved half a checkpoint."""
        self.start(**self._fields)
        wait_until(self.half.exists)

    def end(self) -> Any:
        """What it takes for the latest."""
        self.go.touch()
        assert self.wait(30) == 0, self.log()
        return self.result()


def is_stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def test_what_a_frozen_chief_writes_when_it_goes_on_is_not_the_latest(tmp_path: Path) -> None:
    """O13: by construction, without any lock."""
    with Chief(tmp_path, 1, "ckpt-900") as zombie, Chief(tmp_path, 2, "ckpt-10") as chief:
        zombie.begin()
        os.kill(zombie.pid, signal.SIGSTOP)
        wait_until(lambda: is_stopped(zombie.pid))
        chief.begin()
        found = chief.end()
        assert found.endswith("-0002/ckpt-10")
        # Later by the clock than anything of the second generation.
        written_at = os.stat(f"{found}.index").st_mtime_ns
        wait_until(lambda: time.time_ns() > written_at + 10_000_000)
        os.kill(zombie.pid, signal.SIGCONT)
        assert zombie.end() == found, "not even itself"
        zombies = sorted((tmp_path / "model" / "checkpoints").glob("*-0001/*.index"))
        assert [each.name for each in zombies] == ["ckpt-900.index"]
        assert zombies[0].stat().st_mtime_ns > written_at
    with Chief(tmp_path, 3, "ckpt-11") as third:
        third.begin()
        assert len(list((tmp_path / "model" / "checkpoints").iterdir())) == 3
        assert third.end().endswith("-0003/ckpt-11")


def test_before_the_new_generation_has_saved_the_old_one_s_last_is_the_latest(
    tmp_path: Path,
) -> None:
    """And half a checkpoint of its own is none."""

    def looking(args: Any, ctx: Any) -> str | None:
        from pathlib import Path

        (Path(ctx.checkpoint_dir) / "ckpt-2.data-00000-of-00002").touch()
        (Path(ctx.checkpoint_dir) / "ckpt-2.index").touch()
        latest: str | None = ctx.latest_checkpoint()
        return latest

    with Chief(tmp_path, 1, "ckpt-1") as first:
        first.begin()
        last = first.end()
    with MemberProcess(tmp_path / "second", looking) as second:
        second.start(generation=2, model_dir=str(tmp_path / "model"), created_at=1e9)
        assert second.wait(30) == 0
        assert second.result() == last
