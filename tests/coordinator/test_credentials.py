"""The token's file: found by one rule, made for its user alone, refused when others may read it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from coordinator import credentials
from coordinator.core.access import Principal, Role
from coordinator.core.errors import Unauthenticated
from coordinator.security import Keyring


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text("secret\n")
    path.chmod(0o600)
    return path


@pytest.mark.parametrize(
    "environment, path",
    [
        ({"TFLEASE_TOKEN_FILE": "/etc/token"}, "/etc/token"),
        ({"TFLEASE_TOKEN_FILE": "~/token", "XDG_CONFIG_HOME": "/config"}, "/users/me/token"),
        ({"XDG_CONFIG_HOME": "/config"}, "/config/tflease/token"),
        ({"XDG_CONFIG_HOME": "config"}, "/users/me/.config/tflease/token"),
        ({"XDG_CONFIG_HOME": ""}, "/users/me/.config/tflease/token"),
        ({}, "/users/me/.config/tflease/token"),
    ],
)
def test_it_is_found_by_one_rule(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], path: str
) -> None:
    for name in ("TFLEASE_TOKEN_FILE", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HOME": "/users/me", **environment}.items():
        monkeypatch.setenv(name, value)
    assert credentials.default_token_path() == Path(path)


def test_a_file_of_ones_own_is_read(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert credentials.read_token(file) == credentials.read_token(str(file)) == "secret"
    monkeypatch.setenv("TFLEASE_TOKEN_FILE", str(file))
    assert credentials.read_token() == "secret"


def test_a_link_to_such_a_file_will_do(file: Path, tmp_path: Path) -> None:
    """As Kubernetes mounts secrets."""
    (tmp_path / "link").symlink_to(file)
    assert credentials.read_token(tmp_path / "link") == "secret"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610, 0o644])
def test_a_file_that_others_have_a_hand_in_is_refused(file: Path, mode: int) -> None:
    file.chmod(mode)
    with pytest.raises(Unauthenticated, match=f"mode {mode:04o}.*chmod 600 {file}"):
        credentials.read_token(file)


def test_a_file_of_somebody_else_is_refused(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: file.stat().st_uid + 1)
    with pytest.raises(Unauthenticated, match="belongs to another user"):
        credentials.read_token(file)


def test_a_missing_file_is_named_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(Unauthenticated) as caught:
        credentials.read_token(tmp_path / "none")
    text = str(caught.value)
    assert str(tmp_path / "none") in text
    assert "tflease serve" in text
    assert caught.value.metadata == {"path": str(tmp_path / "none")}


@pytest.mark.parametrize(
    "content, complaint",
    [
        (b"", "is empty"),
        (b" \n\n", "is empty"),
        (b"two words\n", "one line of text without spaces"),
        (b"two\nlines\n", "one line of text without spaces"),
        (b"na\xc3\xafve\n", "one line of text"),
        (b"\x00\xff", "one line of text"),
        (b"x" * 5000, "longer than 4096 bytes"),
    ],
)
def test_a_file_without_a_token_is_refused(file: Path, content: bytes, complaint: str) -> None:
    file.write_bytes(content)
    with pytest.raises(Unauthenticated, match=complaint) as caught:
        credentials.read_token(file)
    assert "xxx" not in str(caught.value)  # whatever it is, it may be a secret


def test_what_is_no_file_is_refused_and_nobody_waits(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(Unauthenticated, match="is no regular file"):
        credentials.read_token(tmp_path / "pipe")
    with pytest.raises(Unauthenticated, match="is no regular file"):
        credentials.read_token(tmp_path)
    with pytest.raises(Unauthenticated, match="cannot be read: Not a directory"):
        credentials.read_token(Path(__file__) / "token")


def test_a_new_file_is_for_its_user_alone(tmp_path: Path) -> None:
    path = tmp_path / "config" / "tflease" / "token"
    before = os.umask(0)
    try:
        token = credentials.create_token_file(path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert len(token) >= 32
    assert credentials.read_token(path) == token


def test_a_file_that_is_there_stays(file: Path) -> None:
    assert credentials.create_token_file(file) == "secret"
    assert file.read_text() == "secret\n"


def test_a_file_that_is_there_and_unfit_is_neither_used_nor_replaced(file: Path) -> None:
    file.chmod(0o644)
    with pytest.raises(Unauthenticated, match="can be read or written by others"):
        credentials.create_token_file(file)
    assert file.read_text() == "secret\n"


def test_a_place_where_none_can_be_made_is_named(file: Path) -> None:
    with pytest.raises(Unauthenticated, match="cannot be made"):
        credentials.create_token_file(file / "token")


@pytest.mark.parametrize("role", [Role.SUBMITTER, Role.READER, Role.OWNER, Role.AGENT])
def test_a_token_that_was_made_for_somebody_becomes_no_operators(file: Path, role: Role) -> None:
    """Whoever has it would command the new coordinator."""
    file.write_text(Keyring("secret").token_for(Principal(role, "alice")))
    with pytest.raises(Unauthenticated, match=f"token of a {role.value}, made by .tflease token"):
        credentials.create_token_file(file)


def test_a_home_folder_that_nobody_has_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Unauthenticated, match="the token file ~no-such-user/t does not exist"):
        credentials.read_token("~no-such-user/t")
    monkeypatch.setenv("TFLEASE_TOKEN_FILE", "~no-such-user/t")
    assert credentials.default_token_path() == Path("~no-such-user/t")
