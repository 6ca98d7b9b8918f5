"""A run's whole life with GPUs, through the one door."""

from __future__ import annotations

import pytest

from coordinator.core import diagnosis, events
from coordinator.core.effects import Effect, InspectGpus, SendStart
from coordinator.core.errors import ExecutorUnfit, LeaseLost
from coordinator.core.gpu import GpuOffer, LeaseState, LeaseToken
from coordinator.core.lease_entry import QUARANTINE_AFTER
from coordinator.core.liveness import STOP_BOUND
from coordinator.core.model import Cause, IncarnationId, MemberPhase, Roles, RunId, RunPhase
from tests.coordinator.core.gpu_scene import (
    GpuScene,
    busy,
    claims,
    free,
    inspections,
    noted,
)
from tests.coordinator.core.scene import executor, slot, told_to_start, told_to_stop

FREE, HELD, RELEASING, UNPROVEN, QUARANTINED = LeaseState


def tokens(scene: GpuScene, which: str) -> tuple[LeaseToken, ...]:
    """What a member's agent would renew."""
    views = (scene.gpu(uuid) for uuid in scene.member(which).gpus)
    return tuple(view.token for view in views if view.token is not None)


def two() -> GpuScene:
    """Each worker has a GPU of its own."""
    return GpuScene({"worker:0": "a", "worker:1": "b"})


def waiting() -> GpuScene:
    """GPU b is in the hands of an outsider."""
    scene = two()
    scene.reserve("worker:0")
    scene.reserve("worker:1", sights=[busy("b", "user alice", 77)])
    return scene


# -- to the start ------------------------------------------------------------------------------


def test_the_gang_claims_when_all_are_ready_and_starts_when_all_have_claimed() -> None:
    scene = two()
    scene.take_slots()
    assert claims(scene.ready("worker:0")) == {}
    assert scene.states() == {"a": FREE, "b": FREE}, "nothing is held while the gang forms"
    commands = claims(scene.ready("worker:1"))
    assert {who: list(each.grants) for who, each in commands.items()} == {
        "worker:0": ["a"],
        "worker:1": ["b"],
    }
    assert scene.states() == {"a": HELD, "b": HELD}
    assert told_to_start(scene.claimed(commands["worker:0"])) == []
    assert "its agent has not claimed b there yet" in scene.view.diagnosis[0]
    assert told_to_start(scene.claimed(commands["worker:1"])) == ["worker:0", "worker:1"]
    assert scene.member("worker:1").gpus == ("b",)
    assert scene.phase is RunPhase.RUNNING


def test_roles_that_ask_for_none_get_none() -> None:
    """G3."""
    scene = GpuScene({"worker:0": "a", "ps:0": "a", "evaluator:0": "a"},
                     Roles(worker=1, ps=1, evaluator=1))  # fmt: skip
    assert list(scene.start()) == ["worker:0"]
    assert scene.member("ps:0").gpus == ()
    assert scene.phase is RunPhase.RUNNING


def test_a_run_without_gpus_asks_for_none_also_where_there_are_some() -> None:
    scene = GpuScene({"worker:0": "a"}, gpus=Roles())
    scene.reserve("worker:0")
    assert told_to_start(scene.ready("worker:0")) == ["worker:0"]
    assert scene.states() == {"a": FREE}


@pytest.mark.parametrize("seen", [[], [free("a")], [free("a"), free("a")]])
def test_fewer_gpus_than_asked_for_are_an_error_at_once(seen: list[object]) -> None:
    """G4: never fewer, never the CPU instead."""
    scene = GpuScene({"worker:0": ""}, gpus=Roles(worker=2))
    event = events.ReservationRequested(
        scene.run_id, slot("worker:0"), IncarnationId("x"), executor(), None,  # type: ignore[arg-type]
        GpuOffer(tuple(seen), problem="NVML says nothing"),  # type: ignore[arg-type]
    )  # fmt: skip
    before = scene.view
    with pytest.raises(
        ExecutorUnfit, match=r"worker:0 needs 2 GPUs, but has \d on host: NVML"
    ) as e:
        scene.handle(event)
    assert e.value.metadata == {"wanted": "2", "found": str(len({*map(str, seen)}))}
    assert scene.view == before
    assert scene.states() == {}


def test_another_gpu_of_the_inventory_will_do() -> None:
    scene = GpuScene({"worker:0": "a b c"})
    scene.reserve("worker:0", sights=[busy("a"), free("b"), free("c")])
    assert list(claims(scene.ready("worker:0"))["worker:0"].grants) == ["b"]


def test_members_of_one_host_share_what_it_has() -> None:
    """G2."""
    scene = GpuScene({"worker:0": "a b c d", "worker:1": "a b c d"}, gpus=Roles(worker=2))
    commands = scene.start()
    granted = [uuid for each in commands.values() for uuid in each.grants]
    assert sorted(granted) == ["a", "b", "c", "d"]


def test_members_that_can_never_all_be_served_are_told_why() -> None:
    scene = GpuScene({"worker:0": "a", "worker:1": "a"}, reservation_timeout=30.0)
    scene.all_ready()
    scene.wait(31.0)
    assert scene.view.failure is not None
    assert "want 2 GPUs in all, but there are only 1" in scene.view.failure.summary


# -- what is in the way --------------------------------------------------------------------------


def test_what_an_outsider_has_is_looked_at_until_it_is_free() -> None:
    scene = waiting()
    scene.ready("worker:0")
    done = scene.ready("worker:1")
    [look] = inspections(done)
    assert (str(look.member), look.uuids, look.coordinator_id) == ("worker:1", ("b",), "book")
    assert claims(done) == {}
    assert scene.states() == {"a": FREE, "b": FREE}
    assert inspections(scene.inspected(look, busy("b", "user alice", 78))) == [], "it goes on"
    assert "user alice (pid 78)" in scene.view.diagnosis[0]
    assert set(claims(scene.inspected(look, free("b")))) == {"worker:0", "worker:1"}


def test_the_deadline_names_the_holder() -> None:
    """G5."""
    scene = waiting()
    for one in scene.slots:
        scene.ready(one)
    scene.wait(scene.spec.reservation_timeout + 1.0)
    assert scene.view.failure is not None
    assert scene.view.failure.cause is Cause.GANG_INCOMPLETE
    text = "worker:1: ready, waits for a GPU: GPU b (Test GPU) on host is in use by user alice"
    assert f"{text} (pid 77)" in scene.view.failure.summary


def test_who_waits_for_another_run_hears_its_name_and_since_when() -> None:
    scene = GpuScene({"worker:0": "a"})
    scene.start()
    other = late_run(scene, "late", "a")
    scene.now += 7.0
    [text] = scene.machine.view(other, scene.now).diagnosis
    holder = f"worker:0 of run {scene.run_id} (tflease)"
    assert text == (
        f"worker:0: ready, waits for a GPU: GPU a (Test GPU) on host is held by {holder}, for 7 s"
    )


def late_run(scene: GpuScene, name: str, uuids: str) -> RunId:
    """A run of one worker beside the scene's, ready."""
    late_run_on("host", scene, name, uuids)
    return RunId(name)


def late_run_on(host: str, scene: GpuScene, name: str, uuids: str) -> tuple[Effect, ...]:
    run_id = scene.another(name, Roles(worker=1))
    who = (run_id, slot("worker:0"), IncarnationId(name))
    offer = GpuOffer(tuple(map(free, uuids.split())))
    endpoint = scene.member("worker:0").endpoint
    assert endpoint is not None
    scene.handle(events.ReservationRequested(*who, executor(host), endpoint, offer))
    return scene.handle(events.ProcessReady(*who))


def test_the_next_run_gets_the_gpu_when_the_one_before_has_proven_its_end() -> None:
    scene = GpuScene({"worker:0": "a"})
    scene.start()
    late_run(scene, "late", "a")
    done = scene.end("worker:0", Cause.COMPLETED, gpus=(free("a"),))
    assert scene.phase is RunPhase.SUCCEEDED
    assert claims(done)["worker:0"].run_id == "late"


def test_without_proof_the_next_run_looks_first() -> None:
    """O10, O11."""
    scene = GpuScene({"worker:0": "a"})
    scene.start()
    late = late_run(scene, "late", "a")
    done = scene.end("worker:0", Cause.COMPLETED, gpus=(busy("a", "a forked helper", 99),))
    assert scene.states() == {"a": UNPROVEN}
    assert claims(done) == {}
    [look] = inspections(done)
    assert look.run_id == late
    assert "a forked helper (pid 99)" in scene.machine.view(late, scene.now).diagnosis[0]
    scene.now += QUARANTINE_AFTER
    scene.handle(events.TimePassed())
    assert scene.states() == {"a": QUARANTINED}
    who = (late, slot("worker:0"), IncarnationId("late"))
    scene.handle(events.Heard(*who))
    done = scene.handle(events.GpusInspected(*who, look.number, (free("a"),)))
    assert claims(done)["worker:0"].grants["a"].number > look.number


def test_who_waits_looks_also_at_what_an_outsider_takes_meanwhile() -> None:
    """It waits for b; a, which nobody holds for it, is taken from outside. Once b is back, a must
    have been looked at: else nobody ever would."""
    scene = GpuScene({"worker:0": "b"})
    scene.start()
    late_run(scene, "late", "a b")
    other = scene.another("both", Roles(worker=1), gpus=Roles(worker=2))
    who = (other, slot("worker:0"), IncarnationId("both"))
    endpoint = scene.member("worker:0").endpoint
    assert endpoint is not None
    offer = GpuOffer((free("c"), free("b")))
    scene.handle(events.ReservationRequested(*who, executor(), endpoint, offer))
    assert inspections(scene.handle(events.ProcessReady(*who))) == []
    third = scene.another("third", Roles(worker=1), gpus=Roles())
    seen = GpuOffer((busy("c", "user carol"),))
    third_is = (third, slot("worker:0"), IncarnationId("third"))
    done = scene.handle(events.ReservationRequested(*third_is, executor(), endpoint, seen))
    [look] = inspections(done)
    assert (look.run_id, look.uuids) == (other, ("c",))


def test_a_gpu_that_is_lost_with_its_host_is_free_after_one_look_there() -> None:
    """Its holder can neither be asked nor be waited for."""
    scene = GpuScene({"worker:0": "a"})
    scene.start()
    [look] = inspections(late_run_on("host-again", scene, "late", "a"))
    who = (look.run_id, look.member, look.incarnation)
    done = scene.handle(events.GpusInspected(*who, look.number, (free("a"),)))
    assert any("was lost with host" in text for text in noted(done))
    assert list(claims(done)) == ["worker:0"]
    with pytest.raises(LeaseLost):
        scene.say(events.Heard, "worker:0", (LeaseToken("book", 1),))


# -- a claim is refused --------------------------------------------------------------------------


def test_one_refusal_takes_everything_back_and_the_gang_asks_again() -> None:
    scene = two()
    commands = claims(scene.all_ready())
    scene.claimed(commands["worker:0"])
    done = scene.claimed(commands["worker:1"], busy("b", "the application next door", 5))
    assert {who: each.grants for who, each in claims(done).items()} == {
        "worker:0": {},
        "worker:1": {},
    }, "nobody keeps one GPU while it waits for another"
    assert scene.states() == {"a": FREE, "b": FREE}
    [look] = inspections(done)
    again = claims(scene.inspected(look, free("b")))
    assert again["worker:1"].grants["b"] > commands["worker:1"].grants["b"]
    assert again["worker:1"].number > commands["worker:1"].number
    scene.claimed(again["worker:0"])
    assert told_to_start(scene.claimed(again["worker:1"])) != []


def test_an_answer_to_an_earlier_claim_counts_for_nothing() -> None:
    scene = two()
    first = claims(scene.all_ready())
    [look] = inspections(scene.claimed(first["worker:1"], busy("b")))
    again = claims(scene.inspected(look, free("b")))
    scene.claimed(again["worker:1"])
    assert scene.claimed(first["worker:0"]) == ()
    assert scene.claimed(first["worker:0"], busy("a")) == ()
    assert scene.phase is RunPhase.FORMING
    assert told_to_start(scene.claimed(again["worker:0"])) != []


def test_while_one_waits_after_a_refusal_another_run_may_take_what_is_free() -> None:
    scene = two()
    commands = claims(scene.all_ready())
    late_run(scene, "late", "a")
    done = scene.claimed(commands["worker:1"], busy("b"))
    assert claims(done)["worker:0"].run_id == "late"
    assert scene.gpu("a").holder == "run late (late)"


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
