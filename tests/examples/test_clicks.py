"""The made-up clicks: the signal is there, held-out rows are nobody else's, shards add up."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from examples import clicks
from examples.clicks_data import area_under_curve

pytestmark = [pytest.mark.tensorflow, pytest.mark.slow, pytest.mark.usefixtures("tf")]


def test_rows_are_the_same_for_the_same_seed_and_others_for_another(tf: Any) -> None:
    from examples.clicks_data import Truth, rows

    first = rows(Truth(), 100, tf.constant([1, 0], tf.int64))
    again = rows(Truth(), 100, tf.constant([1, 0], tf.int64))
    other = rows(Truth(), 100, tf.constant([2, 0], tf.int64))
    assert all(np.array_equal(one, two) for one, two in zip(first, again, strict=True))
    assert not np.array_equal(first[0], other[0])


def test_few_categories_are_frequent_and_most_are_rare() -> None:
    from examples.clicks_data import KINDS, Truth, held_out

    _, categories, clicks_, _ = held_out(Truth(), 20_000)
    counts = np.bincount(categories.numpy().ravel(), minlength=KINDS)
    assert len(counts) == KINDS
    assert counts[0] > 10 * counts[KINDS // 2] > 0
    assert 0.1 < float(np.mean(clicks_)) < 0.4


def test_a_machine_that_knows_pairs_learns_more_than_a_logistic_regression(tf: Any) -> None:
    from examples.clicks_data import Truth, batches, held_out
    from examples.clicks_model import Learner

    truth = Truth()
    machine, logistic = Learner(clicks.WIDTH, clicks.LEARNING_RATE), Learner(0, 0.1)

    @tf.function
    def step(*batch: Any) -> None:
        logistic.step(*batch)
        machine.step(*batch)

    for batch in batches(truth, clicks.BATCH_SIZE).take(800):
        step(*batch)
    numbers, categories, clicked, scores = held_out(truth, 20_000)
    learnt = area_under_curve(machine.model(numbers, categories), clicked)
    simple = area_under_curve(logistic.model(numbers, categories), clicked)
    assert 0.65 < simple < learnt - 0.03
    assert learnt < area_under_curve(scores, clicked)


def test_a_row_that_occurs_twice_in_a_batch_moves_by_the_sum(tf: Any) -> None:
    from examples.clicks_model import sum_of_same_rows

    gradient = tf.IndexedSlices(tf.constant([[1.0], [2.0], [4.0]]), tf.constant([7, 3, 7]))
    found = sum_of_same_rows(gradient)
    assert dict(zip(found.indices.numpy().tolist(), found.values.numpy()[:, 0], strict=True)) == {
        7: 5.0,
        3: 2.0,
    }
