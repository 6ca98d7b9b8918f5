"""A run's GPUs when members come and go, at work, and at the end."""

from __future__ import annotations

import pytest

from coordinator.core import diagnosis, events
from coordinator.core.effects import InspectGpus, SendStart
from coordinator.core.errors import LeaseLost
from coordinator.core.gpu import GpuOffer, LeaseState, LeaseToken
from coordinator.core.lease_entry import QUARANTINE_AFTER
from coordinator.core.liveness import STOP_BOUND
from coordinator.core.model import Cause, IncarnationId, MemberPhase, Roles, RunId, RunPhase
from tests.coordinator.core.gpu_scene import GpuScene, busy, claims, free, noted
from tests.coordinator.core.scene import executor, slot, told_to_start, told_to_stop
from tests.coordinator.core.test_gang_leases import late_run, two, waiting

FREE, HELD, RELEASING, UNPROVEN, QUARANTINED = LeaseState


def tokens(scene: GpuScene, which: str) -> tuple[LeaseToken, ...]:
    """What a member's agent would renew."""
    views = (scene.gpu(uuid) for uuid in scene.member(which).gpus)
    return tuple(view.token for view in views if view.token is not None)


# -- members that come and go ----------------------------------------------------------------------


def test_who_vacates_its_slot_while_the_gang_forms_gives_everything_back() -> None:
    scene = two()
    commands = claims(scene.all_ready())
    scene.claimed(commands["worker:0"])
    done = scene.end("worker:1", Cause.PREEMPTED)
    assert {who: each.grants for who, each in claims(done).items()} == {"worker:0": {}}
    assert scene.states() == {"a": FREE, "b": FREE}
    scene.reserve("worker:1", "worker:1/2")
    again = claims(scene.ready("worker:1"))
    assert list(again) == ["worker:0", "worker:1"]
    assert all(each.number > commands["worker:0"].number for each in again.values())


def test_a_grant_that_comes_while_a_member_is_lost_is_not_forgotten() -> None:
    """The grant finds the gang incomplete; it must neither be held for ever nor be lost."""
    for comes_back in (True, False):
        scene = GpuScene({"worker:0": "a"})
        scene.start()
        late_run(scene, "late", "a")
        who = (RunId("late"), slot("worker:0"), IncarnationId("late"))
        scene.now += 16.0
        scene.handle(events.Heard(scene.run_id, slot("worker:0"), scene.attempt("worker:0")))
        scene.handle(events.TimePassed())
        scene.beat("worker:0")
        view = scene.machine.view(RunId("late"), scene.now)
        assert view.members[0].phase is MemberPhase.LOST
        if scene.phase is RunPhase.RUNNING:
            done = scene.end("worker:0", Cause.COMPLETED, gpus=(free("a"),))
            assert claims(done) == {}
        assert scene.gpu("a").holder == "run late (late)"
        if comes_back:
            assert list(claims(scene.handle(events.Heard(*who)))) == ["worker:0"]
        else:
            scene.handle(events.StopRequested(RunId("late"), "enough"))
            assert scene.states() == {"a": FREE}


def test_a_lost_member_that_comes_back_is_told_what_counts_now() -> None:
    """Not the claim that was taken back while it was away."""
    scene = two()
    commands = claims(scene.all_ready())
    scene.claimed(commands["worker:0"])
    scene.wait(20.0, beating=["worker:1"])
    assert scene.member("worker:0").phase is MemberPhase.LOST
    scene.end("worker:1", Cause.PREEMPTED)
    done = scene.say(events.SessionOpened, "worker:0")
    assert claims(done)["worker:0"].grants == {}
    assert scene.states() == {"a": FREE, "b": FREE}


def test_a_lapsed_lease_is_not_started_with() -> None:
    """Its member was away for longer than the lease lives, and came back before its fence."""
    scene = two()
    commands = claims(scene.all_ready())
    scene.claimed(commands["worker:0"])
    scene.claimed(commands["worker:0"])
    while scene.now < scene.spec.fence_timeout + 1.0:
        scene.now += 1.0
        scene.say(events.Heard, "worker:1", tokens(scene, "worker:1"))
        scene.handle(events.TimePassed())
    scene.claimed(commands["worker:1"])
    assert scene.phase is RunPhase.FORMING
    done = scene.say(events.SessionOpened, "worker:0")
    assert told_to_start(done) == []
    again = claims(done)
    assert again["worker:0"].grants["a"] > commands["worker:0"].grants["a"]


@pytest.mark.parametrize("is_started", [False, True])
def test_a_lost_session_is_told_again_what_it_may_have_missed(is_started: bool) -> None:
    """Before the start only: afterwards the descriptors are its member's, not its agent's."""
    scene = two()
    commands = claims(scene.all_ready())
    if is_started:
        for command in commands.values():
            scene.claimed(command)
        [start] = scene.say(events.SessionOpened, "worker:0")
        assert isinstance(start, SendStart)
    else:
        assert scene.say(events.SessionOpened, "worker:0") == (commands["worker:0"],)


def test_a_lost_session_is_told_both_to_let_go_and_to_look() -> None:
    scene = two()
    commands = claims(scene.all_ready())
    scene.claimed(commands["worker:1"], busy("b"))
    let_go, look = scene.say(events.SessionOpened, "worker:1")
    assert claims([let_go])["worker:1"].grants == {}
    assert isinstance(look, InspectGpus)


def test_a_refusal_after_the_start_takes_nothing_from_who_uses_it() -> None:
    """An agent that is asked twice finds its own member in the way."""
    scene = two()
    commands = scene.start()
    assert scene.claimed(commands["worker:0"], busy("a", "worker:0 itself")) == ()
    assert scene.states() == {"a": HELD, "b": HELD}


# -- at work -------------------------------------------------------------------------------------


def test_beats_renew() -> None:
    scene = two()
    scene.start()
    scene.now = 14.0
    scene.say(events.Heard, "worker:0", tokens(scene, "worker:0"))
    assert scene.gpu("a").expires_at == 14.0 + scene.spec.fence_timeout
    assert scene.gpu("b").expires_at == scene.spec.fence_timeout


def test_a_beat_with_a_lease_that_is_over_is_refused_and_no_sign_of_life() -> None:
    """The scenario of the stale incarnation: it must stop."""
    scene = two()
    scene.start()
    before, deadline = scene.view, scene.machine.next_deadline()
    scene.now = 5.0
    for wrong in (LeaseToken("book", 99), LeaseToken("other", 1), tokens(scene, "worker:1")[0]):
        with pytest.raises(LeaseLost):
            scene.say(events.Heard, "worker:0", (wrong,))
    for _ in range(100):
        scene.now = min(scene.now + 1.0, 15.0)
        scene.beat("worker:1")
    assert scene.machine.next_deadline() == deadline
    assert scene.view.revision == before.revision


def test_what_was_just_given_back_may_still_stand_in_a_beat() -> None:
    scene = two()
    commands = claims(scene.all_ready())
    mine = tokens(scene, "worker:0")
    scene.claimed(commands["worker:1"], busy("b"))
    assert scene.say(events.Heard, "worker:0", mine) == ()


def test_who_is_told_to_stop_is_releasing_and_its_proof_makes_it_free() -> None:
    scene = two()
    scene.start()
    scene.stop()
    assert scene.states() == {"a": RELEASING, "b": RELEASING}
    scene.end("worker:0", Cause.STOPPED, gpus=(free("a"),))
    scene.end("worker:1", Cause.STOPPED)
    assert scene.phase is RunPhase.CANCELLED
    assert scene.states() == {"a": FREE, "b": UNPROVEN}
    assert "nobody has seen the GPU free since" in scene.gpu("b").reason


def test_who_is_lost_is_fenced_and_leaves_its_gpu_unproven() -> None:
    scene = two()
    scene.start()
    scene.wait(16.0, beating=[])
    assert scene.states()["a"] in (HELD, RELEASING), "it may be there"
    scene.wait(scene.spec.fence_timeout + STOP_BOUND, beating=[])
    assert scene.phase is RunPhase.FAILED
    assert set(scene.states().values()) <= {UNPROVEN, QUARANTINED}
    assert "not heard of any more" in scene.gpu("a").reason
    scene.wait(QUARANTINE_AFTER + 1.0, beating=[])
    assert scene.states() == {"a": QUARANTINED, "b": QUARANTINED}


def test_a_task_that_returns_brings_the_proof_as_well() -> None:
    scene = GpuScene({"worker:0": "a"})
    scene.start()
    scene.task_returns("worker:0", Cause.COMPLETED, gpus=(free("a"),))
    assert scene.phase is RunPhase.SUCCEEDED
    assert scene.states() == {"a": FREE}


@pytest.mark.parametrize("is_granted", [True, False])
def test_a_run_that_ends_while_it_forms_gives_everything_back(is_granted: bool) -> None:
    scene = two() if is_granted else waiting()
    if not is_granted:
        scene.ready("worker:0")
        scene.ready("worker:1")
    else:
        scene.all_ready()
    assert told_to_stop(scene.stop()) == ["worker:0", "worker:1"]
    assert scene.states() == {"a": FREE, "b": FREE}
    assert scene.machine.book.holders() == {}
    assert [text for text in diagnosis.explain(scene.view, scene.now) if "GPU" in text] == []


def test_a_lapse_is_noted_in_words() -> None:
    scene = GpuScene({"worker:0": "a"})
    scene.start()
    while scene.now < scene.spec.fence_timeout:  # heard of, but it renews nothing
        scene.now += 5.0
        scene.beat("worker:0")
        done = scene.handle(events.TimePassed())
    assert noted(done) == ["worker:0 has not renewed its lease of GPU a in time"]


def test_two_runs_that_want_the_same_two_gpus_both_have_them_in_turn() -> None:
    scene = GpuScene({"worker:0": "a b", "worker:1": "a b"})
    scene.start()
    other = scene.another("other", Roles(worker=2))
    endpoints = [scene.member(one).endpoint for one in ("worker:0", "worker:1")]
    who = [(other, slot(f"worker:{i}"), IncarnationId(f"other{i}")) for i in range(2)]
    for each, endpoint in zip(who, endpoints, strict=True):
        assert endpoint is not None
        offer = GpuOffer((free("b"), free("a")))
        scene.handle(events.ReservationRequested(*each, executor(), endpoint, offer))
        scene.handle(events.ProcessReady(*each))
    scene.end("worker:0", Cause.COMPLETED, gpus=(free(scene.member("worker:0").gpus[0]),))
    assert HELD in scene.states().values()
    done = scene.end("worker:1", Cause.COMPLETED, gpus=(free(scene.member("worker:1").gpus[0]),))
    commands = claims(done)
    assert [each.run_id for each in commands.values()] == [other, other]
    for each, command in zip(who, commands.values(), strict=True):
        done = scene.handle(events.GpusClaimed(*each, command.number))
    assert len(told_to_start(done)) == 2
