"""Claims of GPUs between real processes: the kernel keeps them, and frees them in time."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from coordinator.core.gpu import LeaseToken
from executor_agent.gpu_claims import ClaimRefused, HostClaims
from executor_agent.processes import identity_of
from tests.integration.sentinel_helpers import ROOT, wait_gone

GPU = "GPU-00000001-aaaa-bbbb-cccc-000000000001"
NOBODY = 65534  # a user that exists everywhere, and may do nothing

# Claims, says so or why not, and keeps it until its input ends.
CLAIM = """
import os, sys
from pathlib import Path
from coordinator.core.gpu import LeaseToken
from executor_agent.gpu_claims import ClaimRefused, HostClaims
directory, uuid, who, coordinator_id, number, user = sys.argv[1:]
if int(user) != os.getuid():  # only now, because another user may not read our Python
    os.setgroups([])
    os.setgid(int(user))
    os.setuid(int(user))
try:
    HostClaims(Path(directory)).claim(uuid, LeaseToken(coordinator_id, int(number)), who, 0)
    print("claimed", flush=True)
except ClaimRefused as error:
    print(f"refused: {error.holder} {error.pids}", flush=True)
sys.stdin.read()
"""

# Is handed a descriptor, forks a child that inherits it, and says who they are.
KEEP = """
import os, signal, socket, sys
with socket.socket(fileno=int(sys.argv[1])) as line:
    [fd] = socket.recv_fds(line, 16, 1)[1]
child = os.fork()
if child == 0:
    signal.pause()
print(child, flush=True)
signal.pause()
"""

# Claims again and again; whoever has the claim makes and removes a folder that must not be there.
COMPETE = """
import os, sys
from pathlib import Path
from coordinator.core.gpu import LeaseToken
from executor_agent.gpu_claims import ClaimRefused, HostClaims
directory, uuid, who, rounds = sys.argv[1:]
claims, won = HostClaims(Path(directory)), 0
while won < int(rounds):
    try:
        fd = claims.claim(uuid, LeaseToken(who, won + 1), who, 0)
    except ClaimRefused:
        continue
    os.mkdir(directory + "/alone")
    os.rmdir(directory + "/alone")
    os.close(fd)
    won += 1
"""


@pytest.fixture
def claims(tmp_path: Path) -> HostClaims:
    return HostClaims(tmp_path / "claims")


@pytest.fixture
def shared() -> Iterator[HostClaims]:
    """Where other users get, too, which pytest's own folder is not."""
    folder = Path(tempfile.mkdtemp(prefix="tflease-claims-"))
    folder.chmod(0o1777)
    yield HostClaims(folder / "claims")
    shutil.rmtree(folder)


def token(number: int = 1, coordinator_id: str = "c1") -> LeaseToken:
    return LeaseToken(coordinator_id, number)


@contextmanager
def claimer(
    claims: HostClaims,
    who: str,
    number: int = 1,
    coordinator_id: str = "c1",
    user: int | None = None,
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process that has tried, and what it said."""
    user = os.getuid() if user is None else user
    arguments = [str(claims.directory), GPU, who, coordinator_id, str(number), str(user)]
    command = [sys.executable, "-c", CLAIM, *arguments]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        try:
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


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


# -- whose it is ---------------------------------------------------------------------------


def test_two_coordinators_on_one_host_never_have_the_same_gpu(claims: HostClaims) -> None:
    """G2: their tokens are not compared; the claim decides, and the error names who has it (G5)."""
    with claimer(claims, "worker:0 of run r1") as (first, said):
        assert said == "claimed"
        with claimer(claims, "worker:0 of run r2", coordinator_id="c2") as (_, answer):
            assert answer.startswith(f"refused: worker:0 of run r1 (user {os.getuid()}, since 20")
            assert f"({first.pid},)" in answer
        first.kill()
        first.wait()
        with claimer(claims, "worker:0 of run r2", coordinator_id="c2") as (_, answer):
            assert answer == "claimed"


def test_of_many_at_once_only_one_has_it(claims: HostClaims) -> None:
    """G2."""
    with ExitStack() as stack:
        processes = []
        for number in range(4):
            arguments = [str(claims.directory), GPU, f"c{number}", "40"]
            command = [sys.executable, "-c", COMPETE, *arguments]
            processes.append(stack.enter_context(subprocess.Popen(command, cwd=ROOT)))
        assert [process.wait(120) for process in processes] == [0, 0, 0, 0]
    assert is_free(claims)


def test_the_claim_is_free_exactly_when_the_last_process_with_it_is_gone(
    claims: HostClaims,
) -> None:
    """O10: passed on by SCM_RIGHTS, inherited by a fork; whoever dies in between frees nothing."""
    ours, theirs = socket.socketpair()
    command = [sys.executable, "-c", KEEP, str(theirs.fileno())]
    with subprocess.Popen(
        command, pass_fds=[theirs.fileno()], stdout=subprocess.PIPE, text=True
    ) as member:
        theirs.close()
        fd = claims.claim(GPU, token(), "worker:0 of run r1", 0)
        socket.send_fds(ours, [b"gpu"], [fd])
        ours.close()
        assert member.stdout is not None
        helper = identity_of(int(member.stdout.readline()))
        assert helper is not None
        try:
            os.close(fd)
            assert holder(claims).pids == (member.pid, helper.pid)
            member.kill()
            member.wait()
            assert holder(claims).pids == (helper.pid,)
            assert holder(claims).holder.startswith("worker:0 of run r1")
        finally:
            with suppress(ProcessLookupError):
                os.kill(helper.pid, signal.SIGKILL)
        wait_gone([helper])
        assert is_free(claims)


def test_the_descriptor_does_not_leak_into_programs_that_are_started(claims: HostClaims) -> None:
    fd = claims.claim(GPU, token(), "me", 0)
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, close_fds=False) as process:
        os.close(fd)
        assert is_free(claims)
        process.kill()


def test_who_only_looks_is_in_nobodys_way(claims: HostClaims) -> None:
    with claims._locked(GPU, fcntl.LOCK_SH, None):  # as check_free
        assert is_free(claims)
    os.close(claims.claim(GPU, token(), "me", 0))


# -- users ---------------------------------------------------------------------------------


def test_a_claim_of_another_user_counts_and_its_file_serves_all(shared: HostClaims) -> None:
    """G2."""
    if os.getuid() != 0:
        pytest.skip("only root can start a process of another user")
    with claimer(shared, "theirs", 1, "c2", NOBODY) as (process, said):
        assert said == "claimed"
        assert shared.path(GPU).stat().st_uid == NOBODY
        assert holder(shared).holder.startswith(f"theirs (user {NOBODY}, since ")
        process.kill()
        process.wait()
        fd = shared.claim(GPU, token(), "ours", 0)  # the file is theirs
        with claimer(shared, "theirs", 2, "c2", NOBODY) as (_, answer):
            assert answer.startswith("refused: ours (user 0, since ")
        os.close(fd)
        with claimer(shared, "theirs", 3, "c2", NOBODY) as (_, answer):
            assert answer == "claimed"


def test_a_file_of_another_user_is_opened_where_the_kernel_protects_it(
    claims: HostClaims, monkeypatch: pytest.MonkeyPatch
) -> None:
    """fs.protected_regular: O_CREAT on another user's file in a directory for all is refused, even
    for root. What the kernel here does with it is its administrator's choice, so it is played."""
    really_open = os.open

    def protected(path: Any, flags: int, mode: int = 0o777, **options: Any) -> int:
        if flags & os.O_CREAT and not flags & os.O_EXCL and os.path.exists(path):
            raise PermissionError(errno.EACCES, "protected", path)
        return really_open(path, flags, mode, **options)

    monkeypatch.setattr(os, "open", protected)
    for number in (1, 2):
        os.close(claims.claim(GPU, token(number), "me", 0))


def test_directory_and_file_are_for_all_users_whatever_the_umask(claims: HostClaims) -> None:
    before = os.umask(0o077)
    try:
        os.close(claims.claim(GPU, token(), "me", 0))
    finally:
        os.umask(before)
    assert stat.S_IMODE(claims.directory.stat().st_mode) == 0o1777
    assert stat.S_IMODE(claims.path(GPU).stat().st_mode) == 0o666
