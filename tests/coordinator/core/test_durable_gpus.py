"""Requests for GPUs that are over stay so, also when the record of that is long gone."""

from __future__ import annotations

import pytest

from coordinator.core import lease_requests
from coordinator.core.gpu import LeaseState
from coordinator.core.model import RunPhase
from tests.coordinator.core.gpu_scene import GpuScene, free, request

KEPT = 5


@pytest.fixture(autouse=True)
def _few_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_requests, "KEPT_OVER", KEPT)


def forget_all_that_is_over(scene: GpuScene) -> None:
    """So many clients' requests come and go since."""
    book = scene.machine.book
    book.see("host2", "boot2", [free("z")], scene.now)
    for number in range(KEPT + 1):
        one = request(f"client/{number}", {"me": ("z", 1)})
        assert book.acquire(one, scene.now)
        book.release(one.request_id, "me", [free("z")], scene.now)
    scene.machine.settle_gpus(scene.now)


def restart(scene: GpuScene) -> None:
    scene.disk.write(scene.machine)
    scene.machine = scene.disk.start(scene.now)
    scene.machine.settle_gpus(scene.now)
    scene.machine.check_invariants()


def test_a_run_that_has_ended_is_granted_nothing_after_a_restart() -> None:
    """Nobody would ever give it back."""
    scene = GpuScene({"worker:0": "a"})
    scene.start()
    scene.end("worker:0", gpus=(free("a"),))
    forget_all_that_is_over(scene)
    restart(scene)
    assert scene.phase is RunPhase.SUCCEEDED
    assert scene.gpu("a").state is LeaseState.FREE
    assert scene.machine.book.acquire(request("another", {"me": ("a", 1)}), scene.now)


def test_a_run_at_work_keeps_what_it_has_and_asks_for_no_more() -> None:
    """Also one of whose leases is over already: another GPU would be nobody's."""
    scene = GpuScene({"worker:0": "a", "worker:1": "b"})
    scene.start()
    token = scene.gpu("b").token
    scene.end("worker:0", gpus=(free("a"),))
    forget_all_that_is_over(scene)
    restart(scene)
    assert scene.gpu("a").state is LeaseState.FREE
    assert (scene.gpu("b").state, scene.gpu("b").token) == (LeaseState.HELD, token)


def test_a_run_that_still_waits_is_granted_its_gpus_after_a_restart() -> None:
    scene = GpuScene({"worker:0": "a"})
    scene.machine.book.see("host", "boot-of-host", [free("a")], scene.now)
    assert scene.machine.book.acquire(request("first", {"me": ("a", 1)}), scene.now)
    scene.all_ready()
    forget_all_that_is_over(scene)
    restart(scene)
    assert scene.gpu("a").holder != f"run {scene.run_id}"
    scene.machine.book.release("first", "me", [free("a")], scene.now)
    scene.machine.settle_gpus(scene.now)
    assert (scene.gpu("a").state, scene.gpu("a").who) == (LeaseState.HELD, "worker:0")
