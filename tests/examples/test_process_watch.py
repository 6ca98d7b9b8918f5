"""The example's watch over processes, on real ones."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from examples.process_watch import ProcessWatch, Watched

pytestmark = pytest.mark.slow  # a process that watches, and imports to do so


@pytest.fixture
def children() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Three processes that end only when they are killed."""
    started = [subprocess.Popen(["sleep", "1000"]) for _ in range(3)]
    yield started
    for each in started:
        each.kill()
        each.wait()


def test_ends_are_told_in_their_order_and_who_lives_is_not_among_them(
    children: list[subprocess.Popen[bytes]],
) -> None:
    names = ("first", "second", "survivor")
    with ProcessWatch(
        Watched.now(child.pid, name) for child, name in zip(children, names, strict=True)
    ) as watch:
        watch.kill(watch.watched[0])
        children[0].wait()
        children[1].kill()
        children[1].wait()
        ended = watch.stop()
    assert [each.part for each in ended] == ["first", "second"]
    assert 0 < ended[watch.watched[0]] < ended[watch.watched[1]]


def test_a_process_that_is_gone_cannot_be_watched(
    children: list[subprocess.Popen[bytes]],
) -> None:
    gone = Watched.now(children[0].pid, "gone")
    children[0].kill()
    children[0].wait()
    with pytest.raises(ProcessLookupError, match="gone"):
        Watched.now(children[0].pid, "gone")
    with pytest.raises(ProcessLookupError, match="No such process"):
        ProcessWatch([gone])


def test_leaving_early_ends_the_watching_process(children: list[subprocess.Popen[bytes]]) -> None:
    with ProcessWatch([Watched.now(children[0].pid, "child")]) as watch:
        pass
    assert watch._watcher.poll() is not None
    assert children[0].poll() is None  # and touches nobody
