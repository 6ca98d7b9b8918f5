"""The embedded coordinator as the driver sees it: up with an address, gone without a trace."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from coordinator.client import RunClient
from coordinator.core.errors import CoordinatorUnavailable, Unauthenticated
from coordinator.core.model import Roles, RunSpec
from coordinator.spark import coordinator_process
from coordinator.spark.coordinator_process import CoordinatorProcess

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


@pytest.fixture
def process() -> Iterator[CoordinatorProcess]:
    process = CoordinatorProcess("127.0.0.1", 0, "127.0.0.1")
    yield process
    process.kill()


def descriptors() -> set[str]:
    """Our pipes; gRPC opens and closes other descriptors when it likes."""
    found = set()
    for fd in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # that of the listing itself
            what = os.readlink(f"/proc/self/fd/{fd}")
            found.update({f"{fd} {what}"} if what.startswith("pipe:") else ())
    return found


def test_it_answers_to_its_token_and_to_nothing_else(process: CoordinatorProcess) -> None:
    """R5."""
    assert process.is_alive
    for token, is_ours in ((process.token, True), ("forged", False)):
        with closing(RunClient(process.address, token, process.tls)) as client:
            if is_ours:
                assert client.create(RunSpec(Roles(worker=1))).run_id
            else:
                with pytest.raises(Unauthenticated):
                    client.list()


def test_each_has_a_token_and_an_authority_of_its_own(process: CoordinatorProcess) -> None:
    another = CoordinatorProcess("127.0.0.1", 0, "127.0.0.1")
    another.close(20)
    assert another.token != process.token
    assert process.tls is not None
    assert another.tls is not None
    assert another.tls.ca != process.tls.ca


def test_it_takes_nobody_without_its_certificate(capfd: pytest.CaptureFixture[str]) -> None:
    """R5: the right token in plaintext gets nowhere, and fills nobody's terminal."""
    process = CoordinatorProcess("127.0.0.1", 0, "127.0.0.1")
    try:
        plaintext = RunClient(process.own_address, process.token)
        with closing(plaintext), pytest.raises(CoordinatorUnavailable):
            plaintext.list()
    finally:
        process.close(20)
    assert capfd.readouterr().err == ""


def test_what_may_be_a_key_is_not_shown_in_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = 'echo \'{"port": 1, "tls": {"key": "the secret"}\'; exec sleep 600'
    monkeypatch.setattr(sys, "executable", executable(tmp_path, script))
    with pytest.raises(CoordinatorUnavailable, match="it said") as caught:
        CoordinatorProcess("127.0.0.1", 0, "127.0.0.1")
    assert "the secret" not in str(caught.value)


def test_on_return_of_close_it_is_gone_and_so_are_its_pipes() -> None:
    before = descriptors()
    process = CoordinatorProcess("127.0.0.1", 0, "127.0.0.1")
    pid = process.pid
    process.close(20)
    process.close(20)
    assert not process.is_alive
    assert not Path(f"/proc/{pid}").exists()
    assert descriptors() == before
    process.kill()  # already gone is success


def test_on_return_of_kill_it_is_gone_and_so_are_its_pipes() -> None:
    before = descriptors()
    process = CoordinatorProcess("127.0.0.1", 0, "127.0.0.1")
    process.kill()
    process.kill()
    assert not process.is_alive
    assert descriptors() == before
    process.close(0.0)


def test_one_that_does_not_go_is_killed(process: CoordinatorProcess) -> None:
    os.kill(process.pid, signal.SIGSTOP)
    began = time.monotonic()
    process.close(0.2)
    assert time.monotonic() - began < 10
    assert not process.is_alive


def test_a_fork_of_the_driver_that_holds_the_lifeline_is_not_waited_for(
    process: CoordinatorProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`multiprocessing` forks the driver while a run is active: the copy of the pipe stays open."""
    monkeypatch.setattr(coordinator_process, "_LIFELINE_TIMEOUT", 0.1)
    assert process._process.stdin is not None
    copy = os.dup(process._process.stdin.fileno())
    try:
        began = time.monotonic()
        process.close(60)
        assert time.monotonic() - began < 20
        assert process._process.returncode == 0  # it was asked, not killed
    finally:
        os.close(copy)


def test_ctrl_c_does_not_reach_it(process: CoordinatorProcess) -> None:
    """O13: the run is to be stopped in order, so it must outlive the keystroke."""
    assert os.getsid(process.pid) != os.getsid(0)


def test_a_port_that_is_taken_is_named() -> None:
    before = descriptors()
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(CoordinatorUnavailable, match=f"cannot listen on 127.0.0.1:{port}"):
            CoordinatorProcess("127.0.0.1", port, "127.0.0.1")
    assert descriptors() == before


def test_an_address_that_is_not_ours_is_named() -> None:
    with pytest.raises(CoordinatorUnavailable, match=r"cannot listen on 192\.0\.2\.1"):
        CoordinatorProcess("192.0.2.1", 0, "192.0.2.1")


def executable(tmp_path: Path, script: str) -> str:
    path = tmp_path / "python"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o700)
    return str(path)


@pytest.mark.parametrize(
    "script, complaint",
    [
        ("exit 3", "it ended with exit code 3"),
        ("kill -9 $$", "it ended with exit code -9"),
        ("echo Welcome; sleep 600", "it said b'Welcome"),
        ("echo '[1]'; sleep 600", "it said b'"),
        ("exec >&-; sleep 600", "it ended with exit code None"),
        ("sleep 600", "did not start within 0.3 s"),
        ("printf '{'; sleep 600", "did not start within 0.3 s"),
    ],
)
def test_one_that_does_not_come_up_is_an_error_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, complaint: str
) -> None:
    monkeypatch.setattr(
        sys, "executable", executable(tmp_path, script.replace("sleep", "exec sleep"))
    )
    if "sleep" in script:
        monkeypatch.setattr(coordinator_process, "_START_TIMEOUT", 0.3)
    before = descriptors()
    with pytest.raises(CoordinatorUnavailable) as caught:
        CoordinatorProcess("127.0.0.1", 0, "127.0.0.1")
    assert complaint in str(caught.value)
    assert descriptors() == before


def test_ctrl_c_while_it_starts_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", executable(tmp_path, "exec sleep 600"))
    before = descriptors()
    main = threading.main_thread().ident
    threading.Timer(0.1, signal.pthread_kill, [main, signal.SIGINT]).start()
    with pytest.raises(KeyboardInterrupt):
        CoordinatorProcess("127.0.0.1", 0, "127.0.0.1")
    assert descriptors() == before


SHADOWED = """
import sys
sys.path.remove("")
from coordinator.spark.coordinator_process import CoordinatorProcess
CoordinatorProcess("127.0.0.1", 0, "127.0.0.1").close(20)
"""


def test_files_in_the_working_directory_are_not_imported(tmp_path: Path) -> None:
    """A user's `random.py`, or a `coordinator` of their own beside the notebook."""
    for name in ("random.py", "coordinator.py"):
        (tmp_path / name).write_text("raise SystemExit('the wrong module')")
    done = subprocess.run(
        [sys.executable, "-c", SHADOWED],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def has_version_6() -> bool:
    try:
        with closing(socket.socket(socket.AF_INET6)) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.skipif(not has_version_6(), reason="no IPv6 on this machine")
@pytest.mark.parametrize("bind, told", [("::1", "::1"), ("0.0.0.0", "[::1]"), ("::", "127.0.0.1")])
def test_a_driver_of_version_6_is_reached(bind: str, told: str) -> None:
    """R9: Spark writes `spark.driver.host` in brackets then."""
    process = CoordinatorProcess(bind, 0, told)
    try:
        assert process.address.startswith("[::1]:" if ":" in told else "127.0.0.1:")
        for address in (process.address, process.own_address):
            with closing(RunClient(address, process.token, process.tls)) as client:
                assert client.list() == []
    finally:
        process.close(20)


@pytest.mark.parametrize(
    "bind, told, address, own",
    [
        ("127.0.0.1", ("driver.example", 30777), "driver.example:30777", "127.0.0.1:{port}"),
        ("0.0.0.0", ("driver.example", None), "driver.example:{port}", "127.0.0.1:{port}"),
        ("127.0.0.2", ("[fd00::7]", 30777), "[fd00::7]:30777", "127.0.0.2:{port}"),
    ],
)
def test_the_driver_takes_the_direct_way_and_executors_the_one_they_are_told(
    bind: str, told: tuple[str, int | None], address: str, own: str
) -> None:
    """R9: a NAT often does not let its own inside in again."""
    process = CoordinatorProcess(bind, 0, *told)
    try:
        port = process.own_address.rpartition(":")[2]
        assert process.address == address.format(port=port)
        assert process.own_address == own.format(port=port)
        with closing(RunClient(process.own_address, process.token, process.tls)) as client:
            assert client.list() == []
    finally:
        process.close(20)


def test_many_open_files_of_the_driver_are_no_obstacle() -> None:
    """A descriptor above 1023, as in a notebook that has run for weeks."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 1200
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip("this machine allows no descriptor above 1023")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    opened = [os.open(os.devnull, os.O_RDONLY) for _ in range(1050)]
    try:
        process = CoordinatorProcess("127.0.0.1", 0, "127.0.0.1")
        process.close(20)
    finally:
        for descriptor in opened:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_its_configuration_holds_no_surprise(process: CoordinatorProcess) -> None:
    """Token and key are in neither argv nor environment."""
    assert process.tls is not None
    key = process.tls.key.splitlines()[1]
    for name in ("cmdline", "environ"):
        content = Path(f"/proc/{process.pid}/{name}").read_bytes()
        assert process.token.encode() not in content
        assert key.encode() not in content
    assert process.token not in repr(process)
    assert key not in repr(process) + repr(process.tls)
