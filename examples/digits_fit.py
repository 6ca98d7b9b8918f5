"""Synchronous training with `model.fit`, and an evaluator that follows it.

`fit_or_evaluate(args, ctx)` is the `main_fun` of a chief, a worker and an evaluator:

- Chief and worker train in step with `MultiWorkerMirroredStrategy`. The chief is a worker that
  saves as well. `fit` is that of `tf_keras` (Keras 2), since Keras 3's does not work with it. After
  a restart of the run Keras's `BackupAndRestore` goes on after the last epoch that was completed.
  `ReportProgress` says how far `fit` is; where the run has a `log_dir`, or TensorBoard,
  Keras's own callback writes the curves.
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
        From chief and worker: {"steps", "loss", "model_path", "began_at": the step of the backup
        that it went on from, 0 without one}; from the evaluator a list of (step, accuracy), one for
        each checkpoint.
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
    from executor_agent.keras_progress import ReportProgress

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

    def save(epoch, logs):
        with ctx.section("checkpoint"):
            save_checkpoint(model, checkpoints, (epoch + 1) * STEPS_PER_EPOCH)

    # Not stopped by `ctx.should_stop`: a worker that leaves `fit` alone leaves the other waiting.
    # Whoever stops the run has the last checkpoint; `digits_sync.py` shows how to agree on more.
    epochs = -(-(args.get("steps") or STEPS) // STEPS_PER_EPOCH)
    callbacks = [
        ReportProgress(ctx, tf_keras),  # `ctx.keras_callback()` is it for `tf.keras`
        tf_keras.callbacks.LambdaCallback(on_epoch_end=save),
        backup_and_restore(ctx),  # last: an epoch that is backed up is saved already
    ]
    if ctx.log_dir is not None:  # with TFCluster.run(log_dir=...) or (tensorboard=True)
        callbacks.append(tf_keras.callbacks.TensorBoard(ctx.log_dir))
    history = model.fit(
        data.with_options(options),
        epochs=epochs,
        steps_per_epoch=STEPS_PER_EPOCH,
        callbacks=callbacks,
        verbose=0,
    )
    path = Path(ctx.model_dir if ctx.is_chief else ctx.local_dir) / MODEL_FILE
    model.save(path)
    losses = history.history.get("loss", [])  # of the epochs of this generation
    return {
        "steps": epochs * STEPS_PER_EPOCH,
        "loss": float(losses[-1]) if losses else float("nan"),
        "model_path": str(path),
        "began_at": (epochs - len(losses)) * STEPS_PER_EPOCH,
    }


def backup_and_restore(ctx):
    """Keras's callback, in a directory of this generation, going on from an earlier one's backup.

    Keras looks for a backup only where it writes its own: in `chief` below its directory. So a note
    is left there that the latest one is elsewhere, which TensorFlow follows. Each member has a
    directory of its own, because all of them read before they train and the chief alone writes.
    """
    import tensorflow as tf
    import tf_keras

    generations = sorted(Path(ctx.checkpoint_dir).parent.iterdir(), reverse=True)
    found = (tf.train.latest_checkpoint(str(each / "chief")) for each in generations)
    latest = next(filter(None, found), None)  # only complete ones are in such notes
    own = Path(ctx.checkpoint_dir if ctx.is_chief else ctx.local_dir)
    if latest is not None:
        (own / "chief").mkdir(parents=True, exist_ok=True)
        tf.compat.v1.train.update_checkpoint_state(str(own / "chief"), latest)
    # Kept at the end of `fit`: whoever fails after it need not train all over again.
    return tf_keras.callbacks.BackupAndRestore(str(own), delete_checkpoint=False)


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
                with ctx.section("evaluation"):
                    judged[step] = judge(path)
                ctx.report_progress(step, accuracy=judged[step])
        if is_last_look:
            return sorted(judged.items())
        ctx.wait_for_stop(timeout=0.2)
