"""`tflease token`: made of a file, without a call."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from coordinator.cli.token import token
from coordinator.core.access import Principal, Role
from coordinator.security import Keyring
from tests.coordinator.certificates import write

app = typer.Typer()
app.command()(token)


def run(*words: str) -> Result:
    return CliRunner().invoke(app, words)


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    return write(tmp_path / "token", "secret\n")


@pytest.mark.parametrize("role", [Role.SUBMITTER, Role.READER])
def test_it_prints_a_token_that_a_coordinator_with_that_file_takes(
    role: Role, token_file: Path
) -> None:
    done = run("--role", role.value, "--name", "alice", "--token-file", str(token_file))
    assert done.exit_code == 0, done.output
    assert Keyring("secret").principal_of(done.stdout.strip()) == Principal(role, "alice")
    assert "secret" not in done.output


@pytest.mark.parametrize("role", ["operator", "owner", "agent", "boss"])
def test_nobody_is_given_another_role(role: str, token_file: Path) -> None:
    """An operator's is a secret of its own, and those of a run come with the run."""
    done = run("--role", role, "--name", "alice", "--token-file", str(token_file))
    assert done.exit_code == 2
    assert "submitter" in done.output


def test_a_name_that_does_not_fit_is_refused(token_file: Path) -> None:
    done = run("--role", "reader", "--name", "a.b", "--token-file", str(token_file))
    assert done.exit_code == 2
    assert "--name 'a.b'" in done.output


def test_a_file_that_is_of_no_use_is_named(token_file: Path) -> None:
    token_file.chmod(0o644)
    done = run("--role", "reader", "--name", "a", "--token-file", str(token_file))
    assert done.exit_code == 1
    assert "chmod 600" in done.output


def test_a_token_that_was_made_so_makes_no_others(token_file: Path) -> None:
    """They would look like tokens, and open nothing."""
    made = Keyring("secret").token_for(Principal(Role.SUBMITTER, "alice"))
    token_file.write_text(made)
    done = run("--role", "reader", "--name", "a", "--token-file", str(token_file))
    assert done.exit_code == 1
    assert "token of a submitter" in done.output
