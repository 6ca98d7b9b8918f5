"""The arguments of `TFCluster.run`: nonsense is refused before anything is started."""

from __future__ import annotations

import math
import socket
from pathlib import Path
from typing import Any

import pytest

from coordinator.core.access import ClientTls
from coordinator.core.errors import InvalidRun
from coordinator.core.model import Role, Roles
from coordinator.core.policy import RestartPolicy
from coordinator.core.stall_timeouts import StallTimeouts
from coordinator.spark.options import InputMode, Options
from executor_agent.core.feed_values import FeedKey

DEFAULTS: dict[str, Any] = {
    "roles": Roles(worker=1),
    "gpus": None,
    "input_mode": InputMode.TENSORFLOW,
    "reservation_timeout": 600.0,
    "name": "tflease",
    "completion": None,
    "grace": None,
    "preload": ("tensorflow",),
    "env": None,
    "log_dir": None,
    "tensorboard": False,
    "show_logs": False,
    "model_dir": None,
    "bind": None,
    "progress": True,
    "coordinator": None,
    "token_file": None,
    "ca_file": None,
    "cert_file": None,
    "key_file": None,
    "owner_timeout": 300.0,
    "advertise": None,
    "ports": None,
    "network": None,
    "anchor": "task",
    "restart": None,
    "stall_timeouts": None,
}
DAEMON = {"coordinator": "grpc://driver:7787"}
SECURE = {"coordinator": "grpcs://driver:7787"}


def options(**changes: Any) -> Options:
    return Options.of(**{**DEFAULTS, **changes})


def test_roles_may_be_a_mapping() -> None:
    assert options(roles={"chief": 1, "ps": 2}).spec.roles == Roles(chief=1, ps=2)


def test_grace_is_given_by_role_and_the_others_keep_theirs() -> None:
    spec = options(grace={"chief": 60}).spec
    assert (spec.grace_of(Role.CHIEF), spec.grace_of(Role.PS)) == (60.0, 0.0)


def test_names_of_completion_become_roles() -> None:
    found = options(roles=Roles(chief=1, worker=1), completion=["worker"]).spec.completion
    assert found == {Role.WORKER}


def test_a_path_may_be_a_path() -> None:
    """It used to fail on the executor, four times, in Spark's hands."""
    found = options(log_dir=Path("/logs"), model_dir="s3a://bucket/model")
    assert (found.log_dir, found.model_dir) == ("/logs", "s3a://bucket/model")


@pytest.mark.parametrize(
    "changes, complaint",
    [
        ({"roles": {"wroker": 1}}, "unknown role 'wroker'"),
        ({"roles": Roles(ps=1)}, "nobody trains"),
        ({"roles": 3}, "roles must be"),
        ({"input_mode": "tensorflow"}, "input_mode must be an InputMode"),
        ({"reservation_timeout": 0}, "reservation_timeout must be a number of seconds"),
        ({"reservation_timeout": -1.0}, "reservation_timeout"),
        ({"reservation_timeout": math.inf}, "reservation_timeout"),
        ({"reservation_timeout": math.nan}, "reservation_timeout"),
        ({"reservation_timeout": None}, "reservation_timeout"),
        ({"reservation_timeout": "ten minutes"}, "reservation_timeout"),
        ({"name": ""}, "name must be"),
        ({"name": None}, "name must be"),
        ({"name": "two\nlines"}, "printable"),
        ({"name": "\udcff"}, "printable"),
        ({"name": "\x1b[2J"}, "printable"),
        ({"completion": "chief"}, "collection of names"),
        ({"completion": ["boss"]}, "unknown role 'boss'"),
        ({"completion": ["ps"]}, "completion names ps, which has no members"),
        ({"completion": 3}, "collection of names"),
        ({"grace": {"boss": 1}}, "unknown role 'boss'"),
        ({"grace": {"ps": "long"}}, "grace"),
        ({"grace": {"ps": 1e9}}, "grace of ps"),
        ({"grace": 5}, "grace must map role names to seconds"),
        ({"preload": "tensorflow"}, "collection of names"),
        ({"preload": [3]}, "names of modules"),
        ({"preload": ["--directory"]}, "names of modules"),
        ({"preload": ["a..b"]}, "names of modules"),
        ({"preload": [""]}, "names of modules"),
        ({"preload": None}, "collection of names"),
        ({"env": {"A": 1}}, "env must map strings to strings"),
        ({"env": {1: "A"}}, "env must map strings to strings"),
        ({"env": {"": "A"}}, "env cannot set"),
        ({"env": {"A=B": "C"}}, "env cannot set"),
        ({"env": {"A": "B\0"}}, "env cannot set"),
        ({"log_dir": 3}, "log_dir must be a path"),
        ({"model_dir": b"/model"}, "model_dir must be a path"),
        ({"bind": "driver"}, "bind must be"),
        ({"bind": ":7077"}, "bind must be"),
        ({"bind": "driver:http"}, "bind must be"),
        ({"bind": "driver:65536"}, "bind must be"),
        ({"bind": "driver:\N{SUPERSCRIPT TWO}"}, "bind must be"),
        ({"bind": 7077}, "bind must be"),
        ({"bind": "fd00::7:7077"}, "bind must be"),
        ({"coordinator": "driver:7787"}, '"grpc://host:port"'),
        ({"coordinator": "http://driver:7787"}, '"grpc://host:port"'),
        ({"coordinator": "grpc://driver"}, '"grpc://host:port"'),
        ({"coordinator": "grpc://driver:0"}, '"grpc://host:port"'),
        ({"coordinator": "grpc://driver:7787/path"}, '"grpc://host:port"'),
        ({"coordinator": "grpc://me:secret@driver:7787"}, '"grpc://host:port"'),
        ({"coordinator": 7787}, '"grpc://host:port"'),
        ({**DAEMON, "bind": "driver:1"}, "bind is for the coordinator that is started"),
        ({**DAEMON, "advertise": "driver"}, "advertise is for the coordinator that is started"),
        ({"token_file": "token"}, r"pass coordinator=\.\.\. too"),
        ({**DAEMON, "token_file": 3}, "token_file must be a path"),
        ({"coordinator": "grpcs://driver"}, '"grpcs://host:port"'),
        ({"ca_file": "ca.pem"}, r"ca_file is for .* TLS"),
        ({**DAEMON, "ca_file": "ca.pem"}, r"ca_file is for .* TLS"),
        ({**DAEMON, "key_file": "key.pem"}, r"key_file is for .* TLS"),
        ({**SECURE, "ca_file": 3}, "ca_file must be a path"),
        ({**SECURE, "cert_file": "cert.pem"}, "belong together"),
        ({**SECURE, "key_file": "key.pem"}, "belong together"),
        ({**DAEMON, "owner_timeout": 0}, "owner_timeout must be a number of seconds"),
        ({**DAEMON, "owner_timeout": math.inf}, "owner_timeout"),
        ({"advertise": ""}, "advertise must be"),
        ({"advertise": "driver:0"}, "advertise must be"),
        ({"advertise": "driver:http"}, "advertise must be"),
        ({"advertise": "two words"}, "advertise must be"),
        ({"advertise": 3}, "advertise must be"),
        ({"ports": "40000"}, 'ports must be "40000-40100"'),
        ({"ports": "40100-40000"}, "first port first"),
        ({"ports": "80-90"}, "within 1024-65535"),
        ({"ports": (40000, 65536)}, "within 1024-65535"),
        ({"ports": (40000, True)}, "ports must be"),
        ({"ports": (40000,)}, "ports must be"),
        ({"ports": 40000}, "ports must be"),
        ({"network": "10.20.0.0"}, "network must be"),
        ({"network": "10.20.0.1/16"}, "has host bits set"),
        ({"network": "eth0"}, "network must be"),
        ({"network": 10}, "network must be"),
        ({"anchor": "job"}, 'anchor must be "task" or "executor"'),
        ({"anchor": 1}, "anchor must be"),
        ({"restart": 3}, r"restart must be a RestartPolicy, such as RestartPolicy\(max_restarts=3"),
        ({"stall_timeouts": 60}, r"stall_timeouts must be StallTimeouts\(\.\.\.\) or a mapping"),
        ({"stall_timeouts": {"steps": 60}}, "names 'steps': sections are start, step, checkpoint"),
        ({"stall_timeouts": {"step": 0}}, "the stall timeout of step must be a number of seconds"),
        ({"stall_timeouts": {"step": "soon"}}, "the stall timeout of step must be a number"),
    ],
)
def test_nonsense_is_refused_by_name(changes: dict[str, Any], complaint: str) -> None:
    """R1: at once, and not after a deadline."""
    with pytest.raises(InvalidRun, match=complaint):
        options(**changes)


@pytest.mark.parametrize("name", ["mnist", "modèle numéro 1", "a, b; c/d", "\N{SNOWMAN}", "-x"])
def test_a_name_may_have_odd_characters(name: str) -> None:
    assert options(name=name).spec.name == name


def test_members_that_spark_feeds_get_a_key_that_nobody_sees() -> None:
    fed = options(input_mode=InputMode.SPARK)
    assert fed.feed_key is not None
    assert fed.feed_key != options(input_mode=InputMode.SPARK).feed_key, "each run has its own"
    task = fed.task("run", "h:1", "token", b"", 1.0)
    assert task.feed_key is not None
    assert FeedKey.from_plain(task.feed_key) == fed.feed_key
    assert "executor_agent.feed.server" in task.preload, "it loads what it needs while others come"
    for secret in ("PRIVATE KEY", fed.feed_key.secret.hex(), repr(fed.feed_key.secret)):
        assert secret not in repr(fed) + repr(task)


def test_members_that_nobody_feeds_have_no_key() -> None:
    task = options().task("run", "h:1", "token", b"", 1.0)
    assert (task.feed_key, task.preload) == (None, ("tensorflow",))


def test_without_a_policy_nothing_is_restarted() -> None:
    task = options().task("run", "h:1", "token", b"", 1.0)
    assert (options().spec.restart.max_restarts, task.restart_causes) == (0, ())


def test_a_task_knows_after_what_it_starts_its_member_again() -> None:
    """Not when the task itself goes, nor after what the policy does not answer."""
    policy = RestartPolicy(on={"user exception": "restart", "stalled": "fail"})  # type: ignore[dict-item]
    causes = options(restart=policy).task("run", "h:1", "token", b"", 1.0).restart_causes
    assert {"user exception", "killed by signal", "out of memory"} <= set(causes)
    assert not {"preempted", "stalled", "completed", "stopped"} & set(causes)


def test_in_a_fed_run_no_worker_starts_again_alone() -> None:
    policy = RestartPolicy(max_restarts=7)
    assert options(restart=policy).spec.restart.alone
    fed = options(restart=policy, input_mode=InputMode.SPARK).spec.restart
    assert (fed.alone, fed.max_restarts) == (False, 7)


def test_stall_timeouts_may_be_a_mapping_and_the_others_stay() -> None:
    found = options(stall_timeouts={"step": "60", "checkpoint": None}).spec.stall
    assert found == StallTimeouts(step=60.0, checkpoint=None)
    assert options(stall_timeouts=found).spec.stall is found
    assert options().spec.stall == StallTimeouts()


def test_no_gpus_for_anybody_may_be_said() -> None:
    """G3."""
    assert options(gpus={"worker": 0}).spec.gpus.total == 0


@pytest.mark.parametrize("gpus", [Roles(worker=2), {"worker": 2}])
def test_gpus_are_asked_for_by_role_and_the_others_get_none(gpus: Any) -> None:
    """G3."""
    found = options(roles=Roles(worker=1, ps=1), gpus=gpus)
    assert found.spec.gpus == Roles(worker=2)
    task = found.task("run", "h:1", "token", b"", 1.0, 5.0)
    assert task.gpus == {"chief": 0, "worker": 2, "ps": 0, "evaluator": 0}
    assert task.created_at == 5.0


@pytest.mark.parametrize(
    "gpus, complaint",
    [
        ({"master": 1}, "gpus, the number for each member of a role: unknown role 'master'"),
        ({"worker": -1}, "gpus, .* less than 0"),
        ({"worker": 0.5}, "gpus, .* must be an int"),
        (1, "gpus, .* must be Roles"),
        ({"ps": 1}, "gpus names ps, which has no members"),
    ],
)
def test_a_number_of_gpus_that_makes_no_sense_is_refused(gpus: Any, complaint: str) -> None:
    """G4: asked for n, gets n or a clear error."""
    with pytest.raises(InvalidRun, match=complaint):
        options(gpus=gpus)


@pytest.mark.parametrize("name", ["CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"])
def test_nobody_takes_a_gpu_past_its_lease(name: str) -> None:
    """G2."""
    with pytest.raises(InvalidRun, match=f"env cannot set {name}.*gpus=Roles"):
        options(env={name: "0"})


@pytest.mark.parametrize(
    "master, driver_host, address",
    [
        ("local[4]", "127.0.0.1", "127.0.0.1"),
        ("local-cluster[2,1,1024]", "127.0.0.1", "127.0.0.1"),
        ("local[4]", "::1", "::1"),
        ("local[4]", "[::1]", "::1"),
        ("local[4]", "localhost", "127.0.0.1"),
        ("local[4]", "", "0.0.0.0"),
        ("local[4]", "no-such-host.invalid", "0.0.0.0"),
        ("spark://master:7077", "10.0.0.1", "0.0.0.0"),
        ("yarn", "driver.example", "0.0.0.0"),
    ],
)
def test_on_one_machine_nobody_else_needs_to_reach_the_coordinator(
    master: str, driver_host: str, address: str
) -> None:
    """R9: on a cluster `spark.driver.host` may be no address of this machine (NAT, a pod)."""
    assert options().bind_address(master, driver_host) == (address, 0)


def test_a_name_of_both_versions_is_bound_by_version_4(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [
        (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", 0, 0, 0)),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0)),
    ]
    monkeypatch.setattr("coordinator.spark.options.socket.getaddrinfo", lambda *_, **__: found)
    assert options().bind_address("local[2]", "me") == ("127.0.0.1", 0)


@pytest.mark.parametrize(
    "bind, listens, told",
    [
        ("10.0.0.7:7077", ("10.0.0.7", 7077), "10.0.0.7"),
        ("[fd00::7]:7077", ("fd00::7", 7077), "fd00::7"),
        ("0.0.0.0:7077", ("0.0.0.0", 7077), "driver.example"),
        ("[::]:7077", ("::", 7077), "driver.example"),
        (None, ("0.0.0.0", 0), "driver.example"),
    ],
)
def test_members_are_told_an_address_at_which_something_listens(
    bind: str | None, listens: tuple[str, int], told: str
) -> None:
    """R9: a driver with two networks, of which Spark uses the other one."""
    found = options(bind=bind)
    assert found.bind_address("yarn", "driver.example") == listens
    assert found.advertised("driver.example") == (told, None)


@pytest.mark.parametrize(
    "advertise, told",
    [
        ("gateway.example", ("gateway.example", None)),
        ("gateway.example:30777", ("gateway.example", 30777)),
        ("[fd00::9]:30777", ("fd00::9", 30777)),
        ("fd00::9", ("fd00::9", None)),
    ],
)
@pytest.mark.parametrize("bind", [None, "10.0.0.7:7077"])
def test_members_are_told_what_was_asked_for(
    advertise: str, told: tuple[str, int | None], bind: str | None
) -> None:
    """R9: behind a NAT, or a service of Kubernetes."""
    found = options(advertise=advertise, bind=bind)
    assert found.advertised("driver.example") == told
    # On one machine, too: it would not be reached where it is advertised.
    listens = ("10.0.0.7", 7077) if bind else ("0.0.0.0", 0)
    assert found.bind_address("local[4]", "127.0.0.1") == listens


@pytest.mark.parametrize(
    "coordinator, address",
    [
        ("grpc://driver.example:7787", "driver.example:7787"),
        ("grpc://10.0.0.7:7787/", "10.0.0.7:7787"),
        ("GRPC://[fd00::7]:7787", "[fd00::7]:7787"),
    ],
)
def test_a_daemon_is_named_by_its_address(coordinator: str, address: str) -> None:
    found = options(coordinator=coordinator, owner_timeout=7)
    assert found.daemon == address
    assert found.spec.owner_timeout == 7.0


def test_the_address_says_whether_a_daemon_speaks_tls() -> None:
    files = {"ca_file": Path("/ca.pem"), "cert_file": "/cert.pem", "key_file": "/key.pem"}
    found = options(**{**SECURE, **files})
    assert (found.daemon, found.is_secure) == ("driver:7787", True)
    assert (found.ca_file, found.cert_file, found.key_file) == tuple(map(str, files.values()))
    assert options(coordinator="GRPCS://driver:7787").is_secure
    assert not options(**DAEMON).is_secure
    assert not options().is_secure


def test_an_embedded_coordinator_needs_no_clock_for_its_driver() -> None:
    """O13: a debugger or a suspended laptop cancels nothing."""
    assert options().spec.owner_timeout is None


@pytest.mark.parametrize("ports", ["40000-40100", " 40000 - 40100 ", (40000, 40100)])
def test_a_range_of_ports_is_text_or_a_pair(ports: Any) -> None:
    assert options(ports=ports).ports == (40000, 40100)


def test_a_task_carries_what_its_agent_needs_for_tls_and_does_not_show_it() -> None:
    tls = ClientTls("the authority", "the certificate", "the key", "the name")
    task = options().task("run", "h:1", "token", b"", 1.0, tls=tls)
    assert task.tls is not None
    assert ClientTls.of(task.tls) == tls
    assert "the key" not in repr(task) + repr(tls)
    assert options().task("run", "h:1", "token", b"", 1.0).tls is None


def test_a_range_may_be_one_port() -> None:
    """How many members meet on one host nobody knows yet."""
    assert options(ports=(40000, 40000)).ports == (40000, 40000)


def test_a_task_carries_what_members_need_and_shows_no_secret() -> None:
    found = options(
        env={"A": "B"},
        preload=["json", "email.mime"],
        log_dir="/logs",
        ports="40000-40100",
        network="10.20.0.0/16",
        anchor="executor",
    )
    task = found.task("run", "driver:7077", "the token", b"the payload", 60.0)
    assert (task.members, task.run_id, task.coordinator) == ((), "run", "driver:7077")
    assert (task.env, task.preload, task.has_log_dir) == ({"A": "B"}, ("json", "email.mime"), True)
    assert (task.ports, task.network) == ((40000, 40100), "10.20.0.0/16")
    assert task.anchor == "executor"
    assert task.grace == {"chief": 5.0, "worker": 5.0, "evaluator": 5.0, "ps": 0.0}
    assert "the token" not in repr(task)
