"""What a cluster shows of itself to whoever started it: its state, and what its members print."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, overload

from coordinator.core.log_values import LogChunk
from coordinator.core.model import MemberId, RunView
from coordinator.spark import log_following, member_logs, notebook, views
from coordinator.spark.launch import Launch
from coordinator.spark.log_following import LogPrinter
from coordinator.spark.progress import ProgressLine


class ShownCluster:
    """A part of `TFCluster`."""

    def __init__(self, launch: Launch, line: ProgressLine | None) -> None:
        self._shown = launch
        self._printer: LogPrinter | None = None
        self._line = line
        notebook.show_runs()

    def status(self) -> RunView:
        """The run as the coordinator last told it; times are Unix seconds."""
        return self._shown.session.view

    @overload
    def logs(
        self, member: str | None = None, max_bytes: int = ..., *, follow: Literal[False] = ...
    ) -> str: ...

    @overload
    def logs(
        self, member: str | None = None, max_bytes: int = ..., *, follow: Literal[True]
    ) -> Iterator[str]: ...

    def logs(
        self, member: str | None = None, max_bytes: int = 64 * 1024, *, follow: bool = False
    ) -> str | Iterator[str]:
        """The end of what a member ("worker:1") has printed, read from its executor now, at most
        ``max_bytes`` (up to 1 MiB). Without ``member``: of all, with the member's name in front of
        every line. Of a member that has ended: the last 8 KiB, which came with its report.

        ``follow``: the lines from the first one on, as they come, until the run has ended; through
        restarts, and with whatever cannot be read said in lines that begin with "[tflease] "
        (docs/logs.md).

        Raises InvalidRun when there is no such member; LogUnavailable when nobody is there to read
        it, saying where it is; CoordinatorUnavailable. Following waits for both.
        """
        if follow:
            return log_following.lines(self._shown.session, self._shown.read_log, member)

        def read(asked: MemberId) -> LogChunk:
            return self._shown.read_log(asked, max_bytes)

        if member is None:
            return member_logs.end_of_all(self.status(), read)
        return member_logs.end_of(self.status(), member, read)

    def _print_logs(self) -> None:
        """On standard error, until the run has ended."""
        write = self._line.print_line if self._line is not None else log_following.print_line
        self._printer = LogPrinter(self.logs(follow=True), write)
        self._printer.start()

    def _finish_logs(self) -> None:
        """Once the run has ended."""
        if self._printer is not None:
            self._printer.finish()

    def _repr_html_(self) -> str:
        """For notebooks."""
        return views.run(self.status())
