"""Synchronous training with `model.fit`, and an evaluator that follows it.

`fit_or_evaluate(args, ctx)` is the `main_fun` of a chief, a worker and an evaluator:

- Chief and worker train in step with `MultiWorkerMirroredStrategy`. The chief is a worker that
  saves as well. `fit` is that of `tf_keras` (Keras 2), since Keras 3's does not work with it.
- The evaluator is no part of TensorFlow's cluster. It looks for checkpoints that the chief has
  written and judges each on images that training never saw. It is told to stop when chief and
  worker have ended, and judges what has appeared until then before it returns.
"""

import os
from pathlib import Path

BATCH_SIZE = 64  # of all workers together
STEPS = 500
STEPS_PER_EPOCH = 100  # a checkpoint after each epoch


def fit_or_evaluate(args, ctx):
    """Train on the cluster that `ctx` describes, or judge what it has learnt.

    Args:
        args: {"steps": optional, how many; rounded up to whole epochs}.
        ctx: this member's context. Its `model_dir` is a place that all members reach.

    Returns:
        From chief and worker: {"steps", "loss", "model_path"}; from the evaluator a list of
        (step, accuracy), one for each checkpoint.
    """
    checkpoints = Path(ctx.model_dir) / f"checkpoints-{ctx.run_id}"
    if ctx.job_name != "evaluator":
        return fit(args, ctx, checkpoints)

    import tf_keras

    from examples.digits_data import accuracy_of

    return follow(checkpoints, lambda path: accuracy_of(tf_keras.models.load_model(path)), ctx)


def fit(args, ctx, checkpoints):
    """The part of chief and worker."""
    import tensorflow as tf
    import tf_keras

    from examples.digits_data import MODEL_FILE, build_model, load_digits

    strategy = tf.distribute.MultiWorkerMirroredStrategy()  # first, it connects the workers
    with strategy.scope():
        model = build_model(tf_keras)
        model.compile(
            optimizer=tf_keras.optimizers.Adam(learning_rate=0.002),
            loss=tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        )

    (images, labels), _ = load_digits()
    data = tf.data.Dataset.from_tensor_slices((images, labels))
    data = data.shuffle(len(images), seed=0).repeat().batch(BATCH_SIZE, drop_remainder=True)
    # Each worker takes its share of every batch; the default would look for files to divide.
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA

    # All have to save, because saving may gather values from all. One file counts.
    if not ctx.is_chief:
        checkpoints = Path(ctx.local_dir)

    def save_and_report(epoch, logs):
        step = (epoch + 1) * STEPS_PER_EPOCH
        save_checkpoint(model, checkpoints, step)
        ctx.report_progress(step, **logs)

    # Not stopped by `ctx.should_stop`: a worker that leaves `fit` alone leaves the other waiting.
    # Whoever stops the run has the last checkpoint; `digits_sync.py` shows how to agree on more.
    history = model.fit(
        data.with_options(options),
        epochs=-(-(args.get("steps") or STEPS) // STEPS_PER_EPOCH),
        steps_per_epoch=STEPS_PER_EPOCH,
        callbacks=[tf_keras.callbacks.LambdaCallback(on_epoch_end=save_and_report)],
        verbose=0,
    )
    path = Path(ctx.model_dir if ctx.is_chief else ctx.local_dir) / MODEL_FILE
    model.save(path)
    losses = history.history["loss"]
    return {
        "steps": len(losses) * STEPS_PER_EPOCH,
        "loss": float(losses[-1]),
        "model_path": str(path),
    }


def save_checkpoint(model, folder, step):
    """Under its final name only when it is complete, so that nobody reads half a file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step-{step:06}.keras"
    half = path.with_name(f".{path.name}")
    model.save(half)
    os.replace(half, path)


def follow(folder, judge, ctx):
    """The evaluator's part: judge every checkpoint once, the last one too.

    Args:
        folder: where checkpoints appear, some time or other.
        judge: path -> accuracy.
        ctx: this member's context.

    Returns:
        [(step, accuracy), ...] in the order of steps.
    """
    judged = {}
    while True:
        # Asked before looking: who could still write has ended when this is true, so that the
        # look after it sees everything.
        is_last_look = ctx.should_stop
        for path in sorted(folder.glob("step-*.keras")):
            step = int(path.stem.removeprefix("step-"))
            if step not in judged:
                judged[step] = judge(path)
                ctx.report_progress(step, accuracy=judged[step])
        if is_last_look:
            return sorted(judged.items())
        ctx.wait_for_stop(timeout=0.2)
