"""Where a member's files live: ours alone, and not for ever."""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path

import pytest

from executor_agent import claims, member_directory
from executor_agent.bootstrap import OUTCOME_FILE, RESULT_FILE
from executor_agent.core.claim import Claim
from executor_agent.core.outcome import Outcome, Status
from executor_agent.core.supervision import LOCAL_DIRECTORY
from executor_agent.linux import boot_id
from executor_agent.member_directory import UnsafeDirectory, create, home, read_outcome, take_result


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    base = tmp_path / "deep" / "home"
    monkeypatch.setenv(member_directory.HOME_VARIABLE, str(base))
    return base


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def age(path: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))


def test_every_level_is_for_this_user_alone(base: Path) -> None:
    directory = create("run", "worker:1", "7-abc")
    assert directory == base / "run" / "worker-1.7-abc"
    for path in (base, base / "run", directory, directory / LOCAL_DIRECTORY):
        assert mode(path) == 0o700, path


def test_without_a_setting_it_is_in_the_temporary_directory_by_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(member_directory.HOME_VARIABLE, raising=False)
    monkeypatch.setattr(member_directory.tempfile, "gettempdir", lambda: str(tmp_path))
    assert home() == tmp_path / f"tflease-{os.geteuid()}"


def test_two_incarnations_never_share_a_directory(base: Path) -> None:
    """R3, R4."""
    assert create("run", "worker:1", "a") != create("run", "worker:1", "b")
    with pytest.raises(FileExistsError):
        create("run", "worker:1", "a")


def test_a_directory_that_others_may_enter_is_refused(base: Path) -> None:
    base.mkdir(parents=True)
    base.chmod(0o755)
    with pytest.raises(UnsafeDirectory, match="mode 0700"):
        create("run", "worker:0", "1")


def test_a_foreign_directory_is_refused(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody made /tmp/tflease-<uid> before us: a tombstone in there could be a lie."""
    base.mkdir(parents=True, mode=0o700)
    ours = os.geteuid()
    monkeypatch.setattr(member_directory.os, "geteuid", lambda: ours + 1)
    with pytest.raises(UnsafeDirectory, match=f"uid {ours + 1}"):
        home()


def test_a_symbolic_link_is_refused(base: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    base.parent.mkdir()
    base.symlink_to(elsewhere)
    with pytest.raises(UnsafeDirectory):
        home()


def test_a_file_in_its_place_is_an_error_and_not_removed(base: Path) -> None:
    base.parent.mkdir()
    base.write_text("mine")
    with pytest.raises(OSError, match="exists"):
        home()
    assert base.read_text() == "mine"


def old_run(base: Path, name: str = "old") -> Path:
    directory = create(name, "worker:0", "1")
    for path in (*directory.iterdir(), directory, directory.parent):
        age(path, member_directory.KEPT_SECONDS + 60)
    return directory


def test_what_runs_of_long_ago_have_left_is_removed(base: Path) -> None:
    """O14."""
    old_run(base)
    create("new", "worker:0", "1")
    assert {path.name for path in base.iterdir()} == {"claims", "new"}


def test_recent_runs_are_kept(base: Path) -> None:
    kept = create("recent", "worker:0", "1")
    age(kept.parent, member_directory.KEPT_SECONDS + 60)  # the member's own is younger
    create("new", "worker:0", "1")
    assert kept.exists()


def claim_of(directory: Path, boot: str, host: str = claims.here().host) -> Path:
    path = member_directory.claim_of(directory)
    path.parent.mkdir(mode=0o700, exist_ok=True)
    claim = Claim("worker:0", "old", "1", "m", str(directory), boot, 0.0, {}, {}, 0, host=host)
    path.write_text(claim.to_json())
    return path


def test_what_is_claimed_keeps_its_files(base: Path) -> None:
    """O14. The log of a training of weeks grows, but the date of its directory is that of the
    start; and what is still to be swept is claimed as well."""
    directory = old_run(base)
    claim = claim_of(directory, boot_id())
    create("new", "worker:0", "1")
    assert directory.exists()
    claim.unlink()
    create("newer", "worker:0", "1")
    assert not directory.exists()


def test_a_claim_of_an_earlier_boot_keeps_nothing(base: Path) -> None:
    """R10: its numbers are others' by now."""
    directory = old_run(base)
    claim_of(directory, "another boot")
    create("new", "worker:0", "1")
    assert not directory.exists()


def test_what_was_claimed_on_another_host_is_kept_for_as_long_as_it_writes(base: Path) -> None:
    """A home may be shared. Of a pod that is gone nobody else takes the claim away."""
    directory = old_run(base)
    log = directory / "member.log"
    log.touch()
    claim = claim_of(directory, "another boot", "another host")
    create("new", "worker:0", "1")
    assert directory.exists()
    age(log, member_directory.KEPT_SECONDS + 60)
    age(directory, member_directory.KEPT_SECONDS + 60)
    create("newer", "worker:0", "1")
    assert not directory.exists()
    assert not claim.exists()


def test_what_else_somebody_keeps_there_is_left_alone(base: Path) -> None:
    """The home may have been set to a folder that holds more than ours."""
    chapter = home() / "thesis" / "chapters" / "1.tex"
    chapter.parent.mkdir(parents=True)
    chapter.touch()
    for path in (chapter, chapter.parent, chapter.parent.parent):
        age(path, member_directory.KEPT_SECONDS + 60)
    create("new", "worker:0", "1")
    assert chapter.exists()


def test_claims_are_for_this_user_alone(base: Path) -> None:
    claim = member_directory.claim_of(create("run", "worker:1", "7-abc"))
    assert claim == base / "claims" / "run.worker-1.7-abc.json"
    assert mode(claim.parent) == 0o700


def test_a_stray_file_does_not_end_the_tidying_up(base: Path) -> None:
    for name in ("a", "b"):
        old_run(base, name)
    (base / "0-stray").touch()
    create("new", "worker:0", "1")
    assert {path.name for path in base.iterdir()} == {"0-stray", "claims", "new"}


def test_an_outcome_is_read_and_a_broken_one_is_none(tmp_path: Path) -> None:
    assert read_outcome(tmp_path) is None
    (tmp_path / OUTCOME_FILE).write_text(Outcome(Status.RETURNED).dumps())
    assert read_outcome(tmp_path) == Outcome(Status.RETURNED)
    for broken in (b"", b"{", b"[]", b"\xff", b'{"status": "?"}'):
        (tmp_path / OUTCOME_FILE).write_bytes(broken)
        assert read_outcome(tmp_path) is None


def test_a_result_is_taken_once(tmp_path: Path) -> None:
    (tmp_path / RESULT_FILE).write_bytes(b"pickled")
    assert take_result(tmp_path) == b"pickled"
    assert take_result(tmp_path) is None
