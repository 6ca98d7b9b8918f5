"""A table of a run's members that stays current: what ``TFCluster.run(progress=...)`` is for."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from coordinator.core import diagnosis
from coordinator.core.model import MemberView, RunView


class LiveView:
    """Shows the latest state of a run; on what is no terminal, a line for each new phase."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False, transient=False)
        self._said = ""

    def show(self, run: RunView) -> None:
        """Called by tflease, on a thread of its own, whenever something has changed."""
        if self._console.is_terminal:
            self._live.update(_table(run), refresh=True)
        elif run.phase.value != self._said:
            self._said = run.phase.value
            self._console.print(diagnosis.headline(run, time.time()), markup=False)

    def __enter__(self) -> LiveView:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.stop()


def _table(run: RunView) -> Table:
    table = Table(
        "member", "phase", "where", "agent pid", "progress", "ended", title=f"run {run.run_id}"
    )
    for member in run.members:
        table.add_row(*map(Text, _cells(member)))  # not markup: names may hold brackets
    table.caption = Text(diagnosis.headline(run, time.time()))
    return table


def _cells(member: MemberView) -> tuple[str, ...]:
    told = ((name, value) for name, value in member.metrics.items() if not name.startswith("feed/"))
    metrics = ", ".join(f"{name} {value:.4f}" for name, value in told)
    return (
        str(member.id),
        member.phase.value,
        str(member.executor or ""),
        str(member.executor.pid) if member.executor else "",
        f"step {member.step}, {metrics}" if member.step else "",
        f"{member.exit.cause.value}, proof: {member.exit.proof.value}" if member.exit else "",
    )
