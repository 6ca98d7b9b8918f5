"""The model, and one step of its training: what a data scientist writes on one machine.

Nothing here knows of Spark or of how many machines there are; `strategy` takes care of that.
"""

BATCHES_AHEAD = 2
IMAGES_AT_ONCE = 1000  # are judged; what a layer makes of all images of MNIST is half a gigabyte


def build_model(image_shape):
    """A small convolutional network; one number for each digit."""
    import keras

    return keras.Sequential(
        [
            keras.layers.Input(image_shape),
            keras.layers.Conv2D(16, 3, padding="same", activation="relu"),
            keras.layers.MaxPooling2D(),
            keras.layers.Conv2D(32, 3, padding="same", activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(64, activation="relu"),
            keras.layers.Dense(10),
        ]
    )


def build(strategy, image_shape):
    """The model and its optimizer, with variables that live where the strategy wants them."""
    import keras

    with strategy.scope():
        model = build_model(image_shape)
        optimizer = keras.optimizers.Adam(learning_rate=0.001)
        optimizer.build(model.trainable_variables)  # before the first step: mirrored, too
    return model, optimizer


def batches_of(strategy, images, labels, batch_size):
    """An endless iterator. `batch_size` is that of all workers; each brings its part of it."""
    import tensorflow as tf

    def my_batches(workers):
        pairs = tf.data.Dataset.from_tensor_slices((images, labels))
        size = workers.get_per_replica_batch_size(batch_size)
        pairs = pairs.shuffle(len(labels)).repeat().batch(size, drop_remainder=True)
        return pairs.prefetch(BATCHES_AHEAD)

    return iter(strategy.distribute_datasets_from_function(my_batches))


def make_train_step(strategy, model, optimizer, batches, batch_size):
    """A function that does one step on all workers, and returns the loss of the whole batch."""
    import keras
    import tensorflow as tf

    loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="none")

    def one_step(images, labels):
        with tf.GradientTape() as tape:
            logits = model(images, training=True)
            # Divided by the batch of all workers, because gradients and losses are summed.
            loss = tf.reduce_sum(loss_of(labels, logits)) / batch_size
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply(gradients, model.trainable_variables)  # sums over the workers first
        return loss

    @tf.function
    def train_step():
        return strategy.reduce("SUM", strategy.run(one_step, args=next(batches)), axis=None)

    return train_step


def judge(model, images, labels):
    """The model's loss and accuracy (0 to 1)."""
    import keras
    import numpy as np

    parts = range(0, len(images), IMAGES_AT_ONCE)
    logits = np.concatenate([model(images[at : at + IMAGES_AT_ONCE]) for at in parts])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(labels, logits)
    accuracy = np.mean(np.argmax(logits, axis=1) == labels)
    return {"loss": float(loss), "accuracy": float(accuracy)}
