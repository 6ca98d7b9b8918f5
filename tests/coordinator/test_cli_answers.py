"""Commands that ask a coordinator: completion, the doctor's lines about it, TLS all the way."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import json
import os
import socket
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from typer.testing import CliRunner

from coordinator.check import Check, Status
from coordinator.cli import app
from coordinator.cli.checks import daemon
from coordinator.cli.place import Place
from coordinator.core.access import Principal, Role, ServerTls
from coordinator.core.model import Roles, RunSpec
from coordinator.security import Keyring
from coordinator.testing import serving
from coordinator.testing.serving import Serving
from tests.coordinator.certificates import daemon_files
from tests.integration.daemon.process import Daemon, Home

pytestmark = pytest.mark.slow


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in list(os.environ):
        if name.startswith("TFLEASE_") and not name.startswith("TFLEASE_TEST"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    folder = tmp_path / "tflease"
    folder.mkdir(mode=0o700)
    return folder


@pytest.fixture
async def coordinator(home: Path) -> AsyncIterator[Serving]:
    async with serving() as running:
        secret(home / "token", running.token + "\n")
        yield running


def secret(path: Path, text: str) -> Path:
    path.touch(0o600)
    path.write_text(text)
    return path


# --- completion -----------------------------------------------------------------------------------


async def completed(home: Path, line: str, **environment: str) -> str:
    """What bash is offered for this line, whose last word is being typed."""
    words = line.split(" ")
    env = {
        **environment,
        "_TFLEASE_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words) - 1),
    }
    done = await asyncio.to_thread(CliRunner().invoke, app, [], env=env, prog_name="tflease")
    return done.output


async def test_runs_and_their_members_are_completed(home: Path, coordinator: Serving) -> None:
    run = coordinator.create_run(RunSpec(Roles(chief=1, worker=2), name="mnist"))
    flags = f"--coordinator {coordinator.address}"
    for command in ("status", "stop", "logs"):
        assert run in await completed(home, f"tflease {command} {flags} {run[:3]}")
        assert run in await completed(
            home, f"tflease {command} ", TFLEASE_COORDINATOR=coordinator.address
        )
        assert run not in await completed(home, f"tflease {command} {flags} no-such-run")
    members = await completed(home, f"tflease logs {flags} {run} w")
    assert "worker:1" in members
    assert "chief" not in members


async def test_whoever_does_not_answer_completes_nothing_and_says_nothing(home: Path) -> None:
    """Nobody there, nobody who answers, a broken file: a shell's line is no place for it."""
    secret(home / "token", "a-token\n")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        assert not (await completed(home, f"tflease status --coordinator {address} ")).strip()
    assert not (await completed(home, "tflease status --coordinator 127.0.0.1:1 ")).strip()
    assert not (await completed(home, "tflease status ")).strip()
    secret(home / "config.toml", "no toml")
    assert not (await completed(home, "tflease status ")).strip()


# --- the doctor's lines about a coordinator -------------------------------------------------------


async def lines(place: Place) -> list[Check]:
    found = await asyncio.to_thread(lambda: list(daemon.coordinator(place)))
    assert all(each.advice for each in found if each.status is Status.FAILED)
    return found


async def test_without_a_coordinator_the_doctor_is_content(home: Path) -> None:
    [line] = await lines(Place())
    assert line.status is Status.OK
    assert "none configured" in line.found


async def test_a_coordinator_that_answers_and_the_role_of_our_token(
    home: Path, coordinator: Serving
) -> None:
    [line] = await lines(Place(coordinator.address))
    assert line.status is Status.OK
    assert "of role operator; 0 runs (from --coordinator)" in line.found
    keyring = Keyring(coordinator.token)
    reader = secret(home / "reader", keyring.token_for(Principal(Role.READER, "me")))
    [line] = await lines(Place(coordinator.address, reader))
    assert "of role reader" in line.found
    owner = secret(home / "owner", keyring.token_for(Principal(Role.OWNER, "3fa9")))
    [line] = await lines(Place(coordinator.address, owner))
    assert (line.status, "of role owner, which cannot list" in line.found) == (Status.NOTE, True)


async def test_a_coordinator_that_refuses_or_is_not_there(home: Path, coordinator: Serving) -> None:
    other = secret(home / "other", "another-token")
    [line] = await lines(Place(coordinator.address, other))
    assert line.status is Status.FAILED
    assert f"refused the token in {other}" in line.found
    [line] = await lines(Place("127.0.0.1:1"))
    assert line.status is Status.FAILED
    assert "no coordinator could be reached" in line.found
    secret(home / "config.toml", "coordinator = 7")
    [line] = await lines(Place())
    assert "config.toml" in line.found


# --- TLS ------------------------------------------------------------------------------------------


def certificate(days: int) -> ServerTls:
    """Of its own authority, for 127.0.0.1."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return ServerTls(made.public_bytes(serialization.Encoding.PEM).decode(), private.decode())


async def tflease(*arguments: str) -> tuple[int, str]:
    done = await asyncio.to_thread(CliRunner().invoke, app, list(arguments), env={"COLUMNS": "200"})
    return done.exit_code, done.output


@pytest.mark.parametrize("days, status", [(90, Status.OK), (5, Status.NOTE)])
async def test_tls_from_flags_and_from_the_file(home: Path, days: int, status: Status) -> None:
    tls = certificate(days)
    ca = secret(home / "ca.pem", tls.certificate)
    async with serving(tls=tls) as running:
        secret(home / "token", running.token)
        url = f"grpcs://{running.address}"
        code, said = await tflease("status", "--coordinator", url, "--ca-file", str(ca))
        assert (code, said.strip()) == (0, "no runs")
        answer, line = await lines(Place(url, ca_file=ca))
        assert answer.status is Status.OK
        assert line.status is status, line
        assert "the certificate is good until" in line.found
        code, said = await tflease("status", "--coordinator", running.address)
        assert code == 1
        assert "does it speak TLS (then name it grpcs://)" in said
        secret(home / "config.toml", f'coordinator = "{url}"\nca_file = "ca.pem"\n')
        assert (await tflease("status"))[0] == 0
        other = secret(home / "other.pem", certificate(90).certificate)
        code, said = await tflease("status", "--ca-file", str(other))
        assert code == 1
        assert "--ca-file" in said


async def test_the_certificate_is_looked_at_with_files_of_the_home_folder(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(home))
    tls = certificate(90)
    secret(home / "own.pem", tls.certificate)
    secret(home / "own.key", tls.key)
    own, key = Path("~/own.pem"), Path("~/own.key")
    async with serving(tls=tls) as running:
        secret(home / "token", running.token)
        place = Place(f"grpcs://{running.address}", None, own, own, key)
        answer, line = await lines(place)
    assert (answer.status, line.status) == (Status.OK, Status.OK), line


def test_the_certificate_of_the_daemon_here_is_looked_at_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its note has 127.0.0.1, its certificate localhost."""
    user = Home(tmp_path)
    user.folder.mkdir()
    files = daemon_files(user.folder)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("TFLEASE_CONFIG", os.devnull)
    server, key, _ = map(str, files.server)
    with closing(Daemon(user, 0, "--tls-cert", server, "--tls-key", key)):
        answer, line = daemon.coordinator(Place(ca_file=files.client["ca_file"]))
    assert answer.status is Status.OK, answer
    assert "the certificate is good until" in line.found


# --- JSON -----------------------------------------------------------------------------------------


def test_stop_daemon_and_logs_as_json(tmp_path: Path) -> None:
    home = Home(tmp_path)
    with closing(Daemon(home)) as daemon:
        with closing(daemon.client()) as client:
            run = client.create(RunSpec(Roles(worker=1))).run_id
        logs = asyncio.run(home.tflease("logs", run, "--json"))
        done = asyncio.run(home.tflease("stop", "--daemon", "--json"))
        assert daemon.wait() == 0
    assert logs.code == 1, "there is nobody yet to read it"
    found = json.loads(logs.out)
    assert found.keys() == {"coordinator", "run", "logs"}
    [log] = found["logs"]
    assert (log["member"], log["text"]) == ("worker:0", None)
    assert log["problem"]
    found = json.loads(done.out)
    assert found["ended"] is True
    assert found["pid"] == daemon.process.pid
    assert [(each["id"], each["phase"]) for each in found["runs"]] == [(run, "cancelled")]
