"""Each example explains itself, and refuses what makes no sense before it starts anything."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest

from examples import clicks, images_sync, sweep

EXAMPLES = (clicks, images_sync, sweep)


@pytest.mark.parametrize("example", EXAMPLES)
def test_help_says_what_the_example_does(
    example: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        example.parse(["--help"])
    assert left.value.code == 0
    shown = capsys.readouterr().out
    assert (example.__doc__ or "").splitlines()[0] in shown
    assert f"python -m {example.__name__}" in shown


@pytest.mark.parametrize(
    ("example", "arguments"),
    [
        (clicks, ["--ps", "0"]),
        (clicks, ["--steps", "0"]),
        (images_sync, ["--workers", "0"]),
        (sweep, ["--parallel", "0"]),
    ],
)
def test_numbers_that_make_no_sense_are_refused(
    example: ModuleType, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        example.parse(arguments)
    assert left.value.code == 2
    assert "at least 1" in capsys.readouterr().err


def test_digits_are_enlarged() -> None:
    (images, labels), (held_out, _) = images_sync.load_images()
    assert images.shape[1:] == held_out.shape[1:] == (16, 16, 1)
    assert len(images) == len(labels)
    assert np.array_equal(images[:, 0::2, 0::2], images[:, 1::2, 1::2])


def test_ones_own_images_are_read_whatever_their_shape(tmp_path: Any) -> None:
    grey = np.full((3, 4, 5), 255, np.uint8)
    colour = np.full((2, 4, 5, 3), 0.5, np.float32)
    labels = np.array([[0], [1], [2]])  # as CIFAR-10 has them
    path = tmp_path / "own.npz"
    np.savez(path, x_train=grey, y_train=labels, x_test=colour, y_test=labels[:2])
    (images, found), (held_out, _) = images_sync.load_images(path)
    assert images.shape == (3, 4, 5, 1)
    assert float(images.max()) == 1.0
    assert found.tolist() == [0, 1, 2]
    assert held_out.shape == (2, 4, 5, 3)
    assert float(held_out.max()) == 0.5


def test_one_setting_is_impossible_only_when_asked_for() -> None:
    assert all(each["units"] > 0 for each in sweep.trials())
    assert sum(each["units"] < 0 for each in sweep.trials(with_a_failure=True)) == 1
