"""What the notebooks share, without Spark: which images, where they go, what is drawn of them."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

FOLDER = Path(__file__).parents[2] / "examples" / "mnist"


@pytest.fixture
def data(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("mnist_data")


def constants_with(**env: str) -> dict[str, str]:
    """The names of `mnist_constants` in a process with these variables."""
    script = "import mnist_constants as c; [print(k, getattr(c, k)) for k in dir(c) if k.isupper()]"
    kept = {key: value for key, value in os.environ.items() if not key.startswith("TFLEASE_")}
    said = subprocess.run(
        [sys.executable, "-c", script], cwd=FOLDER, env=kept | env, capture_output=True, check=True
    ).stdout.decode()
    return dict(line.split(" ", 1) for line in said.splitlines())


def as_in_the_real_file(number: int) -> dict[str, Any]:
    """The arrays of `mnist.npz`: bytes, as many labels, and less of them held out."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (number, 28, 28), dtype=np.uint8)
    labels = random.integers(0, 10, number, dtype=np.uint8)
    return {"x_train": images, "y_train": labels, "x_test": images[:7], "y_test": labels[:7]}


def test_all_of_mnist_is_read_from_the_file_that_is_named(
    data: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = as_in_the_real_file(30)
    np.savez(tmp_path / "mnist.npz", **file)
    monkeypatch.setenv("TFLEASE_MNIST", str(tmp_path / "mnist.npz"))
    (images, labels), (test_images, test_labels) = data.load_images()
    assert (images.shape, images.dtype) == ((30, 28, 28, 1), np.float32)
    assert (test_images.shape, test_labels.shape) == ((7, 28, 28, 1), (7,))
    assert labels.dtype == test_labels.dtype == np.int64
    np.testing.assert_allclose(images[..., 0] * 255, file["x_train"], atol=1e-4)
    assert labels.tolist() == file["y_train"].tolist()


def test_without_a_word_the_digits_are_those_that_everybody_has(
    data: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TFLEASE_MNIST", raising=False)
    (images, labels), (test_images, test_labels) = data.load_images()
    assert images.shape == (1437, 8, 8, 1)
    assert len(labels) == 1437
    assert test_images.shape == (360, 8, 8, 1)
    assert len(test_labels) == 360


def test_what_is_written_in_parts_is_read_back_whole(data: ModuleType, tmp_path: Path) -> None:
    images = np.random.default_rng(1).random((30, 4, 4, 1), np.float32)
    labels = np.arange(30)
    urls = data.write_parts(images, labels, str(tmp_path), 8)
    assert [Path(url).name for url in urls] == [f"part-{number:02}.npz" for number in range(8)]
    found, their_labels = data.read_parts(urls)
    np.testing.assert_array_equal(found, images)
    np.testing.assert_array_equal(their_labels, labels)


def test_a_file_of_a_store_is_copied_here(data: ModuleType, tmp_path: Path) -> None:
    import fsspec

    url = "memory://notebooks/model/digits.keras"
    with fsspec.open(url, "wb") as file:
        file.write(b"weights")
    copy = data.copied(url, tmp_path)
    assert copy == tmp_path / "digits.keras"
    assert copy.read_bytes() == b"weights"


def test_everything_is_below_one_directory_unless_a_store_is_named() -> None:
    alone = constants_with(TFLEASE_EXAMPLE_DIR="/data/mine")
    assert alone["DATA_URL"] == "/data/mine/tflease-data"
    assert alone["MODEL_URL"] == "/data/mine/tflease-model"
    shared = constants_with(
        TFLEASE_EXAMPLE_DIR="/data/mine", TFLEASE_EXAMPLE_STORE="s3://bucket/mnist/"
    )
    assert shared["DATA_URL"] == "s3://bucket/mnist/tflease-data"
    assert shared["MODEL_URL"] == "s3://bucket/mnist/tflease-model"
    assert shared["LOG_DIR"] == "/data/mine/tflease-logs", "event files are streamed to the driver"


@pytest.mark.parametrize("number", [0, 1, 13])
def test_as_many_images_as_there_are_can_be_drawn(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None is what a model without a mistake leaves to show."""
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.setenv("MPLBACKEND", "agg")
    plots = importlib.import_module("mnist_plots")
    plots.plot_digits(np.zeros((number, 8, 8, 1)), range(number))
