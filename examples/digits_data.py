"""The demo's images, and what a saved model is worth on those that training never saw.

    python -m examples.digits_data keras DIRECTORY tf_keras DIRECTORY ...

prints the accuracy of each model, in a process that shares nothing with the training but the file.
Members import this module too; ``digits_run.ship_examples`` sends it to the executors.
"""

import importlib
import sys
from pathlib import Path

import numpy as np

MODEL_FILE = "digits.keras"


def load_digits():
    """Images (8 x 8 grey values, as 64 floats from 0 to 1) and labels: training, then held out.

    The split is always the same, so that accuracies can be compared between processes.
    """
    from sklearn.datasets import load_digits as load

    images, labels = load(return_X_y=True)
    images = (images / 16.0).astype(np.float32)
    labels = labels.astype(np.int64)
    order = np.random.default_rng(seed=0).permutation(len(images))
    train, held_out = order[:-360], order[-360:]
    return (images[train], labels[train]), (images[held_out], labels[held_out])


def build_model(library):
    """A small perceptron.

    Args:
        library: the module `keras`, or `tf_keras`.
    """
    return library.Sequential(
        [
            library.layers.Input((64,)),
            library.layers.Dense(128, activation="relu"),
            library.layers.Dense(10),
        ]
    )


def accuracy_of(model):
    """The model's accuracy (0 to 1) on the held-out images."""
    _, (images, labels) = load_digits()
    return float(np.mean(np.argmax(model(images), axis=1) == labels))


def evaluate_saved_model(library, path):
    """The accuracy of a saved model.

    Args:
        library: the name of the Keras that saved it, "keras" or "tf_keras".
        path: the file, or the directory that it was saved to as `MODEL_FILE`.
    """
    path = Path(path)
    load_model = importlib.import_module(library).models.load_model
    return accuracy_of(load_model(path / MODEL_FILE if path.is_dir() else path))


if __name__ == "__main__":
    for library, path in zip(sys.argv[1::2], sys.argv[2::2], strict=True):
        print("accuracy", evaluate_saved_model(library, path))
