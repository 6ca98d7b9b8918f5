"""What the commands that look at runs make of addresses, ids, times and other people's texts."""

from __future__ import annotations

from dataclasses import replace

import pytest
import typer
from rich.console import Console

from coordinator.cli import connection, place, run_json, run_tables
from coordinator.core import roster
from coordinator.core.model import (
    Cause,
    Failure,
    MemberId,
    MemberPhase,
    MemberView,
    Restart,
    Roles,
    RunId,
    RunPhase,
    RunSpec,
    RunView,
)


def run(run_id: str, name: str = "mnist", diagnosis: tuple[str, ...] = ()) -> RunView:
    spec = RunSpec(Roles(worker=2), name=name)
    members = tuple(
        MemberView(slot, MemberPhase.EXPECTED, phase_at=0.0) for slot in roster.members(spec.roles)
    )
    return RunView(
        RunId(run_id), spec, RunPhase.FORMING, 0, members, 0.0, revision=1, diagnosis=diagnosis
    )


@pytest.mark.parametrize(
    "text, address",
    [
        ("127.0.0.1:7787", ("127.0.0.1", 7787)),
        ("grpc://driver.example:1", ("driver.example", 1)),
        ("[::1]:7787", ("::1", 7787)),
        ("grpc://[::1]:0", ("::1", 0)),
        ("GRPC://driver.example:1/", ("driver.example", 1)),
        ("grpcs://[::1]:1/", ("::1", 1)),
    ],
)
def test_addresses_are_taken_with_and_without_a_scheme(text: str, address: object) -> None:
    assert connection.parse_address(text) == address


@pytest.mark.parametrize(
    "text",
    [
        "", "host", "host:", ":1", "h:70000", "h:-1", "http://h:1",
        "[::1", "::1:7787", "a:b:1", "[::1]", "a b:1", "h:1/", "h:" + "9" * 5000,
    ],
)  # fmt: skip
def test_what_is_no_address_is_refused_by_name(text: str) -> None:
    with pytest.raises(ValueError, match="HOST:PORT"):
        connection.parse_address(text)


def test_the_scheme_tells_whether_it_is_tls() -> None:
    assert connection.parse_address("grpcs://[::1]:7787") == ("::1", 7787)
    assert place.speaks_tls("grpcs://host:1")
    assert place.speaks_tls("GRPCS://host:1/")
    assert not place.speaks_tls("grpc://host:1")
    assert not place.speaks_tls("host:1")


def test_a_run_is_chosen_by_the_beginning_of_its_id() -> None:
    runs = [run("abc1"), run("abd2")]
    assert connection.choose(runs, "abd").run_id == "abd2"
    assert connection.choose([*runs, run("abc12")], "abc1").run_id == "abc1", "exactly that one"


@pytest.mark.parametrize(
    "wanted, code", [("ab", connection.USAGE), ("x", connection.NO_SUCH_RUN), ("", 3)]
)
def test_a_beginning_that_fits_none_or_several_is_refused(
    wanted: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as refused:
        connection.choose([run("abc1"), run("abd2")], wanted)
    assert refused.value.exit_code == code
    said = capsys.readouterr().err
    assert wanted in said
    assert code == connection.NO_SUCH_RUN or ("abc1" in said and "abd2" in said)


@pytest.mark.parametrize(
    "seconds, text",
    [(-5, "0 s"), (59.9, "59 s"), (60, "1 min"), (3600, "1 h 0 min"), (180_000, "2 d 2 h")],
)
def test_ages_have_one_or_two_units(seconds: float, text: str) -> None:
    assert run_tables.age(seconds) == text


def test_a_name_cannot_write_to_the_terminal() -> None:
    console = Console(width=200)
    with console.capture() as captured:
        console.print(run_tables.all_runs([run("abc1", "\x1b[2Jevil", ("[red]x",))], now=60.0))
        console.print(run_tables.one_run(run("abc1", "\x1b[2Jevil", ("[red]x",)), now=60.0))
    assert "\x1b[2J" not in captured.get()
    assert captured.get().count("evil") == 2
    assert captured.get().count("[red]x") == 2, "markup of theirs is text, too"


def test_times_in_json_are_utc_in_milliseconds() -> None:
    assert run_json.run_summary(run("abc1"))["created_at"] == "1970-01-01T00:00:00.000Z"


def restarted() -> RunView:
    restart = Restart(
        60.0, 1, Cause.KILLED_BY_SIGNAL, "worker:1 was killed", MemberId.parse("worker:1"), "a", 40
    )
    others = ("worker:0 was stopped", "generation 1, restarted at step 40: worker:1 was killed")
    failure = Failure(Cause.USER_EXCEPTION, "worker:1 raised it", others=others)
    told = {"restarts": (restart,), "restart_count": 1, "failure": failure}
    return replace(run("abc1"), **told, phase=RunPhase.FAILED, settled=True)


def test_a_run_is_shown_with_its_restarts_each_told_once() -> None:
    console = Console(width=200)
    with console.capture() as captured:
        console.print(run_tables.one_run(restarted(), now=60.0))
    shown = captured.get()
    assert "restart 1 (generation 1, step 40): worker:1 was killed" in shown
    assert "also: worker:0 was stopped" in shown
    assert shown.count("worker:1 was killed") == 1


def test_while_it_is_undecided_why_a_run_fails_no_restart_is_among_what_else_is_told() -> None:
    """Then a member that is stuck comes with where the others stand."""
    stands = tuple(f"worker:{number}: not late" for number in range(3))
    failure = Failure(Cause.STALLED, "worker:3 is stuck", others=stands)
    undecided = replace(restarted(), phase=RunPhase.STOPPING, settled=False, failure=failure)
    console = Console(width=200)
    with console.capture() as captured:
        console.print(run_tables.one_run(undecided, now=60.0))
    assert captured.get().count("also: worker:") == 3


def test_of_very_many_restarts_the_latest_are_shown() -> None:
    many = replace(restarted(), restarts=12 * restarted().restarts, restart_count=70, failure=None)
    console = Console(width=200)
    with console.capture() as captured:
        console.print(run_tables.one_run(many, now=60.0))
    assert "60 restarts before these:" in captured.get()
    assert "restart 61 (" in captured.get()
    assert "restart 70 (" in captured.get()


def test_restarts_in_json() -> None:
    assert run_json.run_summary(restarted())["restart_count"] == 1
    found = run_json.run_with_members(restarted())
    assert found["restart_at"] is None
    assert found["restarts"] == [
        {
            "at": "1970-01-01T00:01:00.000Z",
            "generation": 1,
            "cause": "killed by signal",
            "summary": "worker:1 was killed",
            "member": "worker:1",
            "host": "a",
            "step": 40,
            "alone": False,
        }
    ]
    assert run_json.run_with_members(replace(restarted(), restart_at=61.0))["restart_at"] == (
        "1970-01-01T00:01:01.000Z"
    )
