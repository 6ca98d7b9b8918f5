"""What a run waits for, in the words that everybody reads (R1)."""

from __future__ import annotations

from coordinator.core import diagnosis, events
from coordinator.core.model import Cause, Roles, Slots, TaskState
from tests.coordinator.core.scene import Scene, executor


def headline(scene: Scene) -> str:
    return diagnosis.headline(scene.view, scene.now)


def test_the_missing_worker_is_named_with_sparks_slots() -> None:
    """R1"""
    scene = Scene(Roles(chief=1, worker=2, ps=1))
    scene.scheduling(Slots(total=4, busy=4))
    scene.take_slots("chief:0", "ps:0", "worker:0")
    for one in ("chief:0", "ps:0", "worker:0"):
        scene.ready(one)
    assert headline(scene) == (
        "3 of 4 members ready; waiting for worker:1: task not scheduled, 4 of 4 slots busy"
    )
    assert scene.view.diagnosis == ("worker:1: task not scheduled, 4 of 4 slots busy",)


def test_slots_are_told_as_far_as_they_are_known() -> None:
    scene = Scene(Roles(worker=1))
    assert scene.view.diagnosis == ("worker:0: task not scheduled",)
    scene.scheduling(Slots(total=4))
    assert scene.view.diagnosis == ("worker:0: task not scheduled, the application has 4 slots",)
    scene.scheduling(Slots(total=4, busy=0))
    assert scene.view.diagnosis == ("worker:0: task not scheduled, 0 of 4 slots busy",)


def test_a_task_that_runs_but_never_connected_points_at_the_network() -> None:
    """R1"""
    scene = Scene(Roles(worker=1))
    scene.scheduling(tasks={"worker:0": TaskState(running=True)})
    assert scene.view.diagnosis == ("worker:0: its Spark task has started, its agent not yet",)
    scene.wait(20, beating=[])
    assert scene.view.diagnosis == (
        "worker:0: its Spark task runs but has not connected: is the coordinator's port reachable "
        "from the executors?",
    )


def test_a_connected_member_is_said_to_import_and_where() -> None:
    scene = Scene(Roles(worker=1))
    scene.reserve("worker:0", on=executor("node-a", executor_id="3"))
    assert scene.view.diagnosis == (
        "worker:0: connected, its process is still importing, on node-a (executor 3)",
    )


def test_silent_and_fenced_members_are_told_apart() -> None:
    scene = Scene(Roles(worker=2))
    scene.reserve("worker:0", on=executor("node-a"))
    scene.wait(15, beating=[])
    assert scene.view.diagnosis[0] == ("worker:0: connected, then not heard of any more, on node-a")
    scene.wait(125, beating=[])
    assert scene.view.diagnosis[0] == (
        "worker:0: was lost on node-a; no other task has taken its place"
    )


def test_the_end_of_the_last_attempt_is_told_with_its_reason_when_there_is_one() -> None:
    """R1"""
    scene = Scene(Roles(worker=1))
    scene.reserve("worker:0")
    scene.end("worker:0", Cause.PREEMPTED, reason="task died")
    assert scene.view.diagnosis == (
        "worker:0: task not scheduled (its last attempt ended: preempted, task died)",
    )
    scene.reserve("worker:0", "worker:0/2")
    scene.end("worker:0", Cause.PREEMPTED, attempt="worker:0/2")
    assert scene.view.diagnosis == (
        "worker:0: task not scheduled (its last attempt ended: preempted)",
    )


def test_members_with_the_same_trouble_share_a_sentence_and_only_five_are_named() -> None:
    scene = Scene(Roles(worker=100))
    assert scene.view.diagnosis == (
        "worker:0, worker:1, worker:2, worker:3, worker:4 and 95 more: task not scheduled",
    )


def test_a_running_gang_is_waited_for_until_main_is_entered() -> None:
    scene = Scene(Roles(worker=2))
    scene.form(enter=False)
    scene.enter("worker:0")
    assert headline(scene) == (
        "1 of 2 members running; waiting for worker:1: has the cluster spec, main_fun not entered "
        "yet, on host"
    )
    scene.enter("worker:1")
    assert headline(scene) == "2 of 2 members running"
    scene.say(events.ProgressMade, "worker:1", 1, 300)
    assert headline(scene) == "2 of 2 members running, step 300"


def test_a_stopping_run_names_who_is_still_there_and_whose_fence_is_awaited() -> None:
    scene = Scene(Roles(worker=3))
    scene.form()
    scene.wait(15, beating=["worker:0", "worker:2"])
    scene.end("worker:0", Cause.STOPPED)
    assert headline(scene) == (
        "stopping, 1 of 3 members gone; waiting for worker:1: not heard of since it was lost, on "
        "host; waiting for its fence; worker:2: still running, on host"
    )
    scene.end("worker:1", Cause.STOPPED)
    scene.end("worker:2", Cause.STOPPED)
    assert headline(scene) == "failed"
    assert scene.view.diagnosis == ()


def test_who_fetches_files_and_how_much_has_come() -> None:
    scene = Scene(Roles(worker=2))
    scene.form()
    come = {"fetch/bytes": 120e6, "fetch/total_bytes": 300e6}
    scene.say(events.ProgressMade, "worker:1", 1, 0, come)
    assert headline(scene) == "2 of 2 members running, worker:1 fetched 120 of 300 MB"
    scene.say(events.ProgressMade, "worker:1", 1, 0, {**come, "fetch/bytes": 300e6})
    assert headline(scene) == "2 of 2 members running"


def test_what_is_done_of_a_phase_is_told_where_it_is_known() -> None:
    scene = Scene(Roles(worker=2))
    assert diagnosis.share_done(scene.view) == 0.0
    scene.take_slots("worker:0", "worker:1")
    scene.ready("worker:0")
    assert diagnosis.share_done(scene.view) == 0.5
    scene.ready("worker:1")
    scene.enter("worker:0")
    scene.enter("worker:1")
    assert diagnosis.share_done(scene.view) is None, "nobody has said how many steps there are"
