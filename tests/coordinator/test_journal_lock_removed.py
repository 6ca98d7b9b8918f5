"""Whoever removes the lock lets another daemon in: the first must not write beside it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import pytest

from coordinator.journal import Journal, JournalUnusable

RECORD: Mapping[tuple[str, str], Mapping[str, int]] = {("run", "a"): {"n": 1}}


def test_a_journal_whose_lock_was_removed_is_not_written_any_more(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    with closing(Journal.open(path)) as first:
        first.write(RECORD, [], []).result(10)
        path.with_name("journal.sqlite.lock").unlink()
        with closing(Journal.open(path)) as second:
            with pytest.raises(JournalUnusable, match="end all but one"):
                first.write({("run", "a"): {"n": 2}}, [], []).result(10)
            assert second.load() == RECORD
