"""What `heartbeats` makes of its steps, and how its peers speak."""

from __future__ import annotations

import pickle
from dataclasses import replace

import pytest

from benchmarks import etcd, pickle_server
from benchmarks.heartbeat_steps import CROWDS, PROBES, Step, split
from benchmarks.heartbeats_result import PICKLES, Measured, ratios, result
from benchmarks.latency import bar, milliseconds, percentile

STEP = Step("tflease", 10_000, 3.0, 3_333.0, (0.001,) * 98 + (0.2, 0.3), 0, 0.5)


def test_percentiles_name_a_value_that_was_seen() -> None:
    assert percentile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert percentile([3.0, 1.0, 2.0], 1.0) == 3.0
    assert percentile([], 0.5) == float("inf")
    assert milliseconds([], 0.5) == "-"
    assert milliseconds([0.00123], 0.5) == "1.23"
    assert milliseconds([1.5], 0.5) == "1,500"


def test_a_curve_shows_where_it_leaves_the_picture() -> None:
    assert bar(0.5, 1.0, 10) == "█" * 5
    assert bar(1.2, 1.0, 10) == "█" * 9 + "▶"
    assert len(bar(1.0, 1.0, 10)) == 10


@pytest.mark.parametrize("count", [1, 2, 150, 1_000, 10_000])
def test_all_peers_are_played_and_probes_have_a_process_of_their_own(count: int) -> None:
    shares = split(count)

    assert sum(shares) == count
    assert shares[0] <= PROBES
    assert len(shares) <= 1 + CROWDS
    assert all(shares)


def test_the_promised_step_is_judged_by_latency_losses_and_memory() -> None:
    good = Measured(10_000, promised=STEP, curve=[STEP], bytes_per_member=44 * 1024)

    assert result(good).verdict.count(": met") == 2, "0.3 s is the p99 of a hundred"
    slow = replace(STEP, took=(0.001,) * 100)
    assert result(replace(good, promised=slow, curve=[slow])).verdict.count(": met") == 3
    lossy = replace(slow, lost=2)
    assert "MISSED (2)" in result(replace(good, promised=lossy, curve=[lossy])).verdict
    fat = replace(good, bytes_per_member=100 * 1024)
    assert "MISSED (100.0)" in result(fat).verdict
    assert "MISSED (100.0)" not in result(replace(fat, with_tls=True)).verdict


def test_others_are_compared_at_the_same_rhythm_only() -> None:
    mine = replace(STEP, peers=1_000, took=(0.002,), core=0.4)
    theirs = replace(mine, who="etcd", took=(0.001,), core=0.2)
    polled = replace(theirs, who=PICKLES, interval=1.0)

    assert ratios([mine, theirs, polled]) == ["etcd at 3 s: p99 2.0 of its, 2.0 of its core"]


def test_what_went_wrong_or_was_skipped_is_said() -> None:
    measured = Measured(10, skipped=["no etcd"], trouble=["cut off"])

    written = result(measured)

    assert written.verdict == "NOT MEASURED"
    assert not written.is_sound
    assert written.notes[-2:] == ("SKIPPED: no etcd", "WENT WRONG: cut off")


def test_pickles_are_taken_whole_and_in_order() -> None:
    data = bytearray(pickle_server.packed({"type": "QUERY"}) + pickle_server.packed([1]))
    half = bytearray(data[:9])

    assert pickle_server.unpacked(half) is None
    assert len(half) == 9, "what is not whole stays"
    assert pickle_server.unpacked(data) == {"type": "QUERY"}
    assert pickle_server.unpacked(data) == [1]
    assert pickle_server.unpacked(data) is None
    assert pickle.loads(pickle_server.packed(True)[4:]) is True


def test_messages_of_etcd_have_the_numbers_of_its_fields() -> None:
    assert etcd.GrantRequest(TTL=60).SerializeToString() == b"\x08\x3c"
    answer = etcd.KeepAliveResponse.FromString(b"\x0a\x02\x08\x01\x10\x07\x18\x3c")
    assert (answer.ID, answer.TTL) == (7, 60), "the header before them is passed over"
