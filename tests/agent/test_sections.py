"""What a member says that it is doing, and what it says of its checkpoints (E5)."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import pytest

from coordinator.core import restarts
from executor_agent.context import Context
from executor_agent.progress import SAVED_AT, ProgressReporter
from executor_agent.watcher import StopSignal
from tests.agent.test_checkpoints import save
from tests.agent.test_context import context

TIMEOUT = 30.0


class Agent:
    """Keeps what it is sent."""

    def __init__(self) -> None:
        self.messages: list[Mapping[str, object]] = []
        self.came = threading.Condition()

    def __call__(self, message: Mapping[str, object]) -> None:
        with self.came:
            self.messages.append(message)
            self.came.notify_all()

    def wait_for(self, is_it: Callable[[Mapping[str, object]], bool]) -> None:
        """That the newest message is such a one."""
        with self.came:
            found = self.came.wait_for(lambda: self.messages and is_it(self.messages[-1]), TIMEOUT)
            assert found, self.messages

    def wait_for_section(self, section: str) -> None:
        self.wait_for(lambda message: message["section"] == section)

    @property
    def saved_at(self) -> object:
        metrics = self.messages[-1]["metrics"]
        assert isinstance(metrics, Mapping)
        return metrics.get(SAVED_AT)


class Member:
    """A context whose reports are an hour apart, so that what comes sooner was told at once."""

    def __init__(self, model_dir: Path | None = None, role: str = "worker") -> None:
        self.agent = Agent()
        self.progress = ProgressReporter(self.agent, interval=3600.0)
        self.stop = StopSignal()
        self.ctx: Context = context(
            role,
            stop=self.stop,
            progress=self.progress,
            model_dir=None if model_dir is None else str(model_dir),
        )


def test_who_has_reported_nothing_is_at_the_start() -> None:
    """Counters alone do not arm the clock."""
    member = Member()
    member.progress.add_counters(lambda: {"feed/input/rows": 1.0})
    member.agent.wait_for_section("start")
    member.progress.close(TIMEOUT)


def test_sections_are_told_at_once_and_the_innermost_counts() -> None:
    member = Member()
    ctx, agent = member.ctx, member.agent
    ctx.report_progress(7)
    agent.wait_for_section("step")
    with ctx.section("evaluation"):
        agent.wait_for_section("evaluation")
        with ctx.section("checkpoint"):
            agent.wait_for_section("checkpoint")
        agent.wait_for_section("evaluation")
        ctx.report_progress(8)
    agent.wait_for_section("step")
    member.progress.close(TIMEOUT)
    assert agent.messages[-1]["step"] == 8


def test_a_section_before_the_first_step_ends_at_the_start() -> None:
    member = Member()
    with member.ctx.section("checkpoint"):
        member.agent.wait_for_section("checkpoint")
    member.agent.wait_for_section("start")
    member.progress.close(TIMEOUT)


def test_a_section_ends_with_an_exception_too() -> None:
    member = Member()
    with suppress(KeyError), member.ctx.section("evaluation"):
        member.agent.wait_for_section("evaluation")
        raise KeyError
    member.agent.wait_for_section("start")
    member.progress.close(TIMEOUT)


def test_sections_of_several_threads_do_not_end_each_other() -> None:
    """`ctx.on_stop` saves while `main_fun` evaluates."""
    member = Member()
    ctx, agent = member.ctx, member.agent
    saving, saved = threading.Event(), threading.Event()

    def save_on_stop() -> None:
        with ctx.section("checkpoint"):
            saving.set()
            assert saved.wait(TIMEOUT)

    thread = threading.Thread(target=save_on_stop)
    with ctx.section("evaluation"):
        thread.start()
        assert saving.wait(TIMEOUT)
    agent.wait_for_section("checkpoint")
    saved.set()
    thread.join()
    agent.wait_for_section("start")
    member.progress.close(TIMEOUT)


def test_an_unknown_section_is_refused_with_the_names_of_all() -> None:
    with pytest.raises(ValueError, match=r"no section 'eval'; there are: .*'evaluation', 'idle'"):
        context().section("eval").__enter__()


def test_who_waits_for_the_stop_is_idle() -> None:
    member = Member()
    waiting = threading.Thread(target=member.ctx.wait_for_stop)
    waiting.start()
    member.agent.wait_for_section("idle")
    member.stop.begin("a test")
    waiting.join()
    member.agent.wait_for_section("start")
    member.progress.close(TIMEOUT)


def test_idle_ends_with_the_next_report() -> None:
    member = Member()
    member.ctx.report_idle()
    member.agent.wait_for_section("idle")
    member.ctx.report_progress(1)
    member.progress.close(TIMEOUT)
    assert member.agent.messages[-1]["section"] == "step"


def test_what_others_than_the_chief_save_is_no_checkpoint_of_the_run() -> None:
    member = Member()
    with member.ctx.section("checkpoint"):
        pass
    member.ctx.report_progress(3)
    member.progress.close(TIMEOUT)
    assert member.agent.messages[-1]["metrics"] == {}


def test_a_checkpoint_that_was_saved_is_told_with_every_report_from_then_on() -> None:
    member = Member(role="chief")
    before = time.time()
    with member.ctx.section("checkpoint"):
        pass
    member.ctx.report_progress(3, loss=0.5)
    member.progress.close(TIMEOUT)
    metrics = member.agent.messages[-1]["metrics"]
    assert isinstance(metrics, Mapping)
    assert metrics["loss"] == 0.5
    assert before <= metrics[SAVED_AT] <= time.time()


def test_the_coordinator_knows_it_by_the_same_name() -> None:
    assert SAVED_AT == restarts.SAVED_AT


def test_a_checkpoint_that_failed_is_none() -> None:
    member = Member()
    with pytest.raises(OSError), member.ctx.section("checkpoint"):
        raise OSError("the disk is full")
    member.progress.close(TIMEOUT)
    assert member.agent.saved_at is None


def test_the_checkpoint_that_was_found_is_told_with_its_own_time(tmp_path: Path) -> None:
    member = Member(tmp_path)
    assert member.ctx.latest_checkpoint() is None
    assert member.ctx.checkpoint_dir
    save(member.ctx.checkpoint_dir, "ckpt-1", written_at=1_000.0)
    assert member.ctx.latest_checkpoint() == os.path.join(member.ctx.checkpoint_dir, "ckpt-1")
    assert member.ctx.latest_checkpoint()
    member.progress.close(TIMEOUT)
    assert member.agent.saved_at == 1_000.0
    assert len(member.agent.messages) == 1, "it is not told twice"
