"""Learn to rank clicks: large tables of embeddings on parameter servers.

    python -m examples.clicks

Rows with 13 numbers and 26 categories are made up, as in a log of advertisements (`clicks_data.py`:
the signal in them is known). A factorization machine (`clicks_model.py`) learns them on a chief,
two workers and two parameter servers: tables with a row for each category are cut into shards over
the parameter servers, and each worker fetches and updates only the rows that its batch names.

What it learns is put between two figures: a logistic regression, trained on the very same batches,
and the best that any model could do, which is known because the rows are made up. The figures are
AUC on rows that nobody trained on: how often a click gets a higher score than none.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence

from coordinator import Roles, TFCluster
from examples.digits_run import ship_examples
from examples.local_cluster import local_cluster

BATCH_SIZE = 1024
STEPS = 1500  # of all workers together
STEPS_PER_CALL = 25  # steps a worker takes before the chief hears of it again
STEPS_PER_CHECKPOINT = 500
HELD_OUT = 20_000  # rows
WIDTH = 4  # numbers in a category's vector
LEARNING_RATE = 0.1
SMALLEST_SHARD = 16 << 10  # bytes; 256 KiB is usual, the tables of this example are small


def learn_clicks(args, ctx):
    """The `main_fun` of every member.

    Args:
        args: {"steps": how many}.
        ctx: this member's context.

    Returns:
        From the chief: {"steps", "loss", "shards": of the largest table, "auc", "logistic",
        "best"}; None from the others.
    """
    if ctx.job_name in ("ps", "worker"):
        return ctx.serve_forever()

    import tensorflow as tf

    from examples.clicks_data import Truth, area_under_curve, batches, held_out
    from examples.clicks_model import Learner, shards_of

    strategy = tf.distribute.ParameterServerStrategy(
        ctx.parameter_server_cluster_resolver(),
        # Variables that are large enough get a shard on each parameter server.
        variable_partitioner=tf.distribute.experimental.partitioners.MinSizePartitioner(
            SMALLEST_SHARD, max_shards=len(ctx.cluster_spec["ps"])
        ),
    )
    coordinator = tf.distribute.coordinator.ClusterCoordinator(strategy)
    truth = Truth()
    with strategy.scope():
        machine = Learner(WIDTH, LEARNING_RATE)
        logistic = Learner(0, LEARNING_RATE)
        taken = tf.Variable(0, dtype=tf.int64, name="taken")

    # By the chief, whose place counts: parameter servers would write on their own disks.
    here = tf.train.CheckpointOptions(experimental_io_device="/job:chief/task:0")
    checkpoint = tf.train.Checkpoint(machine=machine, logistic=logistic, taken=taken)
    checkpoints = None
    if ctx.model_dir is not None:
        if latest := ctx.latest_checkpoint():
            checkpoint.restore(latest, options=here).assert_existing_objects_matched()
        checkpoints = tf.train.CheckpointManager(checkpoint, ctx.checkpoint_dir, max_to_keep=2)

    def one_step(numbers, categories, clicks):
        logistic.step(numbers, categories, clicks)
        return machine.step(numbers, categories, clicks)

    @tf.function
    def train_steps(rows):  # runs on whichever worker is free
        for _ in range(STEPS_PER_CALL - 1):
            strategy.run(one_step, args=next(rows))
        return strategy.run(one_step, args=next(rows))

    rows = iter(coordinator.create_per_worker_dataset(lambda: batches(truth, BATCH_SIZE)))
    workers = len(ctx.cluster_spec["worker"])
    done = saved = int(taken.numpy())
    loss = float("nan")
    while done < args["steps"] and not ctx.should_stop:
        calls = [coordinator.schedule(train_steps, args=(rows,)) for _ in range(workers)]
        coordinator.join()
        done += STEPS_PER_CALL * len(calls)
        loss = float(calls[-1].fetch())
        ctx.report_progress(done, loss=loss)
        if checkpoints is not None and done - saved >= STEPS_PER_CHECKPOINT:
            with ctx.section("checkpoint"):
                taken.assign(done)
                checkpoints.save(checkpoint_number=done, options=here)
            saved = done

    with ctx.section("evaluation"):
        numbers, categories, clicks, scores = held_out(truth, HELD_OUT)
        return {
            "steps": done,
            "loss": loss,
            "shards": len(shards_of(machine.model.vectors)),
            "auc": area_under_curve(machine.model(numbers, categories), clicks),
            "logistic": area_under_curve(logistic.model(numbers, categories), clicks),
            "best": area_under_curve(scores, clicks),
        }


def run(spark, steps=STEPS, workers=2, parameter_servers=2, model_dir=None, progress=True):
    """The driver's part: what the chief returned. The examples must have been shipped."""
    with TFCluster.run(
        spark,
        learn_clicks,
        {"steps": steps},
        roles=Roles(chief=1, worker=workers, ps=parameter_servers),
        name="clicks",
        model_dir=model_dir,
        progress=progress,
    ) as cluster:
        return cluster.wait()["chief:0"]


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m examples.clicks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--steps", type=int, default=STEPS, help=f"default: {STEPS}")
    parser.add_argument("--workers", type=int, default=2, help="default: 2")
    parser.add_argument("--ps", type=int, default=2, help="parameter servers; default: 2")
    parser.add_argument("--model-dir", help="for checkpoints, which a later run goes on from")
    options = parser.parse_args(arguments)
    if min(options.steps, options.workers, options.ps) < 1:
        parser.error("--steps, --workers and --ps: at least 1")
    return options


def main() -> int:
    options = parse()
    slots = 1 + options.workers + options.ps
    with (
        tempfile.TemporaryDirectory(prefix="tflease-clicks-") as scratch,
        local_cluster(executors=2, cores=-(-slots // 2)) as spark,
    ):
        ship_examples(spark, scratch)
        found = run(spark, options.steps, options.workers, options.ps, options.model_dir)
    print(f"{found['steps']} steps of {BATCH_SIZE} rows, the tables in {found['shards']} shards")
    print("AUC on rows that nobody trained on:")
    print(f"  {found['logistic']:.4f}  logistic regression, on the same batches")
    print(f"  {found['auc']:.4f}  factorization machine")
    print(f"  {found['best']:.4f}  the best that is possible")
    return 0


if __name__ == "__main__":
    sys.exit(main())
