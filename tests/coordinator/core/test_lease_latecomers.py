"""Words that come late or twice, and places in the queue that must not be lost by them."""

from __future__ import annotations

import pytest

from coordinator.core import events
from coordinator.core.errors import InvalidRun
from coordinator.core.gpu import LeaseState
from coordinator.core.lease_book import LeaseBook
from coordinator.core.liveness import STOP_BOUND
from coordinator.core.model import Cause, ExitReport, Proof, Roles, RunPhase
from tests.coordinator.core.gpu_scene import (
    GpuScene,
    busy,
    claims,
    free,
    inspections,
    request,
)
from tests.coordinator.core.scene import slot
from tests.coordinator.core.test_gang_leases import late_run


def test_a_request_that_can_never_be_served_keeps_nothing_from_others() -> None:
    book = LeaseBook("book")
    book.see("host", "boot", [free("a")], 0.0)
    both = {"worker:0": ("a", 1), "worker:1": ("a", 1)}
    assert book.acquire(request("greedy", both), 0.0) is None
    assert book.acquire(request("modest"), 1.0) is not None


def test_a_holder_without_a_name_is_refused() -> None:
    book = LeaseBook("book")
    book.see("host", "boot", [free("a")], 0.0)
    with pytest.raises(InvalidRun, match="must name each of its holders"):
        book.acquire(request("r1", {"": ("a", 1)}), 0.0)


def test_a_refused_claim_does_not_cost_the_run_its_place() -> None:
    scene = GpuScene({"worker:0": "a"})
    commands = claims(scene.all_ready())
    scene.now += 1.0
    late_run(scene, "late", "a")
    refused = scene.claimed(commands["worker:0"], busy("a", "an agent that looks at it"))
    assert claims(refused)["worker:0"].grants == {}
    assert scene.gpu("a").reason == "in use by an agent that looks at it"
    [look] = [each for each in inspections(refused) if each.run_id == scene.run_id]
    again = claims(scene.inspected(look, free("a")))
    assert again["worker:0"].run_id == scene.run_id


def test_the_proof_of_a_member_that_was_given_up_comes_late_and_counts() -> None:
    """The ordinary network cut: the agent has fenced itself; the proof comes by way of Spark."""
    for way in ("session", "task"):
        scene = GpuScene({"worker:0": "a"})
        scene.start()
        scene.wait(scene.spec.fence_timeout + STOP_BOUND, beating=[])
        assert scene.phase is RunPhase.FAILED
        assert scene.gpu("a").state is LeaseState.UNPROVEN
        report = ExitReport(Cause.STOPPED, proof=Proof.KERNEL, gpus=(free("a"),))
        who = (scene.run_id, slot("worker:0"), scene.attempt("worker:0"))
        if way == "session":
            scene.handle(events.ProcessEnded(*who, 1, report))
        else:
            scene.handle(events.TaskReturned(*who, report))
        assert scene.gpu("a").state is LeaseState.FREE


def test_a_run_that_ends_while_it_forms_has_everybody_let_go_at_once() -> None:
    """Also the members of later stages, which are told to stop only after those before them."""
    roles = Roles(worker=1, ps=1)
    scene = GpuScene({"worker:0": "a", "ps:0": "b"}, roles, gpus=roles)
    commands = claims(scene.all_ready())
    scene.claimed(commands["ps:0"])
    done = claims(scene.handle(events.StopRequested(scene.run_id, "enough")))
    assert {who: each.grants for who, each in done.items()} == {"worker:0": {}, "ps:0": {}}
    assert scene.gpu("b").state is LeaseState.FREE
