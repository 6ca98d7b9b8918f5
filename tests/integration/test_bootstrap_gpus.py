"""A member's process takes the claims of its GPUs with its start."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from executor_agent import framing
from executor_agent.core.outcome import Status
from tests.integration.bootstrap_harness import MemberProcess, wait_until

GPUS = {"gpus": ["GPU-a"], "env": {"CUDA_VISIBLE_DEVICES": "GPU-a"}}


class Claim:
    """A descriptor whose last copy shows when it is gone."""

    def __init__(self) -> None:
        self._read, self.given = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def is_held(self) -> bool:
        try:
            return os.read(self._read, 1) != b""
        except BlockingIOError:
            return True

    def close(self) -> None:
        os.close(self._read)


def send(member: MemberProcess, claims: list[int], **fields: Any) -> None:
    """As the agent does."""
    start = {
        "command": "start",
        "run_id": "run-1",
        "generation": 1,
        "job_name": "worker",
        "task_index": 0,
        "cluster_spec": {"worker": ["127.0.0.1:4000"]},
        "executor_id": "7",
        "local_dir": "/scratch",
        "grace": 0.0,
        **fields,
    }
    data = framing.encode(start)
    sent = framing.send_with_descriptors(member.socket, data, claims)
    member.socket.sendall(data[sent:])
    for each in claims:
        os.close(each)


class SetsWhenUnpickled:
    """User modules may call CUDA as soon as they are imported."""

    def __reduce__(self) -> Any:
        return eval, ("__import__('os').environ.get('CUDA_VISIBLE_DEVICES')",)


def forking(args: Any, ctx: Any) -> tuple[Any, ...]:
    """A data loader that was forked outlives its member; a program that was started as well."""
    import os
    import subprocess
    import time
    from pathlib import Path

    program = subprocess.Popen(["sleep", "600"], close_fds=False)
    if os.fork() == 0:
        while not Path(args["go"]).exists():
            time.sleep(0.002)
        program.kill()
        os._exit(0)
    return args["when unpickled"], ctx.gpus


def test_a_claim_lasts_as_long_as_member_and_forks_but_no_longer(tmp_path: Path) -> None:
    """O10: and not as long as a program that it has started."""
    claim = Claim()
    args = {"go": str(tmp_path / "go"), "when unpickled": SetsWhenUnpickled()}
    env = {"CUDA_VISIBLE_DEVICES": ""}
    with MemberProcess(tmp_path / "member", forking, args, env=env) as member:
        member.expect("ready")
        send(member, [claim.given], **GPUS)
        assert member.wait(30) == 0, member.log()
        assert member.result() == ("GPU-a", ("GPU-a",))
        assert claim.is_held(), "the fork has it"
        (tmp_path / "go").touch()
        wait_until(lambda: not claim.is_held())
    claim.close()


def test_a_start_that_names_gpus_and_brings_no_claim_is_not_obeyed(tmp_path: Path) -> None:
    """G4: it would use what it may not."""
    with MemberProcess(tmp_path / "member", forking, {}) as member:
        member.expect("ready")
        send(member, [], **GPUS)
        assert member.wait(30) == 1
        outcome = member.outcome()
        assert outcome.status is Status.RAISED
        assert "names 1 GPUs and brings 0 claims" in outcome.message
