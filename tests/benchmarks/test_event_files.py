"""The figure ``event-files``: when a record was written is read from it, and what it says."""

from __future__ import annotations

import struct
import time
from pathlib import Path

from benchmarks.event_files import LATENCY_BOUND, Round, TimedFiles, result
from coordinator.core.file_values import Piece
from coordinator.core.model import IncarnationId, MemberId, Role
from coordinator.file_client import Origin

ORIGIN = Origin(MemberId(Role.WORKER, 0), IncarnationId("attempt"))


def record(written_at: float) -> bytes:
    event = b"\x09" + struct.pack("<d", written_at) + b"\x10\x07"
    return struct.pack("<QI", len(event), 0) + event + bytes(4)


def test_a_record_counts_when_it_is_there_as_a_whole(tmp_path: Path) -> None:
    files = TimedFiles(tmp_path)
    data = record(time.time() - 5.0) + record(time.time() - 1.0)
    files.take(ORIGIN, Piece("events", 0, 0, data[:-1]))
    assert len(files.delays) == 1
    assert files.delays[0] >= 5.0
    files.take(ORIGIN, Piece("events", 0, len(data) - 1, data[-1:]))
    assert len(files.delays) == 2
    assert files.delays[1] >= 1.0


def test_the_verdict_is_about_the_worst_of_all_rounds() -> None:
    good, late = Round([0.1, 0.2], 0.01, 0.0), Round([0.1, LATENCY_BOUND + 1], 0.06, 0.0)
    assert result([good], 8).verdict.count("met") == 2
    assert result([good, late], 8).verdict.count("MISSED") == 2
    assert result([good], 8).is_sound
    assert not result([Round([0.1], 0.01, 0.0, ["bytes are missing"])], 8).is_sound
