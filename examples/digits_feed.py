"""Synchronous training on rows that Spark feeds: two workers in step, and no chief.

On the driver, `cluster.train(images(spark), num_epochs=25)` sends the rows of a DataFrame to the
workers; here, in `train_fed(args, ctx)`, they come out of `ctx.dataset`. All else is as in
`digits_sync.py`, with two differences:

- Nobody counts steps. The loop ends when the rows do, and all workers take the same number of
  steps: tflease sees to that, however unevenly the rows come.
- Nobody looks at `ctx.should_stop`. When the run is stopped the rows end, too.
"""

from pathlib import Path

BATCH_SIZE = 64  # of all workers together
EPOCHS = 25


def images(spark):
    """The images of the training as a DataFrame: `image`, 64 floats, and `label`."""
    from examples.digits_data import load_digits

    (pixels, labels), _ = load_digits()
    rows = [(each.tolist(), int(label)) for each, label in zip(pixels, labels, strict=True)]
    return spark.createDataFrame(rows, "image array<float>, label bigint").repartition(4).cache()


def train_fed(args, ctx):
    """Train on the rows that the driver feeds.

    Args:
        args: not used.
        ctx: this member's context. The first worker saves to its `model_dir`.

    Returns:
        {"steps", "loss", "weights": a number that is the same where all weights are, "model_path"}.
    """
    import keras
    import tensorflow as tf

    from examples.digits_data import MODEL_FILE, build_model

    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    with strategy.scope():
        model = build_model(keras)
        optimizer = keras.optimizers.Adam(learning_rate=0.002)
        optimizer.build(model.trainable_variables)
    loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="none")

    def rows(workers):
        row = {"image": tf.TensorSpec((64,), tf.float32), "label": tf.TensorSpec((), tf.int64)}
        dataset = ctx.dataset(workers.get_per_replica_batch_size(BATCH_SIZE), row)
        return dataset.map(lambda batch: (batch["image"], batch["label"]))

    def one_step(images, labels):
        with tf.GradientTape() as tape:
            logits = model(images, training=True)
            # Divided by the batch of all workers, because gradients and losses are summed.
            loss = tf.reduce_sum(loss_of(labels, logits)) / BATCH_SIZE
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply(gradients, model.trainable_variables)  # sums over the workers first
        return loss

    @tf.function
    def train_step(images, labels):
        return strategy.reduce("SUM", strategy.run(one_step, (images, labels)), axis=None)

    steps, loss = 0, float("nan")
    for batch in strategy.distribute_datasets_from_function(rows):
        loss = float(train_step(*batch))
        steps += 1
        ctx.report_progress(steps, loss=loss)

    path = Path(ctx.local_dir) / MODEL_FILE
    model.save(path)
    model_path = ctx.upload(path) if ctx.is_chief else None  # into `model_dir`
    weights = sum(float(tf.norm(variable)) for variable in model.trainable_variables)
    return {"steps": steps, "loss": loss, "weights": weights, "model_path": model_path}
