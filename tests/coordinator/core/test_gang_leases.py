"""A run's whole life with GPUs, through the one door."""

from __future__ import annotations

import pytest

from coordinator.core import events
from coordinator.core.effects import Effect
from coordinator.core.errors import ExecutorUnfit, LeaseLost
from coordinator.core.gpu import GpuOffer, LeaseState, LeaseToken
from coordinator.core.lease_entry import QUARANTINE_AFTER
from coordinator.core.model import Cause, IncarnationId, Roles, RunId, RunPhase
from tests.coordinator.core.gpu_scene import (
    GpuScene,
    busy,
    claims,
    free,
    inspections,
    noted,
)
from tests.coordinator.core.scene import executor, slot, told_to_start

FREE, HELD, RELEASING, UNPROVEN, QUARANTINED = LeaseState


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
    """Its holder can neither be asked nor be waited for, once it is not heard of any more."""
    scene = GpuScene({"worker:0": "a"})
    scene.start()
    assert inspections(late_run_on("host-again", scene, "early", "a")) == [], "it may still beat"
    scene.handle(events.StopRequested(RunId("early"), "enough"))
    scene.wait(scene.spec.fence_timeout / 2, beating=[])
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
