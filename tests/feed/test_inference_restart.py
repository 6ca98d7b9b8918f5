"""Inference through a gang that is restarted: a task finds nobody, and then somebody."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from executor_agent.core.feed_values import FeedEndpoint
from executor_agent.feed import inference_task
from executor_agent.feed.inference_task import InferenceFailed
from executor_agent.feed.server import FeedServer
from tests.feed.feed_scene import Background, eventually, the_key
from tests.feed.test_inference import ask, batches_of, double, model, task_of


class Port:
    """Of a member, which nobody else may have while the member is away. How often it was tried."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.tries = 0
        self.server = FeedServer(path, 0, the_key(), member="worker:0")
        self.server.start()
        self.endpoint = self.server.endpoint()
        self.server.close("it is restarted")

    def come_back(self) -> FeedServer:
        server = FeedServer(self.path, self.endpoint.port, the_key(), member="worker:0")
        server.start()
        return server


@pytest.fixture
def port(tmp_path: Path) -> Port:
    return Port(tmp_path)


def test_a_task_waits_for_the_next_generation(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    """E2: its members are back where they were."""
    back: list[Any] = []

    def choose(endpoints: tuple[FeedEndpoint, ...], *_: Any) -> FeedEndpoint:
        port.tries += 1
        if port.tries == 3:
            back.append(port.come_back())
        return endpoints[0]

    monkeypatch.setattr(inference_task, "_RETRY_INTERVAL", 0.0)
    monkeypatch.setattr(inference_task, "choose", choose)
    task = replace(task_of(port.endpoint, the_key()), patience=30.0)
    asking = Background(ask, task, batches_of(5, 5))
    eventually(lambda: back)
    try:
        with model(back[0], 4, double):
            assert asking.result() == [{"y": 2 * x} for x in range(10)]
    finally:
        back[0].close("the test is over")
    assert port.tries == 3


def test_all_members_are_asked_in_turn(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some may be back before others, or elsewhere."""
    monkeypatch.setattr(inference_task, "_RETRY_INTERVAL", 0.0)
    server = port.come_back()
    gone = FeedEndpoint("worker:1", "127.0.0.1", 1)
    endpoints = (gone, replace(port.endpoint, path="", boot_id=""))
    task = replace(task_of(port.endpoint, the_key()), endpoints=endpoints, patience=30.0)
    try:
        with model(server, 4, double):
            assert ask(task, batches_of(3), partition=0) == [{"y": 0}, {"y": 2}, {"y": 4}]
    finally:
        server.close("the test is over")


def test_it_says_so_when_nobody_is_back_in_time(port: Port) -> None:
    task = replace(task_of(port.endpoint, the_key()), patience=0.2)
    with pytest.raises(InferenceFailed, match=r"worker:0.*cluster\.wait"):
        ask(task, batches_of(1))
