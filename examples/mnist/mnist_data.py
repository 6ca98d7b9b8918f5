"""The images: read on the driver, written in parts to a store, read back by the workers."""

import os
from pathlib import Path

import numpy as np


def load_images():
    """All images and labels: training, then held out.

    Images are (number, height, width, 1), grey values from 0 to 1. TFLEASE_MNIST says which;
    `mnist_constants` has its values. The split is always the same.
    """
    source = os.environ.get("TFLEASE_MNIST", "")
    if not source:
        return _small_digits()
    if source == "keras":
        import keras

        (images, labels), (test_images, test_labels) = keras.datasets.mnist.load_data()
        return (_scaled(images), _whole(labels)), (_scaled(test_images), _whole(test_labels))
    with np.load(source) as file:
        return (
            (_scaled(file["x_train"]), _whole(file["y_train"])),
            (_scaled(file["x_test"]), _whole(file["y_test"])),
        )


def _small_digits():
    from examples.digits_data import load_digits

    (images, labels), (test_images, test_labels) = load_digits()
    square = (-1, 8, 8, 1)
    return (images.reshape(square), labels), (test_images.reshape(square), test_labels)


def _scaled(images):
    return (images[..., np.newaxis] / 255.0).astype(np.float32)


def _whole(labels):
    return labels.astype(np.int64)


def write_parts(images, labels, url, parts):
    """Writes the images as `part-00.npz`, `part-01.npz`, ... into a directory of the store.

    Returns:
        the URLs.
    """
    import fsspec

    urls = []
    for number, mine in enumerate(np.array_split(np.arange(len(labels)), parts)):
        urls.append(f"{url}/part-{number:02}.npz")
        with fsspec.open(urls[-1], "wb") as file:
            np.savez_compressed(file, images=images[mine], labels=labels[mine])
    return urls


def read_parts(paths):
    """The images and labels in some parts, from the local disk."""
    parts = [np.load(path) for path in paths]
    images = np.concatenate([part["images"] for part in parts])
    labels = np.concatenate([part["labels"] for part in parts])
    return images, labels


def copied(url, folder):
    """A file of the store, as a file of this machine."""
    import fsspec

    files, path = fsspec.url_to_fs(url)
    copy = Path(folder, url.rpartition("/")[2])
    files.get_file(path, str(copy))
    return copy
