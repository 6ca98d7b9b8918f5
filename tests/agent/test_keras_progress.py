"""The Keras callback, called as Keras calls it. Real ones: tests/integration/test_keras.py."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from executor_agent.keras_progress import ReportProgress
from executor_agent.progress import ProgressReporter
from tests.agent.test_context import Agent, context

TIMEOUT = 30.0
KERAS = SimpleNamespace(callbacks=SimpleNamespace(Callback=object))


def fit(callback: Any, epochs: int, batches: int, optimizer: Any = None) -> None:
    callback.model = SimpleNamespace(optimizer=optimizer)
    callback.on_train_begin()
    for epoch in range(epochs):
        callback.on_epoch_begin(epoch)
        for batch in range(batches):
            if optimizer is not None:
                optimizer.iterations += 1
            callback.on_train_batch_end(batch)
        callback.on_epoch_end(epoch)
    callback.on_train_end()


def last_message(agent: Agent, progress: ProgressReporter) -> tuple[object, object]:
    progress.close(TIMEOUT)
    return agent.messages[-1]["step"], agent.messages[-1]["section"]


def test_steps_are_the_optimizers_iterations() -> None:
    """Which go on where a checkpoint was restored."""
    agent = Agent()
    progress = ProgressReporter(agent, interval=0.0)
    optimizer = SimpleNamespace(iterations=1_000)
    fit(ReportProgress(context(progress=progress), KERAS), 2, 5, optimizer)
    assert last_message(agent, progress) == (1_010, "idle")


def test_without_an_optimizer_batches_are_counted_over_all_epochs_and_fits() -> None:
    agent = Agent()
    progress = ProgressReporter(agent, interval=0.0)
    callback = ReportProgress(context(progress=progress), KERAS)
    fit(callback, 3, 4)
    fit(callback, 1, 4)
    assert last_message(agent, progress) == (16, "idle")


def test_an_evaluation_that_fails_does_not_last_for_ever() -> None:
    agent = Agent()
    progress = ProgressReporter(agent, interval=0.0)
    callback = ReportProgress(context(progress=progress), KERAS)
    fit(callback, 1, 1)
    callback.on_test_begin()
    callback.on_train_begin()
    callback.on_epoch_begin(0)
    callback.on_epoch_end(0)
    assert last_message(agent, progress) == (1, "step")
