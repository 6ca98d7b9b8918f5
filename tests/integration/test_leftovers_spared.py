"""O7: whom a sweep of leftovers leaves alone: everybody who was not written down or marked, whoever
lives, and what another host or container has claimed."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from executor_agent import claims, leftovers
from executor_agent.core.claim import Claim, Standing
from executor_agent.core.supervision import (
    MARKER_VARIABLE,
    MEMBER_LOG,
)
from executor_agent.processes import ProcessIdentity, is_running, state_of
from tests.integration.leaving import claim_of, find, leave, reap_one, tombstone_of
from tests.integration.sentinel_helpers import (
    ALL,
    Member,
    identity_of_child,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


@pytest.fixture
def member(tmp_path: Path) -> Iterator[Member]:
    member = Member(tmp_path)
    yield member
    member.close()


@pytest.fixture
def start() -> Iterator[Callable[..., ProcessIdentity]]:
    """Starts something that is none of a member's; as subprocess.Popen."""
    with ExitStack() as cleanup:

        def begin(*command: str, **how: Any) -> ProcessIdentity:
            command = command or ("sleep", "600")
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, **how)
            cleanup.callback(process.wait)
            cleanup.callback(process.kill)
            return identity_of_child(process)

        yield begin


def plain(member: Member, start: Callable[..., ProcessIdentity]) -> ProcessIdentity:
    return start()


def reader(member: Member, start: Callable[..., ProcessIdentity]) -> ProcessIdentity:
    return start("tail", "-f", str(member.directory / MEMBER_LOG), stdout=subprocess.DEVNULL)


def writer_from_before(member: Member, start: Callable[..., ProcessIdentity]) -> ProcessIdentity:
    with open(member.directory / MEMBER_LOG, "ab") as log:
        return start(stdout=log)


def with_a_longer_marker(member: Member, start: Callable[..., ProcessIdentity]) -> ProcessIdentity:
    return start(env={**os.environ, MARKER_VARIABLE: f"{member.marker}0"})


def with_a_shorter_marker(member: Member, start: Callable[..., ProcessIdentity]) -> ProcessIdentity:
    return start(env={**os.environ, MARKER_VARIABLE: member.marker[:-1]})


@pytest.mark.parametrize(
    "innocent",
    [plain, reader, writer_from_before, with_a_longer_marker, with_a_shorter_marker],
)
def test_nobody_else_is_touched(
    member: Member,
    start: Callable[..., ProcessIdentity],
    innocent: Callable[..., ProcessIdentity],
) -> None:
    """O7."""
    (member.directory / MEMBER_LOG).touch()
    who = innocent(member, start)
    leave(member, "marked", "writer", "holder")
    reaped = reap_one(member)
    assert len(reaped.swept.killed) == 3
    assert is_running(who)
    assert state_of(who) == "runs"


def test_another_member_on_the_host_that_lives_is_left_alone(
    member: Member, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    other = Member(tmp_path / "other")
    other.claim = member.claim.parent / "other.json"
    try:
        other.start(payload={"children": list(ALL)})
        other.wait_heard("started")
        leave(member, "marked")
        survey = leftovers.survey(member.claim.parent)
        assert [each.marker for each in survey.leftovers] == [member.marker]
        assert (survey.living, survey.elsewhere) == (1, 0)
        unclaimed = leftovers.find_unclaimed(member.claim.parent)
        assert other.marker not in {each.marker for each in unclaimed}
        reap_one(member)
        assert all(is_running(who) for who in other.processes.values())
        other.let_return()
        assert other.result().proof == "kernel"
    finally:
        other.close()


def test_a_living_member_whose_claim_was_removed_is_no_leftover(member: Member) -> None:
    member.start(payload={"children": list(ALL)})
    member.wait_heard("started")
    member.claim.unlink()
    unclaimed = leftovers.find_unclaimed(member.claim.parent)
    assert member.marker not in {each.marker for each in unclaimed}
    member.let_return()
    assert member.result().proof == "kernel"


def test_a_number_that_has_passed_to_somebody_else_is_not_killed(
    member: Member, start: Callable[..., ProcessIdentity]
) -> None:
    """O7: the claim has the right pids and other start times."""
    leave(member, "marked")
    agent, sentinel = start(), start()
    claim = claim_of(member)
    processes = {
        **claim.processes,
        "sentinel": (sentinel.pid, sentinel.create_time - 1),
        "agent": (agent.pid, agent.create_time - 1),
    }
    member.claim.write_text(claim.replace(processes=processes).to_json())
    reaped = reap_one(member)
    assert list(reaped.swept.killed) == [member.processes["marked"]]
    assert is_running(agent)
    assert is_running(sentinel)


def test_a_number_that_passes_on_between_the_look_and_the_signal_is_not_killed(
    member: Member, start: Callable[..., ProcessIdentity]
) -> None:
    leave(member, "traceless")
    who = start()
    [leftover] = find(member)
    assert leftover.claim is not None
    stale = {**leftover.claim.processes, "member": (who.pid, who.create_time + 1)}
    leftover = replace(leftover, claim=leftover.claim.replace(processes=stale))
    assert leftovers.reap(leftover, by="a test").swept.killed == {}
    assert is_running(who)
    member.kill("traceless")


# Claims of another time and of another place.


def forged(member: Member, victim: ProcessIdentity, **changes: Any) -> None:
    """A claim without a living sentinel that names this process as the member's."""
    claim = Claim(
        member="worker:1",
        run_id="run",
        incarnation="1",
        marker=member.marker,
        directory=str(member.directory),
        boot_id=claims.here().boot_id,
        claimed_at=0.0,
        processes={"member": (victim.pid, victim.create_time)},
        anchors={},
        pipe=1,
        host=claims.here().host,
        namespace=claims.here().namespace,
    )
    member.claim.write_text(claim.replace(**changes).to_json())


def test_a_claim_of_an_earlier_boot_is_removed_and_nobody_is_signalled(
    member: Member, start: Callable[..., ProcessIdentity]
) -> None:
    """O14: after a reboot the numbers are other processes'."""
    who = start(env={**os.environ, MARKER_VARIABLE: member.marker})
    forged(member, who, boot_id="the one before")
    [leftover] = find(member)
    assert (leftover.processes, leftover.why) == ((), Standing.EARLIER_BOOT.value)
    assert reap_one(member).swept.killed == {}
    assert is_running(who)
    assert not member.claim.exists()
    assert tombstone_of(member).proof == "sweep"


@pytest.mark.parametrize(
    "elsewhere",
    [{"boot_id": "theirs", "host": "theirs"}, {"namespace": 1}],
    ids=["another host", "another container"],
)
def test_a_claim_of_another_host_or_container_that_shares_the_directory_is_left_alone(
    member: Member, start: Callable[..., ProcessIdentity], elsewhere: dict[str, Any]
) -> None:
    """Its processes cannot be seen from here: that they are gone is not known."""
    who = start()
    forged(member, who, **elsewhere)
    (member.directory / "local").mkdir()
    survey = leftovers.survey(member.claim.parent)
    assert (survey.leftovers, survey.living, survey.elsewhere) == ((), 0, 1)
    leftovers.reap_all(member.claim.parent, by="a test", say=pytest.fail)
    assert is_running(who)
    assert member.claim.exists()
    assert [path.name for path in member.directory.iterdir()] == ["local"]
