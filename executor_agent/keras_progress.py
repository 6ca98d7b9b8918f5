"""A Keras callback that says how far `model.fit` is. Works with Keras 3 and with `tf_keras`.

Keras tells nobody when it saves: a callback that does belongs into `ctx.section("checkpoint")` when
that takes longer than a step may (docs/stalls.md).
"""

import time
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from coordinator.core.stall_timeouts import Section

if TYPE_CHECKING:
    from executor_agent.context import Context

_INTERVAL = 0.2  # seconds; reading the optimizer's counter waits for the step that is under way


def ReportProgress(ctx: "Context", keras: Any = None) -> Any:
    """Reports the optimizer's iterations as steps (batches for a model without an optimizer), is in
    section "evaluation" while Keras evaluates, and "idle" once `fit` is done.

    Args:
        ctx: the member's.
        keras: the module of the model's Keras, `keras` or `tf_keras`; None: `tf.keras`.
    """
    if keras is None:
        import tensorflow as tf

        keras = tf.keras
    kind = type("ReportProgress", (_Reporting, keras.callbacks.Callback), {})
    return kind(ctx)


class _Reporting:
    """What Keras calls."""

    model: Any
    async_safe = True  # Keras 3 need not wait for a step to call us

    def __init__(self, ctx: "Context") -> None:
        super().__init__()
        self._ctx = ctx
        self._supports_tf_logs = True  # tf_keras need not fetch the metrics to call us
        self._batches = 0  # of all epochs
        self._before_epoch = 0
        self._read_at = 0.0
        self._evaluation: AbstractContextManager[None] | None = None

    def on_train_begin(self, logs: Any = None) -> None:
        self._end_evaluation()  # the last one raised an exception

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._before_epoch = self._batches

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._batches = self._before_epoch + batch + 1
        if time.monotonic() >= self._read_at + _INTERVAL:
            self._report()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._report()

    def on_train_end(self, logs: Any = None) -> None:
        self._end_evaluation()
        self._report()
        self._ctx.report_idle()

    def on_test_begin(self, logs: Any = None) -> None:
        self._end_evaluation()
        self._evaluation = self._ctx.section(Section.EVALUATION.value)
        self._evaluation.__enter__()

    def on_test_end(self, logs: Any = None) -> None:
        self._end_evaluation()

    def _end_evaluation(self) -> None:
        evaluation, self._evaluation = self._evaluation, None
        if evaluation is not None:
            evaluation.__exit__(None, None, None)

    def _report(self) -> None:
        self._ctx.report_progress(self._steps())
        self._read_at = time.monotonic()

    def _steps(self) -> int:
        iterations = getattr(getattr(self.model, "optimizer", None), "iterations", None)
        if iterations is None:
            return self._batches
        return int(iterations.numpy() if hasattr(iterations, "numpy") else iterations)
