"""What an agent has to deliver: at least once, in order, and the fence clock counts sendings."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from executor_agent.core.outbox import Numbered, Outbox


@pytest.fixture
def outbox() -> Outbox[str]:
    return Outbox(100.0)


def test_reports_go_out_once_and_in_order(outbox: Outbox[str]) -> None:
    outbox.add("ready")
    outbox.add("running")
    assert outbox.take(101.0) == [Numbered(1, "ready"), Numbered(2, "running")]
    assert outbox.take(102.0) == []
    assert not outbox.is_delivered


def test_an_acknowledgement_covers_all_before_it(outbox: Outbox[str]) -> None:
    for report in ("a", "b", "c"):
        outbox.add(report)
    outbox.take(101.0)
    outbox.acknowledge(2)
    assert not outbox.is_delivered
    outbox.acknowledge(3)
    assert outbox.is_delivered


def test_a_new_session_sends_again_what_was_not_acknowledged(outbox: Outbox[str]) -> None:
    outbox.add("ready")
    outbox.add("running")
    outbox.take(101.0)
    outbox.acknowledge(1)
    outbox.rewind()
    outbox.add("ended")
    assert outbox.take(102.0) == [Numbered(2, "running"), Numbered(3, "ended")]


def test_what_was_not_even_sent_goes_out_once_in_a_new_session(outbox: Outbox[str]) -> None:
    outbox.add("ready")
    outbox.rewind()
    assert outbox.take(101.0) == [Numbered(1, "ready")]


def test_of_replaceable_reports_only_the_latest_goes_out(outbox: Outbox[str]) -> None:
    outbox.add("step 1", replaceable=True)
    outbox.add("ready")
    outbox.add("step 2", replaceable=True)
    assert outbox.take(101.0) == [Numbered(1, "step 2"), Numbered(2, "ready")]


def test_only_one_of_its_own_kind_is_replaced() -> None:
    """Progress does not void what was said about GPUs."""
    outbox: Outbox[str | int | float] = Outbox(0.0)
    for report in ("claimed 1", 1, "claimed 2", 2.5, 2):
        outbox.add(report, replaceable=True)
    assert outbox.take(1.0) == [Numbered(1, "claimed 2"), Numbered(2, 2), Numbered(3, 2.5)]


def test_a_replaceable_report_that_was_sent_is_not_replaced(outbox: Outbox[str]) -> None:
    outbox.add("step 1", replaceable=True)
    outbox.take(101.0)
    outbox.add("step 2", replaceable=True)
    assert outbox.take(102.0) == [Numbered(2, "step 2")]


def test_a_beat_is_sent_only_when_nothing_else_is(outbox: Outbox[str]) -> None:
    outbox.beat()
    outbox.beat()
    assert outbox.take(101.0) == [Numbered(1, None)]
    outbox.add("ready")
    outbox.beat()
    assert outbox.take(102.0) == [Numbered(2, "ready")]


def test_a_beat_is_never_repeated(outbox: Outbox[str]) -> None:
    outbox.beat()
    outbox.take(101.0)
    outbox.rewind()
    assert outbox.take(102.0) == []
    assert outbox.is_delivered


def test_the_fence_counts_from_the_sending_of_what_was_acknowledged(outbox: Outbox[str]) -> None:
    """O13: only that proves that the coordinator could hear us at that time."""
    assert outbox.proven_at == 100.0
    outbox.beat()
    outbox.take(101.0)
    outbox.beat()
    outbox.take(104.0)
    assert outbox.proven_at == 100.0
    outbox.acknowledge(1)
    assert outbox.proven_at == 101.0
    outbox.acknowledge(2)
    assert outbox.proven_at == 104.0


def test_a_late_acknowledgement_never_moves_the_fence_back(outbox: Outbox[str]) -> None:
    outbox.beat()
    outbox.take(101.0)
    outbox.proven_at = 500.0
    outbox.acknowledge(1)
    assert outbox.proven_at == 500.0


def test_what_an_earlier_session_sent_proves_nothing_in_the_next(outbox: Outbox[str]) -> None:
    outbox.add("ready")
    outbox.take(101.0)
    outbox.rewind()
    outbox.take(150.0)
    outbox.acknowledge(1)
    assert outbox.proven_at == 150.0


def test_the_acknowledgement_of_a_hello_proves_nothing(outbox: Outbox[str]) -> None:
    outbox.add("ready")
    outbox.take(101.0)
    outbox.acknowledge(0)
    assert not outbox.is_delivered
    assert outbox.proven_at == 100.0


STEPS = st.lists(
    st.sampled_from(["add", "progress", "beat", "take", "acknowledge all", "rewind"]), max_size=40
)


@given(STEPS)
def test_whatever_happens_every_report_arrives_and_in_order(steps: list[str]) -> None:
    outbox: Outbox[str] = Outbox(0.0)
    added: list[str] = []
    arrived: list[str] = []
    highest = now = 0

    def send() -> None:
        nonlocal highest
        taken = outbox.take(float(now))
        assert [each.sequence for each in taken] == sorted({each.sequence for each in taken})
        for each in taken:
            highest = max(highest, each.sequence)
            if each.report is not None:
                arrived.append(each.report)

    for now, step in enumerate(steps, start=1):
        match step:
            case "add":
                added.append(f"report {now}")
                outbox.add(added[-1])
            case "progress":
                outbox.add(f"step {now}", replaceable=True)
            case "beat":
                outbox.beat()
            case "take":
                send()
            case "acknowledge all":
                outbox.acknowledge(highest)
            case "rewind":
                outbox.rewind()
    outbox.rewind()
    send()
    outbox.acknowledge(highest)
    assert outbox.is_delivered
    first_arrivals = [report for report in dict.fromkeys(arrived) if report in added]
    assert first_arrivals == added
