"""A convolutional network that workers train in step, with a training loop of its own.

    python -m examples.images_sync
    python -m examples.images_sync --images cifar10.npz --steps 2000

The images are scikit-learn's handwritten digits, enlarged to 16 x 16; or your own, of any size and
number of colours, in a file of NumPy's with `x_train`, `y_train`, `x_test` and `y_test`, which all
members must find at the same path (CIFAR-10 fits).

`MultiWorkerMirroredStrategy` keeps a copy of the network on each worker and averages the gradients.
Layers and optimizer are Keras 3's; the loop is written out, since its `fit` does not know this
strategy (`digits_fit.py` has a `fit` that does). Each worker reads a part of the images, moves them
about a little at random, and the first one judges the network at the end.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence

from coordinator import Roles, TFCluster
from examples.digits_run import ship_examples
from examples.local_cluster import local_cluster

BATCH_SIZE = 64  # of all workers together
STEPS = 150
STEPS_PER_CALL = 25
LEARNING_RATE = 0.002


def load_images(path=None):
    """(images, labels) to train on, and those held out. Images are floats from 0 to 1 with the
    shape (count, height, width, colours)."""
    import numpy as np

    if path is None:
        from examples.digits_data import load_digits

        return tuple(
            (images.reshape(-1, 8, 8, 1).repeat(2, axis=1).repeat(2, axis=2), labels)
            for images, labels in load_digits()
        )
    with np.load(path) as file:
        return tuple(
            (scaled(file[f"x_{part}"]), file[f"y_{part}"].reshape(-1).astype(np.int64))
            for part in ("train", "test")
        )


def scaled(images):
    """Bytes to floats from 0 to 1; grey images get the axis of colours that they lack."""
    import numpy as np

    if images.ndim == 3:
        images = images[..., np.newaxis]
    return images.astype(np.float32) / (255.0 if images.dtype == np.uint8 else 1.0)


def build_network(shape, labels):
    """Two rounds of convolution, which halve the image each."""
    import keras

    return keras.Sequential(
        [
            keras.layers.Input(shape),
            keras.layers.Conv2D(16, 3, padding="same", activation="relu"),
            keras.layers.MaxPooling2D(),
            keras.layers.Conv2D(32, 3, padding="same", activation="relu"),
            keras.layers.MaxPooling2D(),
            keras.layers.Flatten(),
            keras.layers.Dense(64, activation="relu"),
            keras.layers.Dense(labels),
        ]
    )


def moved(images, labels):
    """Each image of the batch by a pixel at most, in any direction."""
    import tensorflow as tf

    shape = tf.shape(images)
    padded = tf.pad(images, [[0, 0], [1, 1], [1, 1], [0, 0]])
    place = tf.random.uniform([2], 0, 3, tf.int32)
    begin = tf.stack([0, place[0], place[1], 0])
    cut = tf.slice(padded, begin, shape)
    return tf.ensure_shape(cut, images.shape), labels


def train_in_step(args, ctx):
    """The `main_fun` of every worker.

    Args:
        args: {"steps": how many, "images": the file, or None for digits}.
        ctx: this member's context.

    Returns:
        {"steps", "loss", "weights": a number that is the same where all weights are, "accuracy": of
        the first worker on the images held out, None of others}.
    """
    import keras
    import tensorflow as tf

    # Before anything else of TensorFlow: it connects the workers.
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    (images, labels), held_out = load_images(args["images"])
    with strategy.scope():
        network = build_network(images.shape[1:], int(labels.max()) + 1)
        optimizer = keras.optimizers.Adam(learning_rate=LEARNING_RATE)
        optimizer.build(network.trainable_variables)
    loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="none")

    def part_of_the_images(workers):
        mine = slice(workers.input_pipeline_id, None, workers.num_input_pipelines)
        pairs = tf.data.Dataset.from_tensor_slices((images[mine], labels[mine]))
        size = workers.get_per_replica_batch_size(BATCH_SIZE)
        shuffled = pairs.shuffle(10_000).repeat().batch(size, drop_remainder=True)
        return shuffled.map(moved).prefetch(2)

    batches = iter(strategy.distribute_datasets_from_function(part_of_the_images))

    def one_step(images, labels):
        with tf.GradientTape() as tape:
            logits = network(images, training=True)
            # Divided by the batch of all workers, because gradients and losses are summed.
            loss = tf.reduce_sum(loss_of(labels, logits)) / BATCH_SIZE
        gradients = tape.gradient(loss, network.trainable_variables)
        optimizer.apply(gradients, network.trainable_variables)
        return loss

    @tf.function
    def train_steps(told_to_stop):
        for _ in range(STEPS_PER_CALL - 1):
            strategy.run(one_step, args=next(batches))
        loss = strategy.run(one_step, args=next(batches))
        told = strategy.run(lambda: told_to_stop)
        return strategy.reduce("SUM", loss, axis=None), strategy.reduce("SUM", told, axis=None)

    done, loss, told = 0, float("nan"), 0.0
    while done < args["steps"] and not told:  # all leave together: they agree by summing
        mine = tf.constant(1.0 if ctx.should_stop else 0.0)
        loss, told = (float(value) for value in train_steps(mine))
        done += STEPS_PER_CALL
        ctx.report_progress(done, loss=loss)

    return {
        "steps": done,
        "loss": loss,
        "weights": sum(float(tf.norm(variable)) for variable in network.trainable_variables),
        "accuracy": accuracy(network, *held_out) if ctx.is_chief else None,
    }


def accuracy(network, images, labels):
    """From 0 to 1, in batches: images may be many."""
    import numpy as np

    hits = [
        np.argmax(network(images[first : first + 500]), axis=1) == labels[first : first + 500]
        for first in range(0, len(images), 500)
    ]
    return float(np.mean(np.concatenate(hits)))


def run(spark, steps=STEPS, workers=2, images=None, progress=True):
    """The driver's part: what each worker returned. The examples must have been shipped."""
    with TFCluster.run(
        spark,
        train_in_step,
        {"steps": steps, "images": images},
        roles=Roles(worker=workers),
        name="images",
        progress=progress,
    ) as cluster:
        return dict(cluster.wait().returned)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m examples.images_sync",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--steps", type=int, default=STEPS, help=f"default: {STEPS}")
    parser.add_argument("--workers", type=int, default=2, help="default: 2")
    parser.add_argument("--images", help="your own, an .npz file; default: digits")
    options = parser.parse_args(arguments)
    if min(options.steps, options.workers) < 1:
        parser.error("--steps and --workers: at least 1")
    if options.images is not None:
        options.images = os.path.abspath(options.images)
    return options


def main() -> int:
    options = parse()
    with (
        tempfile.TemporaryDirectory(prefix="tflease-images-") as scratch,
        local_cluster(executors=options.workers, cores=1) as spark,
    ):
        ship_examples(spark, scratch)
        found = run(spark, options.steps, options.workers, options.images)
    first = found["worker:0"]
    print(f"{first['steps']} steps of {BATCH_SIZE} images to a loss of {first['loss']:.4f}")
    same = len({each["weights"] for each in found.values()}) == 1
    print(f"the weights of all {len(found)} workers are {'' if same else 'NOT '}the same")
    print(f"accuracy on images held out: {first['accuracy']:.4f}")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
