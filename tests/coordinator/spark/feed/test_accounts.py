"""The books of one epoch, and the words that are drawn from them."""

from __future__ import annotations

import pytest

from coordinator.core.errors import FeedMiscounted
from coordinator.spark.feed import accounts
from coordinator.spark.feed.accounts import Closed, FeederRow
from coordinator.spark.feed.report import EpochReport, FeedReport
from tests.coordinator.spark.feed.fake_feeding import row


def closed(**rows: int) -> Closed:
    return Closed(None, {name.replace("_", ":"): count for name, count in rows.items()}, 0)


def test_a_partition_that_two_tasks_delivered_is_named() -> None:
    """F2: speculation, for instance, of which the setting says nothing."""
    rows = [FeederRow(0, 5), FeederRow(4, 5), FeederRow(4, 5)]
    with pytest.raises(FeedMiscounted, match=r"epoch 2: partitions \[4\] were delivered by two"):
        accounts.settle(2, rows, closed(worker_0=15), 1.0, deterministic=True)


def test_a_row_is_read_as_its_feeder_returned_it() -> None:
    found = FeederRow.of(row(3, 5, skipped=2, stopped="enough"))
    assert found == FeederRow(3, 5, skipped=2, bytes=50, stopped="enough", workers={"worker:0": 5})


def test_the_numbers_of_a_stopped_train_are_missing_without_harm() -> None:
    found = Closed.of({"ok": True, "steps": None, "rows": {}, "left_out": 0, "stopped": "enough"})
    assert (found.total, found.stopped) == (0, "enough")


REPORT = FeedReport(
    "input",
    (
        EpochReport(1, 1_000_000, 2.0, 500, 12, {"worker:0": 500_000, "worker:1": 500_000}, 24_000),
        EpochReport(2, 1_000_000, 2.0, 500, 12, {f"worker:{i}": 100_000 for i in range(10)}),
    ),
    4.0,
)


def test_a_report_is_a_short_table() -> None:
    head, names, first, second = str(REPORT).splitlines()
    assert head == ("feed 'input': 2,000,000 rows (24.0 kB) in 4.0 s, 500,000 rows/s, exactly once")
    assert " ".join(names.split()) == "epoch rows steps left out seconds rows by member"
    assert first.split()[:5] == ["1", "1,000,000", "500", "12", "2.0"]
    assert first.endswith("worker:0 500,000, worker:1 500,000")
    assert second.endswith("worker:7 100,000, and 2 more")


def test_a_report_says_why_it_ended_early_and_what_may_have_come_twice() -> None:
    text = str(FeedReport("x", (EpochReport(1, 9, 1.0, again=4),), 2.0, "enough", 3))
    assert text.startswith("feed 'x': 12 rows (0 B) in 2.0 s, 6 rows/s, at least once: 4 rows may")
    assert text.partition("\n")[0].endswith("; stopped: enough")


def test_a_notebook_shows_no_markup_of_others() -> None:
    shown = FeedReport("x", (), 0.0, "<script>")._repr_html_()
    assert "&lt;script&gt;" in shown
    assert "<script>" not in shown
    assert REPORT._repr_html_().count("<tr>") == 3
