"""What is written of a coordinator, and how it comes back from it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from coordinator.core import events
from coordinator.core.durable import (
    COME_BACK,
    Key,
)
from coordinator.core.effects import ClaimGpus, InspectGpus, SendStart, SendStop
from coordinator.core.errors import LeaseLost
from coordinator.core.gpu import LeaseState
from coordinator.core.machine import KEPT_RUNS, Machine
from coordinator.core.model import (
    Cause,
    MemberPhase,
    Roles,
    RunId,
    RunPhase,
    RunSpec,
)
from coordinator.core.policy import RestartPolicy
from tests.coordinator.core.gpu_scene import GpuScene, busy, claims, free, request
from tests.coordinator.core.scene import Scene, told_to_stop
from tests.property.restarts import Disk, restarted

OFFSET = 1e9


def restart(scene: Scene, away: float = 0.0) -> None:
    """The coordinator is killed after all was written, and comes back."""
    scene.disk.write(scene.machine)
    scene.now += away
    scene.machine = scene.disk.start(scene.now)


def changed(scene: Scene) -> set[Key]:
    return set(scene.machine.take_changes(OFFSET).put)


# -- what is written -------------------------------------------------------------------------------


def test_only_what_has_changed_is_written() -> None:
    scene = Scene(Roles(worker=50))
    scene.form()
    scene.machine.handle(events.ProgressMade(*who(scene, "worker:7"), 1, 5, {"loss": 0.5}), 1.0)
    assert changed(scene) == {("member", "run-1/worker:7"), ("run", "run-1")}


def who(scene: Scene, which: str) -> tuple[Any, ...]:
    return scene.run_id, scene.member(which).id, scene.attempt(which)


def test_a_beat_and_a_word_that_says_nothing_new_are_not_written() -> None:
    scene = GpuScene({"worker:0": "a"})
    held = scene.start()["worker:0"].grants
    scene.disk.write(scene.machine)
    for word in (
        events.Heard(*who(scene, "worker:0"), leases=tuple(held.values())),
        events.SessionOpened(*who(scene, "worker:0")),
        events.SessionClosed(*who(scene, "worker:0")),
        events.OwnerCame(scene.run_id),
        events.TimePassed(),
    ):
        scene.machine.handle(word, 1.0)
        assert not scene.machine.has_changes


def test_a_grant_is_written_with_its_gpu_and_its_number() -> None:
    machine = Machine("book", durable=True)
    machine.book.see("host", "boot", [free("a"), free("b")], 0.0)
    machine.take_changes(OFFSET)
    machine.book.acquire(request("r"), 0.0)
    machine.settle_gpus(0.0)
    changes = machine.take_changes(OFFSET)
    assert set(changes.put) == {("gpu", "a"), ("grant", "r"), ("book", "numbers")}
    assert changes.put["gpu", "a"]["since"] == OFFSET


def test_without_durability_nothing_is_collected() -> None:
    machine = Machine("book")
    machine.handle(events.RunCreated(RunId("run"), RunSpec(Roles(worker=2))), 0.0)
    assert not machine.has_changes
    assert machine.take_changes(OFFSET).put == {}


def test_a_run_that_is_forgotten_leaves_no_record() -> None:
    scene = Scene(Roles(worker=1))
    scene.form()
    scene.end("worker:0", Cause.USER_EXCEPTION)
    for number in range(KEPT_RUNS + 1):
        scene.now += 1.0
        other = RunId(f"other-{number}")
        scene.machine.handle(events.RunCreated(other, RunSpec(Roles(worker=1))), scene.now)
        scene.machine.handle(events.StopRequested(other, "enough"), scene.now)
        scene.disk.write(scene.machine)
    assert scene.run_id not in scene.machine.run_ids()
    assert not [key for key in scene.disk.texts if "run-1" in key[1]]
    assert [key for key in scene.disk.texts if "other-100" in key[1]]


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), 1e300, -0.5])
def test_numbers_that_json_has_not_come_back(value: float) -> None:
    scene = Scene(Roles(worker=1))
    scene.form()
    metrics = {"loss": value, "nothing": float("nan")}
    scene.machine.handle(events.ProgressMade(*who(scene, "worker:0"), 1, 5, metrics), 1.0)
    restart(scene)
    found = scene.member("worker:0").metrics
    assert found["loss"] == value
    assert found["nothing"] != found["nothing"]


# -- coming back -----------------------------------------------------------------------------------


def test_without_records_it_is_a_new_one() -> None:
    machine = Machine.restore("book", {}, 0.0, OFFSET)
    machine.handle(events.RunCreated(RunId("run"), RunSpec(Roles(worker=1))), 0.0)
    assert machine.has_changes


def test_instants_are_those_of_the_wall_clock() -> None:
    """The machine's clock begins anew with the process."""
    scene = Scene(Roles(worker=1))
    scene.now = 50.0
    scene.reserve("worker:0")
    disk = Disk(offset=1000.0)
    scene.disk.write(scene.machine)
    disk.texts = dict(scene.disk.texts)  # written at offset 0: the wall clock says 50
    machine = Machine.restore("book", disk.records(), 3.0, 57.0)
    assert machine.view(scene.run_id, 3.0).members[0].phase_at == 50.0 - 57.0


def test_silence_begins_anew_and_still_has_its_consequence() -> None:
    scene = Scene(Roles(worker=2))
    scene.form()
    restart(scene, away=1000.0)
    scene.handle(events.TimePassed())
    assert scene.phase is RunPhase.RUNNING
    scene.wait(COME_BACK - 1.0, beating=["worker:0"])  # more than liveness_ttl: all come at once
    assert scene.phase is RunPhase.RUNNING
    scene.wait(2.0, beating=["worker:0"])
    assert scene.phases()["worker:1"] == MemberPhase.LOST


def test_a_run_is_found_by_the_request_that_created_it_also_after_a_restart() -> None:
    """Whoever was not answered asks again, and must not get a second run."""
    machine = Machine("book", durable=True)
    machine.handle(events.RunCreated(RunId("a"), RunSpec(Roles(worker=1)), "asked once"), 0.0)
    disk = Disk()
    disk.write(machine)
    restored = Machine.restore("book", disk.records(), 1.0, 0.0)
    assert restored.run_of_request("asked once") == "a"
    assert restored.run_of_request("") is None


def test_nobody_misses_a_deadline_because_the_coordinator_was_away() -> None:
    scene = Scene(Roles(worker=2), reservation_timeout=60.0)
    restart(scene, away=1000.0)
    scene.wait(COME_BACK - 1.0)
    assert scene.phase is RunPhase.FORMING
    scene.wait(2.0)
    assert scene.phase is RunPhase.FAILED


def test_a_wall_clock_that_was_set_back_makes_no_wait_longer() -> None:
    scene = Scene(Roles(worker=2), reservation_timeout=60.0)
    scene.disk.write(scene.machine)
    machine = Machine.restore("book", scene.disk.records(), 0.0, -100_000.0)
    assert machine.next_deadline() == 60.0


def test_the_backoff_of_a_restart_is_a_pause_that_goes_on_while_the_coordinator_is_away() -> None:
    """Unlike a deadline, nobody can miss it: it is no reason to wait any longer."""
    scene = Scene(Roles(worker=1), restart=RestartPolicy(2, backoff=8.0))
    scene.form()
    for _ in range(2):
        scene.end("worker:0", Cause.KILLED_BY_SIGNAL)
        if scene.phase is RunPhase.FORMING:
            scene.form_again()
    assert scene.phase is RunPhase.RESTARTING
    restart(scene, away=7.0)
    assert scene.phase is RunPhase.RESTARTING
    scene.wait(1.0)
    assert scene.phase is RunPhase.FORMING


def test_the_owner_has_its_full_time_again() -> None:
    scene = Scene(Roles(worker=1), owner_timeout=300.0)
    scene.handle(events.OwnerCame(scene.run_id))
    scene.form()
    restart(scene, away=10.0)
    scene.wait(299.0)
    assert scene.phase is RunPhase.RUNNING
    scene.wait(2.0)
    assert scene.phase is RunPhase.STOPPING


def test_a_run_that_stops_goes_on_with_its_stages() -> None:
    scene = Scene(Roles(chief=1, ps=1))
    scene.form()
    assert told_to_stop(scene.stop()) == ["chief:0"]
    restart(scene)
    assert told_to_stop(scene.end("chief:0", Cause.STOPPED)) == ["ps:0"]
    scene.end("ps:0", Cause.STOPPED)
    assert scene.phase is RunPhase.CANCELLED
    assert scene.view.stop_reason == "enough"


def test_the_verdict_remembers_who_failed_first() -> None:
    scene = Scene(Roles(worker=2))
    scene.form()
    scene.end("worker:1", Cause.PEER_LOST)
    restart(scene, away=5.0)
    scene.end("worker:0", Cause.OUT_OF_MEMORY)
    failure = scene.view.failure
    assert failure is not None
    assert (str(failure.member), failure.cause) == ("worker:0", Cause.OUT_OF_MEMORY)
    assert len(failure.others) == 1


def test_an_attempt_that_is_over_stays_so() -> None:
    scene = Scene(Roles(worker=2))
    scene.reserve("worker:0", "worker:0/1")
    scene.end("worker:0", Cause.PREEMPTED)
    scene.reserve("worker:0", "worker:0/2")
    restart(scene)
    with pytest.raises(Exception, match="held worker:0 and is over"):
        scene.reserve("worker:0", "worker:0/1")


# -- what may have been lost with the process is said again ----------------------------------------


def starting(scene: GpuScene) -> None:
    for command in claims(scene.all_ready()).values():
        scene.claimed(command)


def waiting(scene: GpuScene) -> None:
    scene.take_slots()
    scene.reserve("worker:0", sights=[busy("a")])
    for one in scene.slots:
        scene.ready(one)


def stopping(scene: GpuScene) -> None:
    scene.start()
    scene.stop()


def fenced(scene: GpuScene) -> None:
    scene.start()
    scene.wait(300.0, beating=[])
    assert scene.phases()["worker:0"] is MemberPhase.FENCED


@pytest.mark.parametrize(
    "until, command",
    [
        (GpuScene.all_ready, ClaimGpus),
        (waiting, InspectGpus),
        (starting, SendStart),
        (stopping, SendStop),
        (fenced, SendStop),
    ],
)
def test_a_member_that_attends_again_is_told_again(
    until: Callable[[GpuScene], object], command: type[Any]
) -> None:
    """In the words of before, also what nobody knows whether it arrived (O3)."""
    scene = GpuScene({"worker:0": "a", "worker:1": "b"})
    if until is waiting:
        scene.machine.book.see("host", "boot-of-host", [busy("a")], scene.now)
        scene.machine.settle_gpus(scene.now)
    until(scene)
    before = scene.say(events.SessionOpened, "worker:0")
    restart(scene)
    again = scene.say(events.SessionOpened, "worker:0")
    assert again[: len(before)] == before  # and perhaps looks once more at GPUs
    assert command in map(type, again)


# -- GPUs ------------------------------------------------------------------------------------------


def test_a_lease_lives_on_with_its_full_time_and_numbers_go_on() -> None:
    machine, disk = Machine("book", durable=True), Disk()
    machine.book.see("host", "boot", [free("a"), free("b")], 0.0)
    granted = machine.book.acquire(request("r", {"w": ("a", 1)}), 0.0)
    assert granted is not None
    machine.settle_gpus(0.0)
    machine = restarted(machine, disk, 90.0)
    assert machine.book.view("a").expires_at == 190.0
    machine.book.renew("r", [granted.tokens["a"]], 150.0)
    other = machine.book.acquire(request("s", {"w": ("b", 1)}), 150.0)
    assert other is not None
    assert other.tokens["b"] > granted.tokens["a"]


def test_a_lease_that_has_lapsed_stays_refused() -> None:
    machine, disk = Machine("book", durable=True), Disk()
    machine.book.see("host", "boot", [free("a")], 0.0)
    granted = machine.book.acquire(request("r"), 0.0)
    assert granted is not None
    machine.handle(events.TimePassed(), 101.0)
    machine = restarted(machine, disk, 102.0)
    with pytest.raises(LeaseLost, match="has lapsed"):
        machine.book.renew("r", granted.tokens.values(), 103.0)


def test_who_waited_behind_a_call_that_is_gone_goes_on() -> None:
    """A call that waits is gone with the process; a run is not."""
    scene = GpuScene({"worker:0": "a b"})
    scene.take_slots()
    book = scene.machine.book
    assert book.acquire(request("held", {"x": ("a", 1)}), 0.0) is not None
    assert book.acquire(request("waits", {"x": ("a b", 2)}), 0.0) is None
    scene.machine.handle(events.ProcessReady(*who(scene, "worker:0")), 0.0)
    assert book.view("b").state is LeaseState.FREE
    restart(scene)
    done = scene.machine.handle(events.TimePassed(), scene.now)
    assert [list(each.grants) for each in done if isinstance(each, ClaimGpus)] == [["b"]]
