"""What `tflease leases` makes of UUIDs, holders and other people's texts."""

from __future__ import annotations

from dataclasses import replace

import pytest
import typer
from rich.console import Console

from coordinator.cli import connection, lease_tables, leases, run_json, run_tables
from coordinator.core import roster
from coordinator.core.gpu import LeaseState, LeaseToken, LeaseView
from coordinator.core.model import (
    MemberPhase,
    MemberView,
    Roles,
    RunId,
    RunPhase,
    RunSpec,
    RunView,
)

HELD = LeaseView(
    uuid="GPU-5b2c",
    state=LeaseState.HELD,
    hostname="one",
    boot_id="boot",
    name="NVIDIA H100 80GB HBM3",
    token=LeaseToken("12ab", 7),
    holder="run 3fa9 (mnist)",
    who="worker:0",
    since=60.0,
    expires_at=180.0,
)
FREE = replace(HELD, uuid="GPU-5b77", state=LeaseState.FREE, expires_at=None)
STUCK = replace(
    HELD, uuid="MIG-77aa", state=LeaseState.UNPROVEN, reason="somebody is there", pids=(7, 8)
)


def shown(*gpus: LeaseView) -> str:
    console = Console(width=200)
    with console.capture() as captured:
        console.print(lease_tables.all_gpus(gpus, now=120.0))
    return captured.get()


@pytest.mark.parametrize(
    "wanted, uuid",
    [("GPU-5b2c", "GPU-5b2c"), ("GPU-5b2", "GPU-5b2c"), ("5b7", "GPU-5b77"), ("77", "MIG-77aa")],
)
def test_a_gpu_is_chosen_by_the_beginning_of_its_uuid(wanted: str, uuid: str) -> None:
    assert leases.choose([HELD, FREE, STUCK], wanted).uuid == uuid


def test_exactly_that_one_wins_over_longer_ones() -> None:
    assert leases.choose([HELD, replace(HELD, uuid="GPU-5b2c9")], "5b2c").uuid == "GPU-5b2c"


@pytest.mark.parametrize("wanted, code", [("GPU-", 2), ("5b", 2), ("x", 3), ("", 3)])
def test_a_beginning_that_fits_none_or_several_is_refused(
    wanted: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as refused:
        leases.choose([HELD, FREE, STUCK], wanted)
    assert refused.value.exit_code == code
    said = capsys.readouterr().err
    assert code == connection.NO_SUCH_GPU or "GPU-5b2c on one, GPU-5b77 on one" in said


def test_the_table_says_who_has_it_or_had_it_last() -> None:
    _, held, free, stuck = shown(HELD, FREE, STUCK).splitlines()
    assert held.split()[:4] == ["GPU-5b2c", "held", "1", "min"]
    assert "NVIDIA H100 80GB HBM3" in held
    assert " worker:0 of run 3fa9 (mnist)" in held
    assert "last worker:0" not in held
    assert "worker:0" not in free, "whoever had it has it no more"
    assert "last worker:0 of run 3fa9 (mnist)" in stuck
    assert "somebody is there (pid 7, 8)" in stuck
    assert "no GPUs" in shown()


def test_a_holder_cannot_write_to_the_terminal() -> None:
    evil = replace(STUCK, holder="\x1b[2Jevil", reason="[red]x\x07", name="\x1b]0;n")
    for text in (shown(evil), lease_tables.one_line(evil)):
        assert "\x1b[2J" not in text
        assert "\x07" not in text
        assert "[red]x" in text


def test_json_has_null_for_what_does_not_apply() -> None:
    bare = LeaseView("GPU-x", LeaseState.FREE, "one", "boot")
    found = run_json.lease(bare)
    nulls = {key for key, value in found.items() if value is None}
    assert nulls == {"name", "holder", "who", "token", "expires_at", "reason"}
    assert run_json.lease(HELD)["token"] == "12ab/7"
    assert run_json.lease(HELD)["expires_at"] == "1970-01-01T00:03:00.000Z"


def test_a_run_shows_the_gpus_of_its_members_and_who_has_none_yet() -> None:
    spec = RunSpec(Roles(worker=2, ps=1), gpus=Roles(worker=2))
    first, *others = (
        MemberView(slot, MemberPhase.READY, phase_at=0.0) for slot in roster.members(spec.roles)
    )
    by_id = {str(each.id): each for each in (first, *others)}
    by_id["worker:0"] = replace(by_id["worker:0"], gpus=("GPU-a", "GPU-b"))
    by_id["worker:1"] = replace(by_id["worker:1"], gpu_obstacles=("GPU-c is held",))
    run = RunView(RunId("abc1"), spec, RunPhase.FORMING, 0, tuple(by_id.values()), 0.0, revision=1)
    console = Console(width=200)
    with console.capture() as captured:
        console.print(run_tables.one_run(run, now=60.0))
    text = captured.get()
    assert "GPUS" in text
    assert "GPU-a" in text
    assert "0/2" in text
    assert text.count("0/2") == 1, "ps:0 has asked for none"
    found = run_json.run_with_members(run)
    assert (found["gpus_total"], found["gpus_granted"]) == (4, 2)
    by_name = {member["id"]: member for member in found["members"]}
    assert by_name["worker:0"]["gpus"] == ["GPU-a", "GPU-b"]
    assert by_name["worker:1"]["gpu_obstacles"] == ["GPU-c is held"]


def test_a_run_without_gpus_has_no_column_for_them() -> None:
    spec = RunSpec(Roles(worker=1))
    [slot] = roster.members(spec.roles)
    member = MemberView(slot, MemberPhase.READY, phase_at=0.0)
    run = RunView(RunId("abc1"), spec, RunPhase.FORMING, 0, (member,), 0.0, revision=1)
    console = Console(width=200)
    with console.capture() as captured:
        console.print(run_tables.one_run(run, now=60.0))
    assert "GPUS" not in captured.get()
