"""`TFCluster` with a standalone coordinator: a daemon as users start it, and fake members."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from coordinator import CoordinatorUnavailable, RunCancelled, TFCluster, Unauthenticated
from coordinator.core.access import Principal, Role
from coordinator.core.model import Cause, RunPhase, RunView
from coordinator.credentials import read_token
from coordinator.security import Keyring
from coordinator.spark.coordinator_process import CoordinatorProcess
from coordinator.testing import Script
from tests.coordinator.certificates import DaemonFiles, daemon_files, write
from tests.coordinator.spark.daemon_process import Cable, Daemon
from tests.coordinator.spark.fake_members import SERVES, playing, run
from tests.coordinator.spark.fake_spark import FakeSpark

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    with closing(Daemon(tmp_path)) as daemon:
        yield daemon


@pytest.fixture
def cable(daemon: Daemon) -> Iterator[Cable]:
    with closing(Cable(daemon.address)) as cable:
        yield cable


@pytest.fixture(autouse=True)
def _no_coordinator_of_its_own(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def start(*_: object) -> None:
        raise AssertionError("a run with a daemon starts no coordinator")

    monkeypatch.setattr(CoordinatorProcess, "__init__", start)
    yield
    names = [thread.name for thread in threading.enumerate()]
    assert not [name for name in names if name.startswith("tflease")]


def run_on(daemon: Daemon, spark: FakeSpark, **more: Any) -> TFCluster:
    return run(spark, **{"coordinator": daemon.url, "token_file": daemon.token_file, **more})


def test_runs_come_and_go_and_the_daemon_stays(daemon: Daemon) -> None:
    for _ in range(2):
        with run_on(daemon, FakeSpark(playing(Script()))) as cluster:
            result = cluster.wait(60)
        assert result.returned == {"worker:0": "worker:0", "worker:1": "worker:1"}
    with closing(daemon.client()) as client:
        assert [each.phase for each in client.list()] == [RunPhase.SUCCEEDED] * 2
    assert daemon.process.poll() is None


def test_two_runs_at_once_do_not_mix(daemon: Daemon) -> None:
    clusters = [run_on(daemon, FakeSpark(playing(SERVES)), name=name) for name in ("one", "two")]
    clusters[0].shutdown()
    assert clusters[0].status().phase is RunPhase.CANCELLED
    assert clusters[1].status().phase is RunPhase.RUNNING
    clusters[1].shutdown()
    assert clusters[1].status().phase is RunPhase.CANCELLED


def test_a_driver_that_was_cut_off_comes_back_to_its_run(daemon: Daemon, cable: Cable) -> None:
    """The members have the daemon all the while, so nothing is lost; a stop that was said
    meanwhile is heard then."""
    spark = FakeSpark(playing(SERVES, daemon.address))
    with run_on(daemon, spark, coordinator=f"grpc://{cable.address}") as cluster:
        cable.cut()
        cluster.stop("enough")
        assert not cluster._session.wait_for(lambda run: run.phase is not RunPhase.RUNNING, 0.5)
        cable.mend()
        with pytest.raises(RunCancelled, match="enough"):
            cluster.wait(60)


def test_a_driver_that_stays_away_loses_its_run(daemon: Daemon, cable: Cable) -> None:
    """O13: the daemon has no other way to see that the owner is gone."""
    spark = FakeSpark(playing(SERVES, daemon.address))
    cluster = run_on(daemon, spark, coordinator=f"grpc://{cable.address}", owner_timeout=0.5)
    cable.cut()
    with closing(daemon.client()) as client:
        *_, last = client.watch(cluster.status().run_id)
    assert last.phase is RunPhase.CANCELLED
    assert {member.exit.cause for member in last.members if member.exit} == {Cause.STOPPED}
    cable.mend()
    with pytest.raises(RunCancelled, match=r"its owner, the driver, was away for 0\.5 s"):
        cluster.wait(60)
    cluster.shutdown()


def test_a_daemon_that_is_restarted_loses_its_runs_and_says_so(
    daemon: Daemon, cable: Cable, tmp_path: Path
) -> None:
    """It keeps no journal."""
    spark = FakeSpark(playing(SERVES, daemon.address))
    cluster = run_on(daemon, spark, coordinator=f"grpc://{cable.address}")
    cable.cut()
    with closing(Daemon(tmp_path)) as another:  # with the same token
        cable.mend(another.address)
        with pytest.raises(CoordinatorUnavailable, match="it was restarted"):
            cluster.wait(60)
    assert all(job.cancelled.wait(10) for job in spark.jobs)  # the tasks must not hold their slots
    with closing(daemon.client()) as client:
        client.stop(cluster.status().run_id, "the test is over", 0.0)
    cluster._launch.end(0.0)


def interrupt(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    "where",
    [
        "coordinator.spark.launch.RunSession.__init__",
        "coordinator.spark.launch.MemberJobs.__init__",
        "coordinator.spark.launch.Launch.start",
        "coordinator.spark.cluster.TFCluster._wait_until_running",
    ],
)
def test_ctrl_c_in_the_start_leaves_no_run_on_the_daemon(
    monkeypatch: pytest.MonkeyPatch, daemon: Daemon, where: str
) -> None:
    """R7: it would wait for its members, and then for its owner's clock."""
    with monkeypatch.context() as patched:
        patched.setattr(where, interrupt)
        with pytest.raises(KeyboardInterrupt):
            run_on(daemon, FakeSpark(playing(SERVES)))
    with closing(daemon.client()) as client:
        [found] = client.list()
        views: list[RunView] = list(client.watch(found.run_id))
    assert views[-1].phase is RunPhase.CANCELLED


def test_a_daemon_that_is_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "token").touch(0o600)
    (tmp_path / "token").write_text("secret")
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
    where = {"coordinator": f"grpc://127.0.0.1:{port}", "token_file": tmp_path / "token"}
    with pytest.raises(CoordinatorUnavailable, match=f"the coordinator at grpc://127.0.0.1:{port}"):
        run(FakeSpark(), **where)


def test_a_token_of_another_daemon_is_refused(daemon: Daemon, tmp_path: Path) -> None:
    """R5."""
    other = tmp_path / "other"
    other.touch(0o600)
    other.write_text("forged")
    with pytest.raises(Unauthenticated, match=f"the coordinator at {daemon.url}"):
        run_on(daemon, FakeSpark(), token_file=other)
    with pytest.raises(Unauthenticated, match="does not exist"):
        run_on(daemon, FakeSpark(), token_file=tmp_path / "none")


# -- TLS -------------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path: Path) -> DaemonFiles:
    return daemon_files(tmp_path)


@pytest.fixture
def secured(tmp_path: Path, files: DaemonFiles) -> Iterator[Daemon]:
    with closing(Daemon(tmp_path, files)) as daemon:
        yield daemon


def test_a_run_on_a_daemon_with_tls_hands_its_certificate_to_its_members(
    secured: Daemon, files: DaemonFiles
) -> None:
    spark = FakeSpark(playing(Script()))
    with run_on(secured, spark, **files.client) as cluster:
        result = cluster.wait(60)
    assert result.returned == {"worker:0": "worker:0", "worker:1": "worker:1"}
    key = files.client["key_file"].read_text()
    for job in spark.jobs:
        assert job.task.tls["key"] == key
        assert key not in repr(job.task)


def test_who_speaks_otherwise_is_told_the_address_that_it_called(
    secured: Daemon, files: DaemonFiles
) -> None:
    """Plaintext, or no certificate where one is wanted: nothing that a token could mend."""
    plain = secured.url.replace("grpcs", "grpc")
    without = {"ca_file": files.client["ca_file"]}
    for where, more, advice in (
        (plain, {}, "call it grpcs://"),
        (secured.url, without, "cert_file and key_file"),
    ):
        complaint = f"the coordinator at {where}: .*{advice}"
        with pytest.raises(CoordinatorUnavailable, match=complaint):
            run_on(secured, FakeSpark(), coordinator=where, **more)


def test_a_file_that_is_of_no_use_is_named_before_anything_is_called(
    files: DaemonFiles, tmp_path: Path
) -> None:
    write(tmp_path / "token", "secret")
    where = {"coordinator": "grpcs://localhost:9", "token_file": tmp_path / "token"}
    with pytest.raises(Unauthenticated, match=r"the CA file .*none\.pem does not exist"):
        run(FakeSpark(), **where, ca_file=tmp_path / "none.pem")
    files.client["key_file"].chmod(0o644)
    with pytest.raises(Unauthenticated, match=r"client\.key can be read or written by others"):
        run(FakeSpark(), **where, **files.client)


def test_a_submitter_s_token_is_enough_for_a_run_of_one_s_own(
    daemon: Daemon, tmp_path: Path
) -> None:
    """What `tflease token` prints is a token file."""
    keyring = Keyring(read_token(daemon.token_file))
    token_file = write(tmp_path / "t", keyring.token_for(Principal(Role.SUBMITTER, "alice")))
    with run_on(daemon, FakeSpark(playing(Script())), token_file=token_file) as cluster:
        cluster.wait(60)
    cluster = run_on(daemon, FakeSpark(playing(SERVES)), token_file=token_file)
    cluster.shutdown()  # with the token of the run
    assert cluster.status().phase is RunPhase.CANCELLED
