"""Which coordinator a run gets; a daemon that is really there is in test_remote."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from coordinator.core.access import ClientTls
from coordinator.core.errors import Unauthenticated
from coordinator.core.model import Roles, RunSpec
from coordinator.spark.coordinators import RemoteCoordinator, coordinator_for
from coordinator.spark.options import Options
from coordinator.tls import client_tls
from tests.coordinator.certificates import daemon_files
from tests.coordinator.spark.fake_spark import FakeSpark

Made = Callable[[str], Options]


@pytest.fixture
def made(tmp_path: Path) -> Made:
    (tmp_path / "token").touch(0o600)
    (tmp_path / "token").write_text("secret")

    def options(daemon: str) -> Options:
        spec = RunSpec(Roles(worker=1))
        return Options(spec, (), daemon=daemon, token_file=str(tmp_path / "token"))

    return options


def test_a_daemon_is_reached_by_all_in_the_same_way(made: Made) -> None:
    found = coordinator_for(made("driver.example:7787"), FakeSpark(master="yarn"))
    assert isinstance(found, RemoteCoordinator)
    assert found.address == found.own_address == "driver.example:7787"
    assert found.token == "secret"
    # As long as its members keep to themselves when they are cut off.
    assert found.patience == RunSpec(Roles(worker=1)).fence_timeout
    found.close(0.0)
    found.kill()


def test_a_daemon_with_tls_gets_what_is_in_the_driver_s_files(made: Made, tmp_path: Path) -> None:
    files = daemon_files(tmp_path)
    options = replace(
        made("driver.example:7787"),
        is_secure=True,
        **{name: str(path) for name, path in files.client.items()},
    )
    found = coordinator_for(options, FakeSpark(master="yarn"))
    assert found.tls == client_tls(**files.client)
    assert found.name == "the coordinator at grpcs://driver.example:7787"
    assert coordinator_for(made("driver.example:7787"), FakeSpark(master="yarn")).tls is None


def test_tls_without_any_file_is_tls(made: Made) -> None:
    options = replace(made("driver.example:7787"), is_secure=True)
    assert coordinator_for(options, FakeSpark(master="yarn")).tls == ClientTls("")


@pytest.mark.parametrize(
    "daemon, master, is_warned",
    [
        ("127.0.0.1:7787", "yarn", True),
        ("[::1]:7787", "spark://m:7077", True),
        ("localhost:7787", "", True),
        ("127.0.0.1:7787", "local-cluster[2,2,1024]", False),
        ("10.0.0.7:7787", "yarn", False),
    ],
)
def test_an_address_that_only_this_machine_reaches_is_warned_of(
    made: Made, caplog: pytest.LogCaptureFixture, daemon: str, master: str, is_warned: bool
) -> None:
    """R9: a tunnel to the daemon leads the driver there, and nobody else."""
    with caplog.at_level(logging.WARNING, "tflease"):
        coordinator_for(made(daemon), FakeSpark(master=master))
    assert [daemon in text for text in caplog.messages] == [True] * is_warned


def test_without_its_token_a_daemon_is_not_even_called(tmp_path: Path) -> None:
    options = Options(RunSpec(Roles(worker=1)), (), daemon="h:1", token_file=str(tmp_path / "no"))
    with pytest.raises(Unauthenticated, match="does not exist"):
        coordinator_for(options, FakeSpark())
