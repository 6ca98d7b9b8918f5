"""Records that cannot be read, and records of other versions."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

import pytest

from coordinator.core.durable import STATE_VERSION, BrokenRecord, Key, Record, migrate
from coordinator.core.durable_values import codec
from coordinator.core.effects import ClaimGpus, InspectGpus
from coordinator.core.gpu import GpuSight, LeaseToken
from coordinator.core.lease_news import Acquired
from coordinator.core.machine import Machine
from coordinator.core.model import (
    Cause,
    Endpoint,
    ExecutorInfo,
    ExitReport,
    Failure,
    Restart,
    Roles,
    RunId,
    RunSpec,
    Slots,
    TaskState,
)
from coordinator.core.policy import RestartPolicy
from coordinator.core.stall_timeouts import StallTimeouts
from coordinator.core.verdict import Observed
from tests.coordinator.core.gpu_scene import GpuScene

OFFSET = 1e9

# -- what cannot be read ---------------------------------------------------------------------------


def records() -> dict[Key, Record]:
    scene = GpuScene({"worker:0": "a", "worker:1": "b"})
    scene.start()
    scene.stop()
    scene.end("worker:1", Cause.STOPPED)
    scene.disk.write(scene.machine)
    return scene.disk.records()


def without(field: str) -> Callable[[Record], object]:
    return lambda record: record.pop(field)


def with_(**fields: Any) -> Callable[[Record], object]:
    return lambda record: record.update(fields)


@pytest.mark.parametrize(
    "key, spoil",
    [
        (("book", "numbers"), without("number")),
        (("gpu", "a"), with_(state="rented")),
        (("gpu", "a"), with_(index="1")),
        (("gpu", "a"), with_(pids=7)),
        (("gpu", "a"), with_(request_id="another")),
        (("grant", "run-1/1"), with_(tokens={"z": {"coordinator_id": "book", "number": 1}})),
        (("spec", "run-1"), with_(beat_interval=100.0)),
        (("spec", "run-1"), with_(made_by_a_newer_one=1)),
        (("run", "run-1"), with_(created_at=None)),
        (("run", "run-1"), with_(phase=[])),
        (("member", "run-1/worker:0"), with_(executor=5)),
        (("member", "run-1/worker:0"), with_(commands=[["Explode", {}]])),
        (("ending", "run-1"), with_(kind="bad")),
        (("gang", "run-1"), None),
        (("gang_gpus", "run-1"), None),
        (("member", "run-1/worker:0"), None),
        (("spec", "run-1"), None),
        (("book", "numbers"), None),
    ],
)
def test_a_record_that_is_broken_is_named(
    key: Key, spoil: Callable[[Record], object] | None
) -> None:
    found = records()
    if spoil is None:
        del found[key]
    else:
        spoil(found[key])
    with pytest.raises(BrokenRecord) as error:
        Machine.restore("book", found, 0.0, OFFSET)
    assert (error.value.kind, error.value.key) == key
    assert repr(key[0]) in str(error.value)
    assert repr(key[1]) in str(error.value)


def test_one_broken_record_among_many_is_named() -> None:
    """They are read many at a time."""
    found = records()
    found |= {("gpu", f"GPU-{n:04}"): {**found["gpu", "a"], "state": "free"} for n in range(1200)}
    Machine.restore("book", found, 0.0, OFFSET)
    found["gpu", "GPU-0700"]["name"] = 7
    with pytest.raises(BrokenRecord, match="7 is no str") as error:
        Machine.restore("book", found, 0.0, OFFSET)
    assert (error.value.kind, error.value.key) == ("gpu", "GPU-0700")


SLOTS = Slots(2, 1)


@pytest.mark.parametrize(
    "kind, values",
    [
        (float | None, (None, 1.0, None, float("inf"), -0.5)),
        (Slots | None, (None, SLOTS, None, Slots(3, 0), SLOTS)),
        (tuple[Slots, ...], ((), (SLOTS, Slots(5, 4)), (), (SLOTS,))),
        (tuple[str, tuple[int, ...]] | None, (("a", (1, 2)), None, ("b", ()), ("c", (3,)))),
        (Mapping[str, tuple[str, ...]], ({}, {"a": ("x", "y"), "b": ()}, {"a": ("z",)})),
        (frozenset[str], (frozenset("ab"), frozenset(), frozenset("b"))),
        (Slots | Endpoint, (SLOTS, Endpoint("host", 1), Slots(0, 0))),
        (TaskState, (TaskState(), TaskState())),
        (Cause | None, (Cause.STOPPED, None, Cause.USER_EXCEPTION)),
    ],
)
def test_values_that_are_read_together_come_back_each_in_its_place(
    kind: Any, values: tuple[Any, ...]
) -> None:
    form = codec(kind)
    plains = json.loads(json.dumps([form.dump(value, OFFSET) for value in values]))
    assert tuple(form.load(plains, OFFSET)) == values
    assert tuple(form.load([], OFFSET)) == ()


@pytest.mark.parametrize(
    "kind, plain",
    [
        (str, 5),
        (int, True),
        (float, None),
        (Cause, "no such"),
        (Slots, [2, 1]),
        (Slots, {"total": 2}),
        (Slots, {"total": 2, "busy": 1, "more": 0}),
        (Slots, {"total": 2, "other": 1}),
        (Slots | Endpoint, ["Other", {}]),
        (tuple[int, ...], {"1": 1}),
        (tuple[str, int], ["a"]),
        (tuple[str, int], ["a", 1, 2]),
        (Mapping[str, int], [["a", 1]]),
    ],
)
def test_what_a_type_is_not_is_refused_also_among_others(kind: Any, plain: Any) -> None:
    good = {str: "a", int: 1, float: 1.0, Cause: "stopped", Slots: {"total": 2, "busy": 1}}
    for plains in ([plain], [good[kind], plain] if kind in good else [plain]):
        with pytest.raises((KeyError, TypeError, ValueError)):
            codec(kind).load(plains, OFFSET)


@pytest.mark.parametrize(
    "key", [("member", "run-2/worker:0"), ("end", "run-1/7"), ("surprise", "x")]
)
def test_a_record_of_nothing_is_named(key: Key) -> None:
    with pytest.raises(BrokenRecord, match="belongs to nothing") as error:
        Machine.restore("book", {**records(), key: {}}, 0.0, OFFSET)
    assert (error.value.kind, error.value.key) == key


# -- versions --------------------------------------------------------------------------------------


def test_records_of_an_older_version_are_brought_up_to_date() -> None:
    old = records()
    old["book", "numbers"] = {"counter": old["book", "numbers"]["number"]}

    def rename(before: Any) -> Any:
        assert before is old
        return {**before, ("book", "numbers"): {"number": before["book", "numbers"]["counter"]}}

    new = migrate(old, 0, to_version=1, migrations={0: rename})
    assert json.dumps([*map(str, new)]) == json.dumps([*map(str, records())])
    Machine.restore("book", new, 0.0, OFFSET).check_invariants()


def test_a_member_of_version_1_was_fed_by_nobody() -> None:
    old = {key: dict(record) for key, record in records().items()}
    reserved = [key for key, record in old.items() if record.get("endpoint")]
    assert reserved
    for key in reserved:
        old[key]["endpoint"] = {"host": "10.0.0.1", "port": 4000}
    new = migrate(old, 1, to_version=2)
    assert {new[key]["endpoint"]["feed_port"] for key in reserved} == {0}
    Machine.restore("book", new, 0.0, OFFSET).check_invariants()


def test_a_run_of_version_2_was_never_restarted_and_nobody_in_it_was_late() -> None:
    old = {key: dict(record) for key, record in records().items() if key[0] != "restarts"}
    added = {"run": ["restart_at"], "member": ["section"], "spec": ["restart", "stall"]}
    for (kind, _), record in old.items():
        for name in added.get(kind, ()):
            del record[name]
    machine = Machine.restore("book", migrate(old, 2), 0.0, OFFSET)
    machine.check_invariants()
    view = machine.view(RunId("run-1"), 0.0)
    assert (view.restart_count, view.spec.restart.max_restarts) == (0, 0)
    assert view.spec.stall.step is None


def test_records_of_this_version_are_taken_as_they_are() -> None:
    found = records()
    assert migrate(found, STATE_VERSION) is found


def test_records_of_a_newer_version_are_refused() -> None:
    with pytest.raises(ValueError, match="use the newer tflease"):
        migrate({}, STATE_VERSION + 1)


def test_records_that_nobody_can_bring_up_to_date_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot read state of version 0"):
        migrate({}, 0, to_version=1, migrations={})


VALUES = (
    *(Acquired, ClaimGpus, Endpoint, ExecutorInfo, ExitReport, Failure, GpuSight, InspectGpus),
    *(LeaseToken, Observed, Restart, RestartPolicy, Roles, RunSpec, Slots, StallTimeouts),
    TaskState,
)
FORM = """
Acquired: request_id tokens uuids
ClaimGpus: run_id member incarnation number grants
Endpoint: host port feed_port
ExecutorInfo: hostname boot_id pid executor_id python_version tflease_version directory leftovers
ExitReport: cause exit_code signal killed_by_us reason exception_type message traceback log_tail
  proof survivors max_rss_bytes stop_seconds gpus
Failure: cause summary member exit others
GpuSight: uuid is_free index name memory_total memory_used holder pids
InspectGpus: run_id member incarnation number coordinator_id uuids
LeaseToken: coordinator_id number
Observed: member report executor after_stop
Restart: at generation cause summary member host step alone
RestartPolicy: max_restarts on backoff max_backoff progress_refills alone
Roles: chief worker ps evaluator
RunSpec: roles name reservation_timeout liveness_ttl fence_timeout beat_interval grace completion
  python_version tflease_version owner_timeout gpus restart stall
Slots: total busy
StallTimeouts: start step checkpoint evaluation
TaskState: running failed message
book: number
end: after_stop executor member report
ending: failure grace kind reason stage stage_deadline verdict_deadline
gang: generation
gang_gpus: has_asked has_started is_granted round since
gpu: boot_id elsewhere has_lapsed holder hostname index is_put_aside name outsider pids reason
  request_id since state token ttl who
grant: request_id tokens uuids
member: commands endpoint executor exit granted incarnation is_claiming is_ready metrics offer
  past phase phase_at section step stop_sent task
restarts: best_saved best_step count in_a_row latest undone
run: created_at ended_at forming_deadline number phase request_id restart_at revision settled slots
"""


def test_the_form_of_records_is_that_of_their_version() -> None:
    """Whoever changes it gives it another version, and a step from the one before."""
    found = {kind: sorted(record) for (kind, _), record in records().items() if kind != "spec"}
    found |= {each.__name__: [item.name for item in fields(each)] for each in VALUES}
    form = "".join(f"{name}: {' '.join(names)}\n" for name, names in sorted(found.items()))
    assert (STATE_VERSION, form) == (3, FORM.replace("\n  ", " ").lstrip())
