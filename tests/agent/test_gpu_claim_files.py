"""What stands in the files of claims, or was put there, and which tokens they refuse."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from coordinator.core.gpu import LeaseToken
from executor_agent.gpu_claims import ClaimRefused, HostClaims

GPU = "GPU-00000001-aaaa-bbbb-cccc-000000000001"


@pytest.fixture
def claims(tmp_path: Path) -> HostClaims:
    return HostClaims(tmp_path / "claims")


def token(number: int = 1, coordinator_id: str = "c1") -> LeaseToken:
    return LeaseToken(coordinator_id, number)


def is_free(claims: HostClaims) -> bool:
    try:
        claims.check_free(GPU)
    except ClaimRefused:
        return False
    return True


def holder(claims: HostClaims) -> ClaimRefused:
    with pytest.raises(ClaimRefused) as refused:
        claims.check_free(GPU)
    return refused.value


# -- what somebody may have put there ------------------------------------------------------


def test_a_link_is_not_followed(claims: HostClaims, tmp_path: Path) -> None:
    """O_NOFOLLOW: the directory is everybody's."""
    precious = tmp_path / "precious"
    precious.write_text("keep me")
    claims.directory.mkdir()
    for make in (os.symlink, os.link):
        make(precious, claims.path(GPU))
        with pytest.raises(ClaimRefused, match=r"claim file"):
            claims.claim(GPU, token(), "me", 0)
        claims.path(GPU).unlink()
    assert precious.read_text() == "keep me"


def test_what_is_no_file_is_refused_and_hangs_nobody(claims: HostClaims) -> None:
    claims.directory.mkdir()
    os.mkfifo(claims.path(GPU))
    with pytest.raises(ClaimRefused, match="is no claim file; remove it"):
        claims.claim(GPU, token(), "me", 0)
    claims.path(GPU).unlink()
    claims.path(GPU).mkdir()
    with pytest.raises(ClaimRefused, match="cannot be used: Is a directory"):
        claims.claim(GPU, token(), "me", 0)
    assert claims.last(GPU) is None


def test_a_directory_that_is_none_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ClaimRefused, match="TFLEASE_GPU_CLAIMS name another one"):
        HostClaims(tmp_path / "file").claim(GPU, token(), "me", 0)
    with pytest.raises(ClaimRefused, match="is no directory, or a link"):
        HostClaims(tmp_path / "link").claim(GPU, token(), "me", 0)


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\0" * 100, b"{", b"[]", b"null", b'"text"', b"\xff\xfe", b"[" * 50_000,
        b'{"tokens": 3, "who": 5}', b'{"tokens": {"c1": "9"}, "who": "x", "since": "now"}',
        b'{"who": "x", "since": 1e400, "baseline": -1}', b"x" * 200_000,
    ],
)  # fmt: skip
def test_garbage_in_a_file_is_ignored_and_replaced(claims: HostClaims, content: bytes) -> None:
    claims.directory.mkdir()
    claims.path(GPU).write_bytes(content)
    assert is_free(claims)
    fd = claims.claim(GPU, token(), "me", 7)
    last = claims.last(GPU)
    assert last is not None
    assert (last.who, last.baseline) == ("me", 7)
    claims.path(GPU).write_bytes(content)  # while it is held
    assert holder(claims).holder
    os.close(fd)


def test_a_longer_content_that_was_not_cut_off_does_no_harm(claims: HostClaims) -> None:
    """Its writer was killed in between."""
    os.close(claims.claim(GPU, token(4), "me", 7))
    with claims.path(GPU).open("ab") as file:
        file.write(b'older and longer"}')
    with pytest.raises(ClaimRefused, match="too old"):
        claims.claim(GPU, token(4), "me", 7)


def test_a_file_that_was_removed_is_made_anew(claims: HostClaims) -> None:
    """By whatever tidies up temporary files."""
    os.close(claims.claim(GPU, token(1), "me", 0))
    shutil.rmtree(claims.directory)
    assert claims.last(GPU) is None
    os.close(claims.claim(GPU, token(1), "me", 0))


def test_a_file_that_is_replaced_while_somebody_waits_for_it_is_not_locked(
    claims: HostClaims,
) -> None:
    """G2: two would have it, each its own file."""
    fd = claims.claim(GPU, token(1), "me", 0)
    claims.path(GPU).unlink()
    other = claims.claim(GPU, token(1), "another", 0)  # the first one's protection is gone
    os.close(fd)
    assert holder(claims).holder.startswith("another")
    os.close(other)
    assert is_free(claims)


# -- tokens and memory ---------------------------------------------------------------------


def test_a_token_that_is_too_old_is_refused(claims: HostClaims) -> None:
    os.close(claims.claim(GPU, token(5), "me", 0))
    for number in (1, 5):
        with pytest.raises(ClaimRefused, match=rf"the lease c1/{number} is too old"):
            claims.claim(GPU, token(number), "me", 0)
    os.close(claims.claim(GPU, token(1, "c2"), "of another coordinator", 0))
    os.close(claims.claim(GPU, token(6), "me", 0))


def test_a_fence_refuses_all_that_is_older(claims: HostClaims) -> None:
    """O11: what was reported free must not be claimed by a command that was late."""
    claims.fence(GPU, "c1", 7)
    with pytest.raises(ClaimRefused, match="too old"):
        claims.claim(GPU, token(7), "late", 0)
    claims.fence(GPU, "c1", 3)  # an older one takes nothing back
    with pytest.raises(ClaimRefused, match="too old"):
        claims.claim(GPU, token(6), "late", 0)
    fd = claims.claim(GPU, token(8), "me", 0)
    with pytest.raises(ClaimRefused, match="me "):
        claims.fence(GPU, "c1", 9)
    os.close(fd)


def test_a_fence_leaves_the_memory_of_the_last_claim(claims: HostClaims) -> None:
    os.close(claims.claim(GPU, token(1), "me", 123))
    before = claims.last(GPU)
    claims.fence(GPU, "c2", 7)
    assert claims.last(GPU) == before
    assert before is not None
    assert before.baseline == 123


def test_the_memory_of_an_earlier_boot_is_forgotten_its_tokens_are_not(claims: HostClaims) -> None:
    os.close(claims.claim(GPU, token(5), "me", 123))
    content = json.loads(claims.path(GPU).read_text()) | {"boot_id": "another"}
    claims.path(GPU).write_text(json.dumps(content))
    last = claims.last(GPU)
    assert last is not None
    assert last.baseline is None
    with pytest.raises(ClaimRefused, match="too old"):
        claims.claim(GPU, token(5), "me", 0)


def test_the_tokens_of_many_coordinators_do_not_grow_without_end(claims: HostClaims) -> None:
    for number in range(300):
        claims.fence(GPU, f"coordinator-{number}", 1)
    assert claims.path(GPU).stat().st_size < 1 << 16
    with pytest.raises(ClaimRefused, match="too old"):
        claims.claim(GPU, token(1, "coordinator-299"), "late", 0)


def test_a_uuid_cannot_name_another_place(claims: HostClaims) -> None:
    for uuid in ("MIG-GPU-aa/1/0", "../../etc/passwd", "."):
        path = claims.path(uuid)
        assert path.parent == claims.directory
        os.close(claims.claim(uuid, token(), "me", 0))
        assert path.is_file()
