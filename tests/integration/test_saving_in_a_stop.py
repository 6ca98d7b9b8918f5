"""A stop that a restart follows: what is saved within the grace is where the next one goes on."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

from executor_agent.progress import SAVED_AT
from tests.integration.bootstrap_harness import MemberProcess

cloudpickle.register_pickle_by_value(sys.modules[__name__])

pytestmark = pytest.mark.slow  # each starts an interpreter


def trains(args: Any, ctx: Any) -> int:
    """A checkpoint as TensorFlow leaves it, its step in its name."""
    latest = ctx.latest_checkpoint()
    first = int(latest.rpartition("-")[2]) if latest else 0
    step = first
    while not ctx.should_stop:
        step += 1
        ctx.report_progress(step)
        time.sleep(0.01)
    with ctx.section("checkpoint"):
        time.sleep(args)
        prefix = Path(ctx.checkpoint_dir, f"ckpt-{step}")
        prefix.with_name(f"{prefix.name}.data-00000-of-00001").touch()
        prefix.with_name(f"{prefix.name}.index").touch()
    print("first", first, "last", step, flush=True)
    return first


def generation(directory: Path, model_dir: Path, number: int) -> tuple[int, int, float, float]:
    """The steps that it began and ended with, and the checkpoints that it told of: at its beginning
    (0.0: none) and its end."""
    with MemberProcess(directory, trains, 0.3) as member:
        member.start(generation=number, grace=30.0, model_dir=str(model_dir), created_at=1.0)
        first = member.expect("progress")
        member.stop("worker:1 was killed by signal 9", grace=30.0)
        *_, last, finished = [first, *member.events_until("finished")]
        assert finished["outcome"]["status"] == "returned"
        assert member.wait(20) == 0
        steps = member.result(), last["step"]
        return *steps, first["metrics"].get(SAVED_AT, 0.0), last["metrics"][SAVED_AT]


def test_what_was_saved_within_the_grace_is_where_the_next_generation_goes_on(
    tmp_path: Path,
) -> None:
    model_dir = tmp_path / "model"
    began, ended, found, saved = generation(tmp_path / "1", model_dir, 1)
    assert (began, found) == (0, 0.0)
    began_again, ended_again, found_again, saved_again = generation(tmp_path / "2", model_dir, 2)
    assert began_again == ended
    assert ended_again > ended
    assert found_again <= saved, "what was found is no news, and gives no restart back"
    assert saved_again > saved
