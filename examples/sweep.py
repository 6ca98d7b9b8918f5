"""Try many settings of one training, several at a time, each in a process of its own.

    python -m examples.sweep
    python -m examples.sweep --with-a-failure

`coordinator.sweep` starts a small run for each setting, as many at a time as there are slots, and
returns how each one went, in order. Trials know nothing of each other: there is no `tf.distribute`
here, and plain `model.fit` of Keras 3 works. A trial that fails costs only itself; with
--with-a-failure one of them does.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence

from coordinator import sweep
from examples.digits_run import ship_examples
from examples.local_cluster import local_cluster

EPOCHS = 5


def trials(epochs=EPOCHS, with_a_failure=False):
    """The settings to be tried."""
    found = [
        {"learning_rate": rate, "units": units, "epochs": epochs}
        for rate in (0.0001, 0.003)
        for units in (16, 128)
    ]
    if with_a_failure:
        found.insert(1, {"learning_rate": 0.003, "units": -1, "epochs": epochs})
    return found


def try_setting(setting, ctx):
    """The `main_fun` of every trial: the accuracy on images that training never saw.

    Args:
        setting: {"learning_rate", "units", "epochs"}.
        ctx: this trial's context.
    """
    import keras

    from examples.digits_data import accuracy_of, load_digits

    keras.utils.set_random_seed(0)  # so that settings differ, and nothing else
    (images, labels), _ = load_digits()
    model = keras.Sequential(
        [
            keras.layers.Input((64,)),
            keras.layers.Dense(setting["units"], activation="relu"),
            keras.layers.Dense(10),
        ]
    )
    model.compile(
        optimizer=keras.optimizers.Adam(setting["learning_rate"]),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    model.fit(
        images,
        labels,
        batch_size=64,
        epochs=setting["epochs"],
        callbacks=[ctx.keras_callback()],
        verbose=0,
    )
    return accuracy_of(model)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m examples.sweep",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--epochs", type=int, default=EPOCHS, help=f"default: {EPOCHS}")
    parser.add_argument("--parallel", type=int, default=2, help="trials at a time; default: 2")
    parser.add_argument("--with-a-failure", action="store_true", help="one setting is impossible")
    options = parser.parse_args(arguments)
    if min(options.epochs, options.parallel) < 1:
        parser.error("--epochs and --parallel: at least 1")
    return options


def main() -> int:
    options = parse()
    settings = trials(options.epochs, options.with_a_failure)
    with (
        tempfile.TemporaryDirectory(prefix="tflease-sweep-") as scratch,
        local_cluster(executors=1, cores=options.parallel) as spark,
    ):
        ship_examples(spark, scratch)
        found = sweep(spark, try_setting, settings, parallel=options.parallel, name="digits")
    for trial in found:
        print(f"{trial.value:.4f}" if trial.is_ok else "failed", trial.args)
    good = [trial for trial in found if trial.is_ok]
    if not good:
        return 1
    best = max(good, key=lambda trial: trial.value)
    print(f"the best of {len(good)}: {best.args}, accuracy {best.value:.4f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
