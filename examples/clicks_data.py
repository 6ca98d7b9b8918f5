"""Clicks that never happened: rows as a click log has them, with a signal that is known exactly.

A row has 13 numbers, 26 categories and whether there was a click, as in Criteo's data. Most
categories are of a few frequent kinds and some are hardly ever seen (a power law). How probable the
click of a row is depends on

- each number and each category by itself, which a logistic regression can learn;
- *pairs* of categories, which it cannot: as some people like some films.

So it is known how good the best model can possibly be, and what is missed without pairs.
"""

import numpy as np

NUMBERS = 13
CATEGORIES = 26  # columns
KINDS = 100  # different values of each
PAIRS = tuple((column, column + 1) for column in range(0, 8, 2))  # columns that work together
TASTES = 2  # what one of a pair likes of the other, in so many respects


class Truth:
    """What decides the clicks; the same for everyone who asks."""

    def __init__(self, seed=0):
        random = np.random.default_rng(seed)
        self.numbers = random.normal(0.0, 0.15, NUMBERS).astype(np.float32)
        self.single = random.normal(0.0, 0.15, (CATEGORIES, KINDS)).astype(np.float32)
        self.tastes = random.normal(0.0, 1.0, (CATEGORIES, KINDS, TASTES)).astype(np.float32)
        self.usual = np.float32(-1.2)  # a click on one row in four

    def score(self, numbers, categories):
        """The logarithm of the odds of a click, by TensorFlow: for rows made on the workers."""
        import tensorflow as tf

        score = self.usual + tf.linalg.matvec(numbers, self.numbers)
        for column in range(CATEGORIES):
            score += tf.gather(self.single[column], categories[:, column])
        for one, other in PAIRS:
            likes = tf.gather(self.tastes[one], categories[:, one])
            has = tf.gather(self.tastes[other], categories[:, other])
            score += 0.5 * tf.reduce_sum(likes * has, axis=1)
        return score


def rows(truth, count, seed):
    """Rows from a seed, a tensor of two integers: (numbers, categories, clicks, scores)."""
    import tensorflow as tf

    # Four independent draws of the same seed.
    seeds = [tf.stack([seed[0], seed[1] + which]) for which in range(3)]
    numbers = tf.random.stateless_normal((count, NUMBERS), seeds[0])
    uniform = tf.random.stateless_uniform((count, CATEGORIES), seeds[1])
    # Kind k is about k times as rare as kind 1.
    categories = tf.cast(tf.pow(float(KINDS), uniform), tf.int32) - 1
    categories = tf.clip_by_value(categories, 0, KINDS - 1)
    score = truth.score(numbers, categories)
    chance = tf.random.stateless_uniform((count,), seeds[2])
    clicks = tf.cast(chance < tf.sigmoid(score), tf.float32)
    return numbers, categories, clicks, score


def batches(truth, batch_size):
    """A dataset of (numbers, categories, clicks) without end, others on each worker.

    Nobody sends rows anywhere: `Dataset.random` without a seed begins elsewhere wherever it runs.
    """
    import tensorflow as tf

    def batch(first, second):
        # Even numbers: the held-out rows have an odd one.
        seed = tf.stack([first // 2 * 2, second])
        return rows(truth, batch_size, seed)[:3]

    seeds = tf.data.Dataset.zip(tf.data.Dataset.random(), tf.data.Dataset.random())
    return seeds.map(batch, num_parallel_calls=2).prefetch(4)


def held_out(truth, count):
    """Rows that no batch can have."""
    import tensorflow as tf

    return rows(truth, count, tf.constant([1, 0], tf.int64))


def area_under_curve(scores, clicks):
    """AUC: how often a row with a click has a higher score than one without. 0.5 is guessing."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(np.asarray(clicks), np.asarray(scores)))
