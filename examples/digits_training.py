"""A first training program: handwritten digits on a chief, two workers and a parameter server.

`train_digits(args, ctx)` is the `main_fun`: it runs once in every member's own process. What
tflease adds is `ctx`; all the rest is plain TensorFlow:

- The variables live on the parameter servers (ps), spread over them if there are several.
- Workers compute gradients on their batches and apply them, each at its own pace.
- The chief hands out the work and watches the loss. Now and then it saves a checkpoint, at the end
  the model; it begins where the latest checkpoint was taken, if there is one.

Keras 3 gives layers and optimizers; its `fit` does not know `ParameterServerStrategy`, so the
training loop is written out.
"""

from pathlib import Path

BATCH_SIZE = 64
STEPS = 1200  # gradient steps in all, by all workers together: about 53 epochs
STEPS_PER_CALL = 20  # steps a worker takes before the chief hears of it again
STEPS_PER_CHECKPOINT = 200  # what a restart may cost


def train_digits(args, ctx):
    """Train on the cluster that `ctx` describes.

    Args:
        args: {"steps": optional, how many}.
        ctx: this member's context. The chief saves to its `model_dir`.

    Returns:
        From the chief: {"steps", "loss", "model_path", "began_at": the step of the checkpoint that
        it went on from, 0 without one}; None from the others.
    """
    if ctx.job_name in ("ps", "worker"):
        return ctx.serve_forever()
    return coordinate(args, ctx)


def coordinate(args, ctx):
    """The chief's part."""
    import keras
    import tensorflow as tf

    from examples.digits_data import MODEL_FILE, build_model, load_digits

    strategy = tf.distribute.ParameterServerStrategy(ctx.parameter_server_cluster_resolver())
    coordinator = tf.distribute.coordinator.ClusterCoordinator(strategy)

    with strategy.scope():  # variables made in here live on the ps
        model = build_model(keras)
        optimizer = keras.optimizers.Adam(learning_rate=0.002)
        optimizer.build(model.trainable_variables)
    loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    # Each parameter server would write its variables where it is: on its own disk, where
    # `model_dir` is not the same place for all. So the chief reads and writes them all.
    here = tf.train.CheckpointOptions(experimental_io_device="/job:chief/task:0")
    checkpoint = tf.train.Checkpoint(model=model, optimizer=optimizer)
    if latest := ctx.latest_checkpoint():
        checkpoint.restore(latest, options=here).assert_existing_objects_matched()
    checkpoints = tf.train.CheckpointManager(checkpoint, ctx.checkpoint_dir, max_to_keep=2)

    (images, labels), _ = load_digits()

    def dataset():  # built on each worker
        pairs = tf.data.Dataset.from_tensor_slices((images, labels))
        return pairs.shuffle(len(images)).repeat().batch(BATCH_SIZE, drop_remainder=True)

    def one_step(images, labels):
        with tf.GradientTape() as tape:
            logits = model(images, training=True)
            loss = loss_of(labels, logits)
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply(gradients, model.trainable_variables)
        hits = tf.cast(tf.argmax(logits, axis=1) == labels, tf.float32)
        return loss, tf.reduce_mean(hits)

    @tf.function
    def train_steps(batches):  # runs on whichever worker is free
        for _ in range(STEPS_PER_CALL - 1):
            strategy.run(one_step, args=next(batches))
        return strategy.run(one_step, args=next(batches))

    batches = iter(coordinator.create_per_worker_dataset(dataset))
    workers = len(ctx.cluster_spec["worker"])
    steps = args.get("steps") or STEPS
    began_at = done = saved = int(optimizer.iterations.numpy())
    loss = accuracy = float("nan")
    while done < steps and not ctx.should_stop:
        # As many calls as there are workers are under way at a time.
        calls = [coordinator.schedule(train_steps, args=(batches,)) for _ in range(workers)]
        coordinator.join()
        done += STEPS_PER_CALL * len(calls)
        loss, accuracy = (float(value) for value in calls[-1].fetch())
        ctx.report_progress(done, loss=loss, accuracy=accuracy)
        if done - saved >= STEPS_PER_CHECKPOINT or ctx.should_stop:
            with ctx.section("checkpoint"):
                checkpoints.save(checkpoint_number=done, options=here)
            saved = done

    path = Path(ctx.local_dir) / MODEL_FILE
    model.save(path)
    model_path = ctx.upload(path)  # into `model_dir`, also where that is a store
    return {"steps": done, "loss": loss, "model_path": model_path, "began_at": began_at}
