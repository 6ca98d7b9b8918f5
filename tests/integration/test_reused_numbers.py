"""A process number that has passed to somebody else: the innocent is neither watched nor killed."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from executor_agent.core.story import SUPERVISION_LOG
from executor_agent.processes import ProcessIdentity
from tests.integration.sentinel_helpers import Member, identity_of_child, start_stand_in

pytestmark = pytest.mark.slow


@pytest.fixture
def member(tmp_path: Path) -> Iterator[Member]:
    member = Member(tmp_path)
    yield member
    member.close()


@pytest.fixture
def innocent() -> Iterator[subprocess.Popen[bytes]]:
    process = start_stand_in()
    yield process
    process.kill()
    process.wait()


@pytest.mark.parametrize("anchor", ["daemon", "executor"])
def test_who_has_got_an_anchors_number_is_not_the_anchor(
    member: Member, innocent: subprocess.Popen[bytes], anchor: str
) -> None:
    """O7: the anchor ended between its registration and our look, and its number was taken."""
    now = identity_of_child(innocent)
    was = ProcessIdentity(now.pid, now.create_time - 1)
    member.start(watch={anchor: was}, ready=False)
    tombstone = member.result()
    assert (tombstone.reason, tombstone.pid) == (f"{anchor} died", None)
    assert innocent.poll() is None
    story = (member.directory / SUPERVISION_LOG).read_text()
    assert f"{anchor} (pid {now.pid}) died, seen by its absence at our start" in story
