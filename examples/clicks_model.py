"""A factorization machine, and the logistic regression that it is measured against.

Plain TensorFlow: the tables of the categories are cut into *shards* over the parameter servers, and
Keras 3 knows no variables in shards. A step touches only the rows of the tables that its batch
names; only these, and their gradients, go over the network.
"""

import tensorflow as tf

from examples.clicks_data import CATEGORIES, KINDS, NUMBERS


class Clicks(tf.Module):
    """Numbers and categories to the logarithm of the odds of a click.

    score = bias + numbers . weights + a weight for each category
            + for each two of the row's categories, the product of their vectors

    Args:
        width: of the vectors; 0 leaves the last line out, which is a logistic regression.
    """

    def __init__(self, width):
        super().__init__()
        rows = CATEGORIES * KINDS  # one table for all columns
        self.bias = tf.Variable(tf.zeros([1]), name="bias")
        self.weights = tf.Variable(tf.zeros([NUMBERS]), name="weights")
        self.single = tf.Variable(tf.zeros([rows, 1]), name="single")
        self.vectors = None
        if width:
            start = tf.random.stateless_normal([rows, width], seed=[1, 2], stddev=0.1)
            self.vectors = tf.Variable(start, name="vectors")

    def __call__(self, numbers, categories):
        row = categories + KINDS * tf.range(CATEGORIES)  # where each column begins
        single = tf.nn.embedding_lookup(self.single, row)
        score = self.bias + tf.linalg.matvec(numbers, self.weights)
        score += tf.reduce_sum(single, axis=[1, 2])
        if self.vectors is not None:
            vectors = tf.nn.embedding_lookup(self.vectors, row)
            # The sum over all pairs, without making the pairs.
            square_of_sum = tf.square(tf.reduce_sum(vectors, axis=1))
            sum_of_squares = tf.reduce_sum(tf.square(vectors), axis=1)
            score += 0.5 * tf.reduce_sum(square_of_sum - sum_of_squares, axis=1)
        return score


class Adagrad(tf.Module):
    """The optimizer of sparse data: what is seldom seen moves far when it is.

    Keras 3's optimizers know no variables in shards; these are the two operations that one needs.
    """

    def __init__(self, variables, learning_rate):
        super().__init__()
        self._learning_rate = learning_rate
        self.sums = []
        for each in variables:
            # On the same parameter server, which then updates both without asking anybody.
            with tf.distribute.get_strategy().extended.colocate_vars_with(each):
                self.sums.append(tf.Variable(tf.fill(each.shape, 1e-6), name="sum"))

    def apply(self, gradients, variables):
        for gradient, variable, total in zip(gradients, variables, self.sums, strict=True):
            where = {"var": variable.handle, "accum": total.handle}
            how = {"lr": self._learning_rate, "epsilon": 1e-7}
            if isinstance(gradient, tf.IndexedSlices):
                rows = sum_of_same_rows(gradient)
                tf.raw_ops.ResourceSparseApplyAdagradV2(
                    **where, **how, grad=rows.values, indices=rows.indices
                )
            else:
                tf.raw_ops.ResourceApplyAdagradV2(**where, **how, grad=gradient)


def shards_of(variable):
    """The variable itself where it is whole."""
    return list(getattr(variable, "variables", [variable]))


def sum_of_same_rows(gradient):
    """A row that occurs twice in a batch moves once, by the sum."""
    rows, place = tf.unique(gradient.indices)
    values = tf.math.unsorted_segment_sum(gradient.values, place, tf.size(rows))
    return tf.IndexedSlices(values, rows)


class Learner(tf.Module):
    """A model with its optimizer."""

    def __init__(self, width, learning_rate):
        super().__init__()
        self.model = Clicks(width)
        self.optimizer = Adagrad(self.variables_to_learn(), learning_rate)

    def variables_to_learn(self):
        """Shard by shard."""
        model = self.model
        whole = [model.bias, model.weights, model.single, model.vectors]
        return [shard for each in whole if each is not None for shard in shards_of(each)]

    def step(self, numbers, categories, clicks):
        """Learns from a batch; its loss before that."""
        variables = self.variables_to_learn()
        with tf.GradientTape() as tape:
            score = self.model(numbers, categories)
            losses = tf.nn.sigmoid_cross_entropy_with_logits(labels=clicks, logits=score)
            loss = tf.reduce_mean(losses)
        self.optimizer.apply(tape.gradient(loss, variables), variables)
        return loss
