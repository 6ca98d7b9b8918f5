"""What `model.fit` of either Keras tells through `ctx.keras_callback()`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

from tests.integration.bootstrap_harness import MemberProcess

cloudpickle.register_pickle_by_value(sys.modules[__name__])

pytestmark = [pytest.mark.slow, pytest.mark.tensorflow]


def fits(args: Any, ctx: Any) -> tuple[str, int]:
    import numpy as np
    import tensorflow as tf

    keras = tf.keras
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(64, 4)).astype("float32"), rng.integers(0, 2, 64)
    model = keras.Sequential([keras.layers.Dense(8, "relu"), keras.layers.Dense(2)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer="adam", loss=loss, steps_per_execution=2)
    callbacks = [ctx.keras_callback()]
    model.fit(x, y, batch_size=8, epochs=2, validation_data=(x, y), callbacks=callbacks, verbose=0)
    return type(model).__module__.partition(".")[0], int(model.optimizer.iterations.numpy())


@pytest.mark.parametrize("keras, legacy", [("keras", "0"), ("tf_keras", "1")])
def test_steps_and_sections_of_fit(tmp_path: Path, keras: str, legacy: str) -> None:
    env = {"TF_CPP_MIN_LOG_LEVEL": "1", "TF_USE_LEGACY_KERAS": legacy}
    with MemberProcess(tmp_path, fits, preload=("tensorflow",), env=env) as member:
        member.start()
        *progress, finished = member.events_until("finished")
        assert finished["outcome"]["status"] == "returned", member.log()
        assert member.wait(20) == 0
        assert member.result() == (keras, 16)
        assert progress[-1]["step"] == 16
        sections = [message["section"] for message in progress]
        assert sections[-1] == "idle"
        assert "evaluation" in sections
        steps = [message["step"] for message in progress]
        assert steps == sorted(steps)
