"""What the driver asks of the keeper, and what it is told."""

from __future__ import annotations

import pytest

from executor_agent.feed.server import FeedServer
from tests.feed.feed_scene import (
    Background,
    Scene,
    give,
)


def test_open_waits_for_a_worker_that_is_not_there_and_names_it(scene: Scene) -> None:
    scene.workers(2)
    absent = scene.servers["worker:1"].endpoint()
    scene.servers["worker:1"].close("not yet started")
    workers = [scene.servers["worker:0"].endpoint().to_json(), absent.to_json()]
    request = {"epochs": 1, "workers": workers}
    error = scene.control("open", timeout=0.3, **request)["error"]
    assert "worker:1" in error
    assert "refused" in error, "why is said, too"


def test_open_goes_on_when_the_worker_has_come(scene: Scene) -> None:
    one, two = scene.workers(2)
    late = two.endpoint()
    two.close("restarted")
    workers = [one.endpoint().to_json(), late.to_json()]
    opening = Background(lambda: scene.control("open", epochs=1, workers=workers))
    again = FeedServer(scene._directory / "worker-1", late.port, scene.key, member="worker:1")
    scene.servers["worker:1"] = again
    again.start()
    assert opening.result() == {"ok": True, "stopped": ""}


def test_close_that_takes_too_long_says_who_does_not_read(scene: Scene) -> None:
    one, _ = scene.workers(2)
    scene.open()
    one.feeds["input"].open(2, True)
    assert "worker:1" in scene.control("close", epoch=1, timeout=0.3)["error"]


def test_close_asked_twice_is_answered_twice(scene: Scene) -> None:
    [one] = scene.workers(1)
    scene.open(epochs=2)
    one.feeds["input"].open(2, True)
    give(scene, one, 5, partition=0)
    both = [Background(lambda: scene.control("close", epoch=1)) for _ in range(2)]
    first = both[0].result()
    assert first == both[1].result() == scene.control("close", epoch=1)
    assert first["left_out"] == 1


def test_open_asked_twice_is_one_train(scene: Scene) -> None:
    [one] = scene.workers(1)
    scene.open()
    give(scene, one, 5, partition=0)
    scene.open()
    assert scene.feeder(one).reply["rows"] == 5


def test_workers_that_disagree_about_equal_steps_are_an_error_for_the_driver(scene: Scene) -> None:
    one, two = scene.workers(2)
    scene.open()
    one.feeds["input"].open(2, True)
    two.feeds["input"].open(2, False)
    assert "disagree about equal steps" in scene.control("close", epoch=1)["error"]


@pytest.mark.parametrize(
    "request_, text",
    [
        ({"call": "dance", "feed": "input", "train": 1}, "no such call"),
        ({"call": "open", "feed": "input", "train": 2, "epochs": 1}, "workers"),
        ({"call": "open", "feed": "input", "train": 2, "epochs": 1, "workers": [{}]}, "endpoint"),
        ({"call": "close", "feed": "other", "train": 1, "epoch": 1}, "not open here"),
    ],
)
def test_a_call_that_makes_no_sense_is_an_error_and_changes_nothing(
    scene: Scene, request_: dict[str, object], text: str
) -> None:
    [one] = scene.workers(1)
    scene.open()
    what = str(request_.pop("call"))
    assert text in scene.control(what, **request_)["error"]  # type: ignore[arg-type]
    assert scene.feeder(one).reply["action"] == "go"


def test_an_older_train_than_the_one_that_is_open_is_refused(scene: Scene) -> None:
    scene.workers(1)
    scene.open(train=3)
    workers = [each.to_json() for each in scene.endpoints()]
    assert "has begun" in scene.control("open", train=2, epochs=1, workers=workers)["error"]


def test_state_says_what_a_train_waits_for(scene: Scene) -> None:
    scene.workers(2)
    scene.open()
    state = scene.control("state")
    assert state["members"] == {"worker:0": {"connected": True}, "worker:1": {"connected": True}}
    assert any("worker:1" in text for text in state["text"])
