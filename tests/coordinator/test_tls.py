"""TLS from files: what is of no use is said before anything is started, and by name."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from coordinator.core.errors import Unauthenticated
from coordinator.tls import client_tls, name_in, server_tls
from tests.coordinator.certificates import TestAuthority, write

DAY = timedelta(days=1)


@pytest.fixture(scope="module")
def authority() -> TestAuthority:
    return TestAuthority()


@pytest.fixture
def files(tmp_path: Path, authority: TestAuthority) -> Path:
    """A folder with ca.pem, and cert.pem with its key.pem."""
    certificate, key = authority.issue()
    write(tmp_path / "ca.pem", authority.pem, 0o644)
    write(tmp_path / "cert.pem", certificate, 0o644)
    write(tmp_path / "key.pem", key)
    return tmp_path


def both(files: Path) -> None:
    """The two sides read the same kinds of files."""
    complaints = []
    for side in (server, client):
        with pytest.raises(Unauthenticated) as refused:
            side(files)
        complaints.append(refused.value.message)
    assert complaints[0] == complaints[1]
    raise Unauthenticated(complaints[0])


def server(files: Path) -> object:
    return server_tls(files / "cert.pem", files / "key.pem", files / "ca.pem")


def client(files: Path) -> object:
    return client_tls(files / "ca.pem", files / "cert.pem", files / "key.pem")


def test_good_files_are_taken_as_they_are(files: Path) -> None:
    text = {name: (files / f"{name}.pem").read_text() for name in ("ca", "cert", "key")}
    served = server_tls(str(files / "cert.pem"), files / "key.pem", files / "ca.pem")
    assert (served.certificate, served.key, served.client_ca) == (
        text["cert"],
        text["key"],
        text["ca"],
    )
    assert server_tls(files / "cert.pem", files / "key.pem").client_ca == ""
    called = client_tls(files / "ca.pem", files / "cert.pem", files / "key.pem")
    assert (called.ca, called.certificate, called.key) == (text["ca"], text["cert"], text["key"])
    assert called.server_name == ""
    assert "PRIVATE KEY" not in repr(served) + repr(called)


def test_a_client_may_trust_the_system_and_show_nothing() -> None:
    """It is TLS all the same: nobody gets plaintext for having named no file."""
    found = client_tls()
    assert (found.ca, found.certificate, found.key) == ("", "", "")


@pytest.mark.parametrize("given", ["cert", "key"])
def test_a_certificate_and_its_key_are_of_no_use_alone(files: Path, given: str) -> None:
    which = {f"{given}_file": files / f"{given}.pem"}
    with pytest.raises(Unauthenticated, match=rf"{given}\.pem needs its"):
        client_tls(files / "ca.pem", **which)


@pytest.mark.parametrize("name", ["ca", "cert", "key"])
@pytest.mark.parametrize(
    "spoil, complaint",
    [
        (Path.unlink, "does not exist"),
        (lambda path: path.unlink() or path.mkdir(), "is no regular file"),
        (lambda path: path.unlink() or os.mkfifo(path, 0o600), "is no regular file"),
        (lambda path: path.write_text(""), "holds no "),
        (lambda path: path.write_text("hello"), "holds no "),
        (lambda path: path.write_bytes(b"0\x82\x01\xff"), "it must be PEM, not DER"),
        (lambda path: path.write_bytes(b"-" * (4 * 2**20 + 1)), "is longer than"),
    ],
    ids=["missing", "folder", "FIFO", "empty", "text", "DER", "huge"],
)
def test_what_is_no_such_file_is_named(
    files: Path, name: str, spoil: Callable[[Path], object], complaint: str
) -> None:
    spoil(files / f"{name}.pem")
    with pytest.raises(Unauthenticated, match=rf"{name}\.pem.*{complaint}"):
        both(files)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_cannot_be_read_is_named(files: Path) -> None:
    (files / "key.pem").chmod(0)
    with pytest.raises(Unauthenticated, match=r"key\.pem cannot be read: Permission denied"):
        both(files)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_a_key_that_others_can_read_is_no_secret(files: Path, mode: int) -> None:
    (files / "key.pem").chmod(mode)
    with pytest.raises(Unauthenticated, match=rf"mode {mode:04o}\): chmod 600 .*key\.pem"):
        both(files)


@pytest.mark.parametrize("owner, mode, is_good", [
    (0, 0o640, True),
    (0, 0o644, False),
    (0, 0o660, False),
    (4711, 0o600, False),
])  # fmt: skip
def test_a_key_may_be_root_s_and_shared_with_our_group(
    files: Path, monkeypatch: pytest.MonkeyPatch, owner: int, mode: int, is_good: bool
) -> None:
    """A secret that is mounted into a container."""
    (files / "key.pem").chmod(mode)
    real = os.fstat

    def foreign(descriptor: int) -> os.stat_result:
        found = list(real(descriptor))
        found[4] = owner  # st_uid
        return os.stat_result(found)

    monkeypatch.setattr(os, "fstat", foreign)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    if is_good:
        assert server(files)
    else:
        with pytest.raises(Unauthenticated, match=r"key\.pem (can be read|belongs to another)"):
            both(files)


def test_a_key_of_another_certificate_is_refused(files: Path, authority: TestAuthority) -> None:
    write(files / "key.pem", authority.issue()[1])
    with pytest.raises(Unauthenticated, match=r"key\.pem does not belong to .*cert\.pem"):
        both(files)


def test_a_passphrase_is_for_people(files: Path, authority: TestAuthority) -> None:
    certificate, key = authority.issue(passphrase="open sesame")
    write(files / "cert.pem", certificate)
    write(files / "key.pem", key)
    with pytest.raises(Unauthenticated, match=r"key\.pem has a passphrase.*openssl pkey"):
        both(files)


@pytest.mark.parametrize(
    "age, left, complaint",
    [(2 * DAY, -DAY, "has expired at .* UTC"), (-DAY, 2 * DAY, "is not valid before .* UTC, and")],
)
def test_a_certificate_is_good_for_its_time(
    files: Path, authority: TestAuthority, age: timedelta, left: timedelta, complaint: str
) -> None:
    certificate, key = authority.issue(age=age, left=left)
    write(files / "cert.pem", certificate)
    write(files / "key.pem", key)
    with pytest.raises(Unauthenticated, match=rf"cert\.pem {complaint}"):
        both(files)


def test_the_time_may_be_given(files: Path) -> None:
    later = time.time() + 10 * DAY.total_seconds()
    with pytest.raises(Unauthenticated, match="has expired"):
        client_tls(files / "ca.pem", now=later)
    assert client_tls(files / "ca.pem", now=time.time())


def test_of_a_bundle_one_must_be_good(files: Path, authority: TestAuthority) -> None:
    """Those of systems have authorities that have expired, and comments in all languages."""
    old, _ = authority.issue(age=2 * DAY, left=-DAY)
    write(files / "ca.pem", f"# Autorit\N{LATIN SMALL LETTER E WITH ACUTE}\n{old}{authority.pem}")
    assert client(files)
    write(files / "ca.pem", old)
    with pytest.raises(Unauthenticated, match=r"ca\.pem has expired"):
        both(files)


def test_a_file_in_the_home_folder_may_be_named_so(
    files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(files))
    assert client_tls("~/ca.pem").ca


def test_a_home_folder_that_nobody_has_is_no_traceback() -> None:
    with pytest.raises(Unauthenticated, match=r"the CA file ~no-such-user/ca\.pem does not exist"):
        client_tls("~no-such-user/ca.pem")


@pytest.mark.parametrize(
    "host, name",
    [("coordinator.example", "coordinator.example"), ("*.example", "tflease.example"), ("", "")],
)
def test_a_name_to_ask_for_is_found_in_the_certificate(
    authority: TestAuthority, host: str, name: str
) -> None:
    certificate = authority.issue(host)[0] if host else authority.pem
    assert name_in(certificate) == name


def test_a_certificate_of_an_address_alone_has_that_for_a_name(authority: TestAuthority) -> None:
    assert name_in(authority.issue(address="10.0.0.5")[0]) == "10.0.0.5"
