"""What is counted travels with what user code says of its progress."""

from __future__ import annotations

import threading
from collections.abc import Mapping

import pytest

from executor_agent.framing import encode
from executor_agent.progress import ProgressReporter

TIMEOUT = 30.0


class Agent:
    """Keeps what it is sent."""

    def __init__(self) -> None:
        self.metrics: list[Mapping[str, float]] = []
        self.came = threading.Condition()

    def __call__(self, message: Mapping[str, object]) -> None:
        metrics = message["metrics"]
        assert isinstance(metrics, Mapping)
        with self.came:
            self.metrics.append(metrics)
            self.came.notify_all()

    def wait_for(self, metrics: Mapping[str, float]) -> None:
        with self.came:
            assert self.came.wait_for(lambda: metrics in self.metrics, TIMEOUT), self.metrics


def test_counters_are_sent_when_they_have_changed_and_beside_the_users_metrics() -> None:
    agent, rows = Agent(), {"feed/input/rows": 1.0}
    progress = ProgressReporter(agent, interval=0.0)
    progress.add_counters(lambda: dict(rows))
    agent.wait_for({"feed/input/rows": 1.0})
    progress.report(3, {"loss": 0.5})
    agent.wait_for({"feed/input/rows": 1.0, "loss": 0.5})
    rows["feed/input/rows"] = 2.0
    agent.wait_for({"feed/input/rows": 2.0, "loss": 0.5})
    progress.close(TIMEOUT)
    assert len(agent.metrics) == 3, "nothing is said twice"


def test_a_look_sends_at_once_and_counts_nothing_where_nothing_is_counted() -> None:
    agent = Agent()
    progress = ProgressReporter(agent, interval=0.0)
    progress.look()
    progress.close(TIMEOUT)
    assert not agent.metrics


def test_the_last_counts_are_sent_at_the_end() -> None:
    agent, rows = Agent(), {"feed/input/rows": 1.0}
    progress = ProgressReporter(agent, interval=3600.0)
    progress.add_counters(lambda: dict(rows))
    agent.wait_for({"feed/input/rows": 1.0})
    rows["feed/input/rows"] = 7.0
    progress.close(TIMEOUT)
    assert agent.metrics[-1] == {"feed/input/rows": 7.0}


def test_a_report_that_cannot_be_sent_costs_that_report_and_is_told_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    agent, refused = Agent(), threading.Semaphore(0)

    def send(message: Mapping[str, object]) -> None:
        try:
            encode(message)
        except Exception:
            refused.release()
            raise
        agent(message)

    progress = ProgressReporter(send, interval=0.0)
    for _ in range(2):
        progress.report(1, {"loss": object()})  # type: ignore[dict-item]
        assert refused.acquire(timeout=TIMEOUT)
    progress.report(10**5000, {})
    assert refused.acquire(timeout=TIMEOUT)
    progress.report(3, {"loss": 0.5})
    agent.wait_for({"loss": 0.5})
    progress.close(TIMEOUT)
    said = capsys.readouterr().err
    assert said.count("a report of progress could not be sent") == 1
    assert "TypeError: Object of type object is not JSON serializable" in said


def test_counters_that_raise_cost_nobody_elses_reports(capsys: pytest.CaptureFixture[str]) -> None:
    agent, counts = Agent(), [{}, {"rows": 1.0}]

    def counters() -> Mapping[str, float]:
        return counts.pop() if counts else {}

    def broken() -> Mapping[str, float]:
        raise RuntimeError("dictionary changed size during iteration")

    progress = ProgressReporter(agent, interval=0.0)
    progress.add_counters(counters)
    agent.wait_for({"rows": 1.0})
    progress.add_counters(broken)
    progress.look()
    progress.close(TIMEOUT)
    assert "dictionary changed size" in capsys.readouterr().err
