"""What `ingest` measures arrives, and what it makes of its samples."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import ingest
from benchmarks.ingest import OURS, THEIRS, UNCHECKED, WAYS, Sample


def test_all_ways_bring_all_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest, "FILES", 3)
    monkeypatch.setattr(ingest.machine, "settle", lambda: True)
    with ingest.server() as options:
        ingest._fill(options)
        for way in WAYS:
            sample = ingest.take(way, options, tmp_path / "to")
            assert not sample.trouble
            assert sample.seconds > 0
            assert not (tmp_path / "to").exists()


def test_the_checked_fetch_is_judged() -> None:
    samples = [Sample(THEIRS, 1.0, 0.5), Sample(OURS, 1.2, 1.0), Sample(UNCHECKED, 1.0, 0.6)]
    assert "met (83% with checksums, 100% without)" in ingest.result(samples).verdict
    slow = [*samples[:1], Sample(OURS, 1.3, 1.0), samples[2]]
    assert "MISSED (77% with" in ingest.result(slow).verdict
    assert not ingest.result([Sample(OURS, 1.0, 1.0, trouble="none came")]).is_sound
