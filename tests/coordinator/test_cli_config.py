"""Where the commands take the coordinator's address and their credentials from, and what they say
of a configuration file that is no good."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from coordinator.cli import config, place
from coordinator.cli.config import Config, ConfigUnusable
from coordinator.cli.place import Place, Unusable


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's configuration folder, and no variable of ours."""
    for name in list(os.environ):
        if name.startswith("TFLEASE_") and not name.startswith("TFLEASE_TEST"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    folder = tmp_path / "tflease"
    folder.mkdir(mode=0o700)
    return folder


def written(home: Path, text: str) -> Path:
    path = home / "config.toml"
    path.write_text(text)
    path.chmod(0o600)
    return path


def token_in(path: Path) -> Path:
    path.touch(0o600)
    path.write_text("a-token\n")
    return path


# --- the file -------------------------------------------------------------------------------------


def test_without_a_file_nothing_is_configured(home: Path) -> None:
    assert config.load() == Config()


def test_everything_in_it_counts_and_paths_begin_where_it_lies(home: Path) -> None:
    path = written(
        home,
        'coordinator = "grpcs://host:7787"\ntoken_file = "~/t"\nca_file = "ca.pem"\n'
        'cert_file = "/etc/c.pem"\nkey_file = "sub/k.pem"\n',
    )
    assert config.load() == Config(
        path,
        "grpcs://host:7787",
        Path.home() / "t",
        home / "ca.pem",
        Path("/etc/c.pem"),
        home / "sub/k.pem",
    )


def test_a_variable_names_another_file_which_has_to_be_there(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(home, 'coordinator = "host:1"\n')
    other = home / "other.toml"
    other.write_text('coordinator = "host:2"\n')
    other.chmod(0o600)
    monkeypatch.setenv("TFLEASE_CONFIG", str(other))
    assert config.load().coordinator == "host:2"
    monkeypatch.setenv("TFLEASE_CONFIG", os.devnull)
    assert config.load() == Config()
    monkeypatch.setenv("TFLEASE_CONFIG", str(home / "none.toml"))
    with pytest.raises(ConfigUnusable, match=r"none\.toml, which TFLEASE_CONFIG names, does not"):
        config.load()


@pytest.mark.parametrize(
    "text, said",
    [
        ("coordinator = \n", "at line 1"),
        ('token_file = "t"\ncoordinator = "host:1\n', "at line 2"),
        ('coordinater = "host:1"\n', "unknown key 'coordinater'; there are coordinator, token_f"),
        ("[coordinator]\nurl = 1\n", "coordinator must be a text in quotes"),
        ("token_file = 7\n", "token_file must be a text in quotes"),
        ('token_file = "a\\u0000b"\n', "token_file has a zero byte"),
        ('token_file = ""\n', "token_file must be a text in quotes"),
        ('coordinator = "http://host:1"\n', "coordinator: http://host:1: should be HOST:PORT"),
        ('coordinator = "grpc://host:1"\nca_file = "c"\n', "ca_file is for TLS, which grpcs://"),
    ],
)
def test_what_is_wrong_is_named_with_file_and_place(home: Path, text: str, said: str) -> None:
    path = written(home, text)
    with pytest.raises(ConfigUnusable) as refused:
        config.load()
    assert str(path) in str(refused.value)
    assert said in str(refused.value)


def test_a_file_that_others_can_write_is_refused(home: Path) -> None:
    path = written(home, 'coordinator = "host:1"\n')
    for mode in (0o620, 0o602):
        path.chmod(mode)
        with pytest.raises(ConfigUnusable, match=f"written by others .mode {mode:04o}.*chmod go-w"):
            config.load()
    path.chmod(0o644)  # to read it is no harm: there is no secret in it
    assert config.load().coordinator == "host:1"


def test_what_is_no_text_or_no_file_is_refused(home: Path) -> None:
    path = written(home, "")
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigUnusable, match="no text in UTF-8"):
        config.load()
    path.write_bytes(b"#" * 100_000)
    with pytest.raises(ConfigUnusable, match="longer than"):
        config.load()
    path.unlink()
    os.mkfifo(path, 0o600)
    with pytest.raises(ConfigUnusable, match="no regular file"):
        config.load()


def test_a_home_folder_that_nobody_has_is_no_traceback(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(home, 'token_file = "~no-such-user/t"\n')
    with pytest.raises(Unusable, match="no-such-user/t does not exist"):
        place.find(Place("host:1"))
    with pytest.raises(Unusable, match="the token file ~no-such-user/x does not exist"):
        place.find(Place("host:1", Path("~no-such-user/x")))
    assert place.daemons_here(Path("~no-such-user/x")) == []
    monkeypatch.setenv("TFLEASE_CONFIG", "~no-such-user/c.toml")
    with pytest.raises(ConfigUnusable, match=r"~no-such-user/c\.toml, which TFLEASE_CONFIG names"):
        config.load()


def test_a_folder_for_tokens_that_cannot_be_looked_into_has_no_daemon(home: Path) -> None:
    assert place.daemons_here(home / ("x" * 300) / "token") == []


# --- the order ------------------------------------------------------------------------------------


def test_flags_and_variables_come_before_the_file_key_by_key(home: Path) -> None:
    written(home, 'coordinator = "grpc://file:1"\ntoken_file = "token"\n')
    token_in(home / "token")
    found = place.find(Place())
    assert (found.url, found.token_file) == ("grpc://file:1", home / "token")
    assert found.how == str(home / "config.toml")
    other = token_in(home / "mine")
    found = place.find(Place(coordinator="flag:2", token_file=other))
    assert (found.url, found.token_file, found.how) == ("grpc://flag:2", other, "--coordinator")
    assert place.find(Place(coordinator="flag:2")).token_file == home / "token"


def test_the_default_token_is_used_where_nothing_names_one(home: Path) -> None:
    token_in(home / "token")
    assert place.find(Place("host:1")).token_file == home / "token"


def test_a_file_for_tls_asks_for_an_address_with_tls(home: Path) -> None:
    token_in(home / "token")
    with pytest.raises(Unusable, match=r"--cert-file is for TLS.*grpcs://host:1") as refused:
        place.find(Place("grpc://host:1", cert_file=home / "c.pem"))
    assert refused.value.code == place.USAGE
    with pytest.raises(Unusable, match=r"missing\.pem"):
        place.find(Place("grpcs://host:1", ca_file=home / "missing.pem"))


def test_tls_in_the_file_does_not_bind_an_address_that_is_given(home: Path) -> None:
    written(home, 'coordinator = "grpcs://file:1"\nca_file = "none.pem"\n')
    token_in(home / "token")
    assert place.find(Place("127.0.0.1:2")).url == "grpc://127.0.0.1:2"


@pytest.mark.parametrize("key", ["ca_file", "cert_file", "key_file"])
@pytest.mark.parametrize("address", ["host:2", "grpc://10.0.0.5:7787", "[2001:db8::1]:1"])
def test_tls_in_the_file_keeps_the_token_from_going_out_in_plaintext(
    home: Path, address: str, key: str
) -> None:
    written(home, f'coordinator = "grpcs://file:1"\n{key} = "none.pem"\n')
    token_in(home / "token")
    with pytest.raises(Unusable, match=f"for TLS .{key}., and .* plaintext.*grpcs://") as refused:
        place.find(Place(address))
    assert refused.value.code == place.USAGE


def test_a_broken_file_is_a_usage_error_of_every_command(home: Path) -> None:
    written(home, "coordinator = 1\n")
    with pytest.raises(Unusable, match=r"config\.toml") as refused:
        place.find(Place("host:1"))
    assert refused.value.code == place.USAGE
