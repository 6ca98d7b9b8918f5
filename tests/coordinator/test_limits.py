"""The numbers of the limits, and what slows down; pure."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from coordinator.limits import MIB, Limits, connections_within
from coordinator.rates import Bucket


def test_limits_are_read_from_texts() -> None:
    limits = Limits.parse(["runs=7", " message_bytes = 16MiB", "hello_timeout=2.5"])
    assert (limits.runs, limits.message_bytes, limits.hello_timeout) == (7, 16 * MIB, 2.5)
    assert Limits.parse([]) == Limits()


@pytest.mark.parametrize(
    "text, why",
    [
        ("runs", "write NAME=VALUE"),
        ("rums=1", "there is no limit 'rums'; there are: message_bytes"),
        ("runs=many", "give a number"),
        ("runs=1.5", "must be a whole number"),
        ("runs=0", "must be more than 0"),
        ("runs=-1", "must be more than 0"),
        ("runs=inf", "must be a whole number"),
        ("messages_per_second=nan", "must be more than 0"),
        ("runs=1KiB", "is no number of bytes"),
    ],
)
def test_a_limit_that_makes_no_sense_is_refused_with_what_to_write(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Limits.parse([text])


def test_a_limit_is_given_once() -> None:
    with pytest.raises(ValueError, match="given twice"):
        Limits.parse(["runs=1", "runs=2"])


def test_the_docs_list_the_limits_as_they_are() -> None:
    page = (Path(__file__).parents[2] / "docs" / "limits.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| (.*?) \|$", page, re.MULTILINE)
    assert rows == Limits.describe()


def test_connections_leave_room_for_other_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda _: (1_000, 1_000))
    assert connections_within(Limits()) == 1_000 - 128
    assert connections_within(Limits(connections=10)) == 10


def test_a_bucket_lets_a_burst_through_and_then_its_rate() -> None:
    bucket = Bucket(rate=10, burst=5, now=0.0)
    assert [bucket.take(1, 0.0) for _ in range(5)] == [0.0] * 5
    assert bucket.take(1, 0.0) == pytest.approx(0.1)
    assert bucket.take(1, 0.1) == pytest.approx(0.1)
    assert bucket.wait_for(5, 100.0) == 0.0  # full again, and no more than that
    assert bucket.wait_for(6, 100.0) == pytest.approx(0.1)
