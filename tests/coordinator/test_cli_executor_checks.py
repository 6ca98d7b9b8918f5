"""What `tflease doctor --spark` makes of what it hears of executors, without Spark."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from coordinator.check import Check, Status
from coordinator.core.gpu import LeaseToken
from coordinator.core.model import VERSION
from coordinator.spark import host_checks
from coordinator.spark.network_checks import Driver
from coordinator.spark.roll_call import RollCall
from coordinator.testing import FakeGpus
from executor_agent import host_facts
from executor_agent.core.supervision import MARKER_VARIABLE
from executor_agent.examination import ExaminationTask, Facts
from executor_agent.gpu_claims import HostClaims
from executor_agent.processes import identity_of
from executor_agent.traces import marker_of
from tests.integration.sentinel_helpers import eventually

DRIVER = Driver("3.11.7", VERSION, java="17.0.9", address="10.0.0.9:4000")

GOOD = Facts(
    hostname="node-a",
    executor_id="0",
    examined=True,
    python="3.11.9",
    executable="/opt/python",
    java="17.0.9",
    address="10.0.0.1:5000",
    reached={"driver": ""},
    peers=1,
    versions={
        "tflease": VERSION,
        "grpcio": "1.80.0",
        "protobuf": "7.0.0",
        "pyarrow": "20.0",
        "tensorflow": "2.21.0",
    },
    imports={"executor_agent.agent": "", "tensorflow": ""},
    limits={"nofile": 65536, "nproc": None, "address space": None},
    home={"path": "/tmp/t", "problem": "", "free_bytes": 1 << 40, "free_files": 1000},
    leftovers={"found": [], "count": 0, "living": 0, "broken": []},
    gpus={"has_driver": False, "devices": [], "problem": "NVML cannot be asked"},
    gpu_claims={"directory": "/tmp/g", "problem": "", "held": [], "unusable": [], "gone": []},
)
OTHER = replace(GOOD, hostname="node-b", executor_id="1", address="10.0.0.2:5000")


def lines(*hosts: Facts, driver: Driver = DRIVER) -> dict[str, Check]:
    """By name; the worst of those with the same name."""
    found: dict[str, Check] = {}
    for each in host_checks.lines(driver, hosts):
        assert each.status is not Status.FAILED or each.advice, f"what is to be done? {each}"
        if each.name not in found or each.status is not Status.OK:
            found[each.name] = each
    return found


def test_good_hosts_have_no_line_that_says_otherwise() -> None:
    found = lines(GOOD, OTHER)
    assert {each.status for each in found.values()} == {Status.OK}
    assert found["executors"].found == "2 executors on 2 hosts looked at, by 2 tasks"
    assert found["between executors"].found == "all reach each other (all of 2 hosts)"


@pytest.mark.parametrize(
    "name, status, said, changes",
    [
        ("Python there", "failed", "3.12.1, but the driver's is 3.11.7", {"python": "3.12.1"}),
        ("tflease there", "failed", "0.0.1, but", {"versions": {"tflease": "0.0.1"}}),
        ("grpcio there", "failed", "1.70, which is not >=1.76", {"versions": {"grpcio": "1.70"}}),
        ("protobuf there", "failed", "not installed", {"versions": {"protobuf": None}}),
        ("tensorflow there", "failed", "signal 4", {"imports": {"tensorflow": "signal 4"}}),
        ("tensorflow there", "note", "2.20.1 (node-b)", {"versions": {"tensorflow": "2.20.1"}}),
        ("agent there", "failed", "No module", {"imports": {"executor_agent.agent": "No module"}}),
        ("Java there", "note", "21.0.1 (node-b), and the driver's is 17", {"java": "21.0.1"}),
        ("kernel there", "note", "no pidfds", {"kernel": "no pidfds"}),
        ("directory there", "failed", "is not writable", {"home": {"problem": "is not writable"}}),
        ("disk there", "failed", "0 MiB free", {"home": {"free_bytes": 1000}}),
        ("disk there", "failed", "no files", {"home": {"free_files": 0}}),
        ("disk there", "note", "500 MiB free", {"home": {"free_bytes": 500 << 20}}),
        ("address space there", "failed", "4096 MiB", {"limits": {"address space": 4 << 30}}),
        ("limits there", "note", "256 descriptors", {"limits": {"nofile": 256}}),
        ("way to driver", "failed", "timed out", {"reached": {"driver": "timed out"}}),
        ("way to driver", "failed", "not tried", {"reached": {"driver": None}}),
        ("members' ports", "failed", "no free port", {"port_problem": "no free port"}),
        ("between executors", "failed", "node-a at", {"unreached": ["node-a at 10.0.0.1: no"]}),
        ("between executors", "failed", "tell hosts apart", {"address": "10.0.0.1:5001"}),
        ("between executors", "failed", "tell hosts apart", {"address": "127.0.0.1:5001"}),
        ("GPUs there", "failed", "Spark assigned", {"gpus": {"has_driver": True}}),
        ("GPUs there", "note", "GPU-a: lost", {"gpus": {"errors": ["GPU-a: lost"]}}),
        ("GPU claims", "failed", "/tmp/g is bad", {"gpu_claims": {"problem": "is bad"}}),
        ("GPU claims", "failed", "x cannot", {"gpu_claims": {"unusable": ["x cannot"]}}),
        ("GPU claims", "note", "GPU-a", {"gpu_claims": {"gone": ["GPU-a"]}}),
        ("left behind", "note", "pid 7", {"leftovers": {"found": ["worker:1: pid 7"]}}),
        ("left behind", "note", "x.json cannot", {"leftovers": {"broken": ["x.json"]}}),
        ("not looked at", "failed", "gpus: OSError", {"unseen": {"gpus": "OSError"}}),
    ],
)  # fmt: skip
def test_what_is_wrong_on_one_of_two_hosts_is_said_of_that_one(
    name: str, status: str, said: str, changes: dict[str, object]
) -> None:
    base = replace(OTHER, gpus={"has_driver": False, "problem": "Spark assigned what is not here"})
    merged = {}
    for each, value in changes.items():
        full = {**getattr(base, each), **value} if isinstance(value, dict) else {}
        kept = {key: found for key, found in full.items() if found is not None}
        merged[each] = kept if isinstance(value, dict) else value
    found = lines(GOOD, replace(base, **merged))  # type: ignore[arg-type]
    assert found[name].status.value == status, found[name]
    assert said in found[name].found
    assert "node-b" in found[name].found
    wrong = {each.name for each in found.values() if each.status is not Status.OK}
    assert wrong == {name}


def test_gpus_that_spark_has_assigned_must_be_there() -> None:
    assigned = replace(GOOD, assigned=["0"])
    assert lines(assigned)["GPUs there"].status is Status.FAILED
    assert lines(GOOD)["GPUs there"].found == "none"


def test_a_coordinator_that_was_named_must_be_reached_and_the_driver_need_not() -> None:
    driver = replace(DRIVER, address=None, coordinator="10.0.0.9:7787")
    found = lines(replace(GOOD, reached={"coordinator": "timed out"}), driver=driver)
    assert found["way to coordinator"].status is Status.FAILED
    assert "tflease serve --listen" in found["way to coordinator"].advice
    assert found["way to driver"].status is Status.NOTE


def test_the_way_from_the_driver_is_for_your_information() -> None:
    found = lines(GOOD, driver=replace(DRIVER, unreached={"node-a": "10.0.0.1:5000 timed out"}))
    assert found["way from driver"].status is Status.NOTE


def test_facts_travel_and_those_of_another_version_are_left_out() -> None:
    assert Facts.from_json(GOOD.to_json()) == GOOD
    assert Facts.from_json(json.dumps({"hostname": "a", "future": 1})) == Facts(hostname="a")


# --- the roll call, over real sockets -------------------------------------------------------------


def task(driver: str | None, **changes: object) -> ExaminationTask:
    made = ExaminationTask(("0",), driver, None, modules=("json", "no_such_module"))
    return replace(made, **changes)  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_task_looks_at_its_host_and_is_reached_from_the_driver() -> None:
    with closing(RollCall("127.0.0.1", "secret", expected=1)) as call:
        facts = task(f"127.0.0.1:{call.port}", name="secret").examine(("0",))
        heard = call.close()
    assert facts.examined
    assert facts.unseen == {}
    assert facts.reached == {"driver": ""}
    assert facts.assigned == ["0"]
    assert facts.imports["json"] == ""
    assert "ModuleNotFoundError" in facts.imports["no_such_module"]
    assert facts.versions["tflease"] == VERSION
    assert heard.addresses == {socket.gethostname(): facts.address}
    assert heard.unreached == {}


@pytest.mark.slow
def test_of_two_tasks_on_a_host_one_looks_at_it_and_both_are_counted() -> None:
    with (
        closing(RollCall("127.0.0.1", "secret", expected=2)) as call,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as first,
    ):
        first.bind("\0tflease-examination-secret")
        facts = task(f"127.0.0.1:{call.port}", name="secret").examine()
        assert call.close().calls == 1
    assert not facts.examined
    assert facts.python


def test_a_stranger_learns_nothing_and_is_not_counted() -> None:
    with closing(RollCall("127.0.0.1", "secret", expected=1)) as call:
        for said in (
            b"GET / HTTP/1.1\n",
            b'{"examination": "guess", "host": "x", "address": "y"}\n',
            b"x" * 100_000,
        ):
            with socket.create_connection(("127.0.0.1", call.port), 10) as stranger:
                try:
                    stranger.sendall(said)
                    stranger.shutdown(socket.SHUT_WR)
                    assert stranger.recv(100) == b""
                except ConnectionResetError:
                    pass  # as good
        assert call.close().calls == 0


@pytest.mark.slow
def test_a_driver_and_a_coordinator_out_of_reach_are_reported() -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        nobody = f"127.0.0.1:{gone.getsockname()[1]}"
    facts = task(nobody, coordinator=nobody, modules=()).examine()
    assert facts.reached == {"driver": "Connection refused", "coordinator": "Connection refused"}


# --- the host's facts -----------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TFLEASE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TFLEASE_GPU_CLAIMS", str(tmp_path / "claims"))
    return tmp_path


@pytest.fixture
def orphan(home: Path) -> Iterator[str]:
    """O14: a marked process that no sentinel looks after; its run."""
    run = uuid.uuid4().hex
    marker = f"{run}/worker:1/a"
    process = subprocess.Popen(["sleep", "600"], env={**os.environ, MARKER_VARIABLE: marker})
    try:
        identity = identity_of(process.pid)
        assert identity is not None
        eventually(lambda: marker_of(process.pid) == marker, "the program to run")
        yield run
    finally:
        process.kill()
        process.wait()


def test_orphans_are_found_and_left_alone(orphan: str, home: Path) -> None:
    found = host_facts.leftovers_here()
    [line] = [each for each in found["found"] if orphan in each]
    assert "worker:1 of run" in line
    assert "pid " in line
    assert not (home / "home").exists(), "nothing is changed"


def test_claims_are_held_unusable_or_of_gpus_that_are_not_there(home: Path) -> None:
    assert host_facts.examine_gpu_claims({})["held"] == []
    assert not (home / "claims").exists(), "nothing is changed"
    claims = HostClaims()
    fd = claims.claim("GPU-a", LeaseToken("c", 1), "worker:0 of run 3fa9", None)
    try:
        (home / "claims/GPU-b.claim").write_text("no json")
        found = host_facts.examine_gpu_claims({"uuids": ["GPU-b"]})
    finally:
        os.close(fd)
    assert "worker:0 of run 3fa9" in found["held"][0]
    assert found["unusable"] == ["GPU-b.claim cannot be understood"]
    assert found["gone"] == ["GPU-a"]
    (home / "claims").chmod(0o777)
    assert "lets others remove" in host_facts.examine_gpu_claims({})["problem"]


def test_gpus_are_what_nvml_shows(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gpus = FakeGpus(home / "nvml")
    monkeypatch.setenv("TFLEASE_FAKE_NVML", str(home / "nvml"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    uuids = gpus.add(2)
    found = host_facts.examine_gpus(None)
    assert found["uuids"] == uuids
    assert found["problem"] == ""
    assert "'7'" in host_facts.examine_gpus(["7"])["problem"]


def test_a_members_directory_of_others_is_unfit(home: Path) -> None:
    assert host_facts.members_directory()["problem"] == ""
    (home / "home").mkdir(mode=0o755)
    (home / "home").chmod(0o755)
    assert stat.S_IMODE((home / "home").stat().st_mode) == 0o755
    assert "mode 0700" in host_facts.members_directory()["problem"]


@pytest.mark.slow
def test_an_import_that_ends_the_interpreter_is_named(home: Path) -> None:
    (home / "deadly.py").write_text("import os; os.abort()")
    sys.path.insert(0, str(home))
    try:
        imports = host_facts.Imports(("json", "deadly", "tensorflow"))
    finally:
        sys.path.remove(str(home))
    with closing(imports):
        found = imports.result(60)
    assert found["json"] == found["tensorflow"] == "", "the latter was not tried"
    assert "signal 6" in found["deadly"]


@pytest.mark.slow
def test_an_import_that_hangs_is_given_up(home: Path) -> None:
    (home / "endless.py").write_text("import time; time.sleep(600)")
    sys.path.insert(0, str(home))
    try:
        imports = host_facts.Imports(("endless",))
    finally:
        sys.path.remove(str(home))
    with closing(imports):
        assert "took longer" in imports.result(0.5)["endless"]
