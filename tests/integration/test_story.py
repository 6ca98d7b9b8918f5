"""The story of a member's end, read where an operator would read it: in its supervision.log."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from executor_agent.core.story import SUPERVISION_LOG
from executor_agent.processes import is_running
from tests.integration.sentinel_helpers import ALL, Member, wait_gone

pytestmark = pytest.mark.slow

NASTY = {"children": list(ALL), "ignore": True}


@pytest.fixture
def member(tmp_path: Path) -> Iterator[Member]:
    member = Member(tmp_path)
    yield member
    member.close()


@contextmanager
def stderr_is(fd: int) -> Iterator[None]:
    """What is started inside has this for its stderr, as an executor's is a pipe to its JVM."""
    inherited = os.dup(2)
    os.dup2(fd, 2)
    try:
        yield
    finally:
        os.dup2(inherited, 2)
        os.close(inherited)


@contextmanager
def pipe_that_nobody_reads() -> Iterator[int]:
    read_fd, write_fd = os.pipe()
    os.set_blocking(write_fd, False)
    for size in (4096, 1):
        try:
            while True:
                os.write(write_fd, b"f" * size)
        except BlockingIOError:
            pass
    os.set_blocking(write_fd, True)
    yield write_fd
    os.close(read_fd)
    os.close(write_fd)


def story(member: Member, who: str) -> str:
    """What this one has told, without moment and marker."""
    lines = (member.directory / SUPERVISION_LOG).read_text().splitlines()
    told = [re.fullmatch(rf"\S+Z \[{member.marker}\] (\w+): (.*)", line) for line in lines]
    return "\n".join(each[2] for each in told if each is not None and each[1] == who)


def test_the_story_says_who_died_who_noticed_and_what_was_signalled(member: Member) -> None:
    """O1, O4: one correlation id, from the task to the last descendant."""
    member.start(payload=NASTY, grace=0.2)
    member.kill("task")
    member.tombstone()
    who = {name: identity.pid for name, identity in member.processes.items()}
    assert f"pid {who['task']} started the sentinel (pid {who['sentinel']})" in story(
        member, "task"
    )
    told = story(member, "sentinel")
    assert f"and member (pid {who['member']}), watching task (pid {who['task']})" in told
    assert re.search(
        rf"^task \(pid {who['task']}\) died.*, seen by .*; stopping, grace 0.2 s$", told, re.M
    )
    assert f"SIGTERM to the member's group {who['member']} after 0." in told
    for name in ("member", *ALL):
        assert re.search(rf"^SIGKILL to .*\b{who[name]} \S+", told, re.M), name
    assert re.search(r"^all gone after \d\.\d{3} s \(proof: kernel\)$", told, re.M)


def test_the_members_log_begins_with_whose_it_is(member: Member) -> None:
    member.start()
    first = (member.directory / "member.log").read_text().splitlines()[0]
    pid, host = member.processes["member"].pid, os.uname().nodename
    assert first.endswith(f"Z [{member.marker}] member: pid {pid} on {host}")


@pytest.mark.parametrize("ends", ["killed task", "own end"])
def test_a_stderr_that_nobody_reads_holds_up_neither_the_start_nor_the_stop(
    member: Member, ends: str
) -> None:
    """O9: the executor's JVM is frozen and its pipe is full."""
    with pipe_that_nobody_reads() as full:
        with stderr_is(full):
            member.start(payload=NASTY if ends == "killed task" else {**NASTY, "exit": 3})
        if ends == "killed task":
            member.kill("task")
        wait_gone(member.tree())
        assert member.tombstone().proof == "kernel"
    assert "all gone after" in story(member, "sentinel")


def test_a_stderr_whose_reader_died_ends_nobody(member: Member) -> None:
    read_fd, write_fd = os.pipe()
    os.close(read_fd)
    with stderr_is(write_fd):
        member.start(payload=NASTY)
    os.close(write_fd)
    assert all(is_running(who) for who in member.tree())
    member.let_return()
    assert member.result().reason == "task let go of its lifeline"


def test_a_story_that_cannot_be_written_ends_nobody(member: Member) -> None:
    (member.directory / SUPERVISION_LOG).mkdir()
    member.start(payload=NASTY)
    member.let_return()
    assert member.result().proof == "kernel"


def test_a_killed_sentinels_story_is_finished_by_its_task(member: Member) -> None:
    """O10: what the task does in its stead is told as well."""
    member.start(payload=NASTY)
    member.wait_heard("started")
    member.kill("sentinel")
    member.result()
    told = story(member, "task")
    assert "sentinel ended without a tombstone; sweeping what it has left" in told
    assert re.search(r"sentinel was killed by signal 9: all gone after .*\(proof: sweep\)", told)


def test_the_life_of_a_healthy_member_takes_three_lines_of_stderr(member: Member) -> None:
    read_fd, write_fd = os.pipe()
    with stderr_is(write_fd):
        member.start(payload={"exit": 0})
        member.result()
        member.tombstone()
    os.close(write_fd)
    member.task.wait()
    with os.fdopen(read_fd, "rb") as file:
        assert len(file.read().splitlines()) == 3
    assert "exited with code 0; ending what it left" in story(member, "sentinel")


def test_the_file_is_for_our_user_alone(member: Member) -> None:
    member.start()
    member.kill("sentinel", number=signal.SIGTERM)
    member.result()
    assert (member.directory / SUPERVISION_LOG).stat().st_mode & 0o777 == 0o600
    assert "SIGTERM came in; stopping" in story(member, "sentinel")


def test_a_sentinel_that_fails_says_why_and_leaves_the_rest_to_its_task(member: Member) -> None:
    """Here its tombstone cannot be written."""
    member.start(payload=NASTY)
    (member.directory / "tombstone.json").mkdir()
    member.let_return()
    assert member.result().reason == "sentinel failed (1)"
    assert not any(is_running(who) for who in member.tree())
    told = story(member, "sentinel")
    assert "Traceback (most recent call last):" in told
    assert "IsADirectoryError" in told
