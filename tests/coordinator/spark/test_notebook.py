"""In a notebook: one display, updated in place."""

from __future__ import annotations

import sys
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from coordinator.core.model import RunPhase, RunView
from coordinator.spark import notebook, progress, views
from coordinator.spark.feed.progress import FeedLine
from coordinator.spark.progress import ProgressLine
from tests.coordinator.spark.test_progress import FORMING, RUNNING, at_step


class Kernel:
    """Stands for IPython's shell in a kernel."""

    kernel = object()

    def __init__(self) -> None:
        self.shown: list[dict[str, Any]] = []
        self.fails = False
        self.types: dict[type, Any] = {}
        self.display_pub = SimpleNamespace(publish=self.publish)
        formatter = SimpleNamespace(for_type=self.types.__setitem__)
        self.display_formatter = SimpleNamespace(formatters={"text/html": formatter})

    def publish(self, **message: Any) -> None:
        if self.fails:
            raise RuntimeError("the kernel is going")
        self.shown.append(message)

    @property
    def texts(self) -> list[str]:
        return [str(each["data"]["text/plain"]) for each in self.shown]


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    kernel = Kernel()
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: kernel))
    monkeypatch.setattr(progress, "_NOTEBOOK_INTERVAL", 3600.0)
    return kernel


def test_one_display_is_updated(kernel: Kernel, capsys: pytest.CaptureFixture[str]) -> None:
    line = ProgressLine("mnist")
    for run in (
        FORMING,
        RUNNING,
        at_step(1),
        at_step(2),
        replace(RUNNING, phase=RunPhase.STOPPING),
    ):
        line.show(run)
    line.close()
    assert [text.partition(";")[0] for text in kernel.texts] == [
        "[mnist] 0 of 2 members ready",
        "[mnist] 2 of 2 members running",
        "[mnist] stopping, 0 of 2 members gone",
    ]
    assert len({each["transient"]["display_id"] for each in kernel.shown}) == 1
    assert [each["update"] for each in kernel.shown] == [False, True, True]
    assert "worker:1" in kernel.shown[0]["data"]["text/html"]
    assert capsys.readouterr().err == ""


def test_what_is_fed_is_shown_with_the_members(kernel: Kernel) -> None:
    line = FeedLine("mnist")
    line.show(RUNNING)
    line.feed("feeding input: epoch 1", is_news=True)
    line.show(at_step(7))
    line.feed("feeding input: epoch 2", is_news=True)
    line.fed()
    line.show(replace(RUNNING, phase=RunPhase.SUCCEEDED))
    assert kernel.texts[1:] == [
        "[mnist] feeding input: epoch 1",
        "[mnist] feeding input: epoch 2",
        "[mnist] succeeded",
    ]
    assert ">7<" in kernel.shown[2]["data"]["text/html"]


def test_a_kernel_that_shows_nothing_ends_no_training(kernel: Kernel) -> None:
    kernel.fails = True
    ProgressLine("mnist").show(RUNNING)
    assert kernel.shown == []


def test_runs_are_tables(kernel: Kernel) -> None:
    notebook.show_runs()
    assert kernel.types == {RunView: views.run}


@pytest.mark.parametrize(
    "module", [None, SimpleNamespace(), SimpleNamespace(get_ipython=lambda: None)]
)
def test_without_a_notebook_lines_are_printed(
    module: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "IPython", module)
    notebook.show_runs()
    ProgressLine("mnist").show(RUNNING)
    assert capsys.readouterr().err == "[mnist] 2 of 2 members running\n"
