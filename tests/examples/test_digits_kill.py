"""The accident's report: who ended when and how, the error in short, the port."""

from __future__ import annotations

import io
import socket
from dataclasses import replace

from rich.console import Console

from coordinator.core.model import (
    Cause,
    Endpoint,
    ExitReport,
    MemberId,
    MemberPhase,
    MemberView,
    Roles,
    RunId,
    RunPhase,
    RunSpec,
    RunView,
)
from examples.digits_kill import (
    AGENT,
    PYTHON_WORKER,
    TENSORFLOW,
    abbreviated,
    table_of_ends,
    why_not_free,
)
from examples.process_watch import Watched
from executor_agent.processes import ProcessIdentity

VICTIM = Watched(ProcessIdentity(11, 1.0), PYTHON_WORKER, "ps:0")
SPARKS = Watched(ProcessIdentity(12, 1.0), PYTHON_WORKER, "worker:0")
MEMBER = Watched(ProcessIdentity(13, 1.0), TENSORFLOW, "ps:0")
LIVING = Watched(ProcessIdentity(14, 1.0), AGENT, "worker:0")
END = ExitReport(Cause.PREEMPTED, signal=9, killed_by_us=True)
PS = MemberView(MemberId.parse("ps:0"), MemberPhase.EXITED, 0.0, exit=END)
RUN = RunView(
    RunId("ab12"), RunSpec(Roles(worker=1, ps=1)), RunPhase.FAILED, 1, (PS,), 0.0, revision=1
)


def rows(run: RunView) -> list[list[str]]:
    watched = (LIVING, SPARKS, MEMBER, VICTIM)
    stream = io.StringIO()
    table = table_of_ends(watched, {MEMBER: 0.0521, VICTIM: 0.001}, VICTIM, run)
    Console(file=stream, width=200).print(table)
    lines = [line for line in stream.getvalue().splitlines() if line.startswith("│")]
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in lines]


def test_the_table_is_in_the_order_of_the_ends_and_names_who_lives() -> None:
    assert rows(RUN) == [
        ["1.0", "ps:0", PYTHON_WORKER, "11", "SIGKILL by this demo"],
        ["52.1", "ps:0", TENSORFLOW, "13", "SIGKILL by its sentinel: preempted"],
        ["-", "worker:0", AGENT, "14", "STILL ALIVE"],
        ["-", "worker:0", PYTHON_WORKER, "12", "lives: Spark's, for its next tasks"],
    ]


def test_a_member_that_left_by_itself_is_told_from_one_that_was_killed() -> None:
    end = ExitReport(Cause.COMPLETED, exit_code=0)
    assert rows(replace(RUN, members=(replace(PS, exit=end),)))[1][4] == "left by itself: completed"
    assert rows(replace(RUN, members=(replace(PS, exit=None),)))[1][4] == "not reported"


def test_of_a_long_section_only_the_length_is_shown() -> None:
    log = "\n".join(f"line {number}" for number in range(30))
    story = f"run 'x' failed: ps:0 {'very ' * 40}ill\n\n--- Log ---\n{log}\n\n--- Files ---\n/tmp/x"
    first, *others = abbreviated(story).splitlines()
    assert first.startswith("  run 'x' failed: ps:0 very")
    assert len(first) <= 152
    assert others == ["  --- Log ---", "  (30 lines)", "  --- Files ---", "  /tmp/x"]


def test_a_port_is_free_when_nobody_holds_or_serves_it() -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        endpoint = Endpoint("127.0.0.1", holder.getsockname()[1])
        assert "not free" in why_not_free(endpoint)  # held, as an agent does
        holder.listen()
        assert "not free" in why_not_free(endpoint)
    assert why_not_free(endpoint) == ""
