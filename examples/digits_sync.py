"""Synchronous training, the loop written out: two workers in step, and no chief.

`train_in_step(args, ctx)` runs on every worker, and all of them run the same lines at the same
time. `MultiWorkerMirroredStrategy` keeps a copy of the variables on each worker and sums the
gradients over all workers in every step, so that the copies stay the same.

Four things differ from a program for one machine:

- The optimizer is built inside the scope, before the first step: its variables are mirrored too.
- It begins where the latest checkpoint was taken, if there is one: after a restart of the run, or
  after an earlier run with the same `model_dir`.
- Nobody may leave the loop alone: the others would wait for its gradients. So the workers agree
  on when to stop, as they agree on everything else: by summing.
- Everybody saves, which may have to gather values from all; the place differs. The first worker's
  files are the checkpoint and the model, the others' go to scratch. (`ctx.is_chief`: where a
  cluster has no chief, that is worker 0.)

Keras 3's `fit` does not work with this strategy; its layers and optimizers do. For `fit` see
`digits_fit.py`.
"""

from pathlib import Path

BATCH_SIZE = 64  # of all workers together
STEPS = 500
STEPS_PER_CALL = 25  # steps between two looks at the loss and at `ctx.should_stop`
STEPS_PER_CHECKPOINT = 100  # what a restart may cost


def train_in_step(args, ctx):
    """Train on the cluster that `ctx` describes.

    Args:
        args: {"steps": optional, how many}.
        ctx: this member's context. The first worker saves to its `model_dir`.

    Returns:
        {"steps", "loss", "weights": a number that is the same where all weights are, "model_path",
        "began_at": the step of the checkpoint that it went on from, 0 without one}.
    """
    import keras
    import tensorflow as tf

    from examples.digits_data import MODEL_FILE, build_model, load_digits

    # Before anything else of TensorFlow: it connects the workers. TF_CONFIG says who they are.
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    with strategy.scope():
        model = build_model(keras)
        optimizer = keras.optimizers.Adam(learning_rate=0.002)
        optimizer.build(model.trainable_variables)
    loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="none")

    checkpoint = tf.train.Checkpoint(model=model, optimizer=optimizer)
    if latest := ctx.latest_checkpoint():
        checkpoint.restore(latest).assert_existing_objects_matched()
    checkpoints = tf.train.CheckpointManager(
        checkpoint, ctx.checkpoint_dir if ctx.is_chief else ctx.local_dir, max_to_keep=2
    )

    def part_of_the_data(workers):  # every second image where there are two
        (images, labels), _ = load_digits()
        mine = slice(workers.input_pipeline_id, None, workers.num_input_pipelines)
        pairs = tf.data.Dataset.from_tensor_slices((images[mine], labels[mine]))
        size = workers.get_per_replica_batch_size(BATCH_SIZE)
        return pairs.shuffle(len(images)).repeat().batch(size, drop_remainder=True)

    batches = iter(strategy.distribute_datasets_from_function(part_of_the_data))

    def one_step(images, labels):
        with tf.GradientTape() as tape:
            logits = model(images, training=True)
            # Divided by the batch of all workers, because gradients and losses are summed.
            loss = tf.reduce_sum(loss_of(labels, logits)) / BATCH_SIZE
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply(gradients, model.trainable_variables)  # sums over the workers first
        return loss

    @tf.function
    def train_steps(told_to_stop):
        for _ in range(STEPS_PER_CALL - 1):
            strategy.run(one_step, args=next(batches))
        loss = strategy.run(one_step, args=next(batches))
        told = strategy.run(lambda: told_to_stop)
        return strategy.reduce("SUM", loss, axis=None), strategy.reduce("SUM", told, axis=None)

    steps = args.get("steps") or STEPS
    began_at = done = int(optimizer.iterations.numpy())
    loss, told = float("nan"), 0.0
    while done < steps and not told:
        mine = tf.constant(1.0 if ctx.should_stop else 0.0)
        loss, told = (float(value) for value in train_steps(mine))
        done += STEPS_PER_CALL
        ctx.report_progress(done, loss=loss)
        if told or done % STEPS_PER_CHECKPOINT == 0:
            with ctx.section("checkpoint"):
                checkpoints.save(checkpoint_number=done)

    path = Path(ctx.local_dir) / MODEL_FILE
    model.save(path)
    model_path = ctx.upload(path) if ctx.is_chief else None  # into `model_dir`
    weights = sum(float(tf.norm(variable)) for variable in model.trainable_variables)
    return {
        "steps": done,
        "loss": loss,
        "weights": weights,
        "model_path": model_path,
        "began_at": began_at,
    }
