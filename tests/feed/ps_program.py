"""A chief, two workers and a ps, each a process of its own: `ps_program.py job index cluster`.

The workers are fed from memory; the chief prints what they were given.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

ROOT = str(Path(__file__).parents[2])
if ROOT not in sys.path:
    sys.path.insert(0, ROOT)

from tests.feed.fake_feed import FakeFeed, never  # noqa: E402

ROWS = {0: [[3, 4], [2]], 1: [[5], []]}
"""By worker: for each epoch the rows in each piece."""


def rows_of(worker: int) -> FakeFeed:
    """Row i of worker w is numbered 100 w + i, has i % 3 words, and some have no number x."""
    import pyarrow as pa

    number = 100 * worker
    epochs = []
    for pieces in ROWS[worker]:
        batches = []
        for count in pieces:
            numbers = range(number, number + count)
            number += count
            batches.append(
                pa.record_batch(
                    {
                        "n": pa.array(numbers, pa.int64()),
                        "x": pa.array([None if n % 2 else n / 2 for n in numbers], pa.float64()),
                        "words": pa.array(
                            [["w"] * (n % 3) for n in numbers], pa.list_(pa.string())
                        ),
                        "ignored": pa.array(numbers),
                    }
                )
            )
        epochs.append(batches)
    return FakeFeed(*epochs)


def serve(cluster: dict[str, list[str]], job: str, index: int) -> None:
    import tensorflow as tf

    if job == "worker":
        from executor_agent.feed import parameter_server

        feeds: Any = {"input": rows_of(index), "other": rows_of(index)}
        parameter_server.register_feeds(feeds, index, never)
    server = tf.distribute.Server(cluster, job_name=job, task_index=index, protocol="grpc")
    assert server
    threading.Event().wait()  # until it is killed


def train(cluster: dict[str, list[str]]) -> dict[str, Any]:
    import tensorflow as tf

    from executor_agent.feed import parameter_server

    task = {"type": "chief", "index": 0}
    os.environ["TF_CONFIG"] = json.dumps({"cluster": cluster, "task": task})
    resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver(rpc_layer="grpc")
    strategy = tf.distribute.ParameterServerStrategy(resolver)
    coordinator = tf.distribute.coordinator.ClusterCoordinator(strategy)
    with strategy.scope():
        rows = tf.Variable(0, dtype=tf.int64)
        total = tf.Variable(0.0)
        words = tf.Variable(0, dtype=tf.int64)
        full = tf.Variable(0, dtype=tf.int64)

    def step(batch: dict[str, Any]) -> None:
        count = tf.size(batch["n"], out_type=tf.int64)
        rows.assign_add(count)
        full.assign_add(tf.cast(count == 2, tf.int64))
        total.assign_add(tf.reduce_sum(batch["x"]))
        words.assign_add(tf.size(batch["words"].flat_values, out_type=tf.int64))

    spec = {
        "n": tf.TensorSpec((), tf.int64),
        "x": tf.TensorSpec((), tf.float32),
        "words": tf.RaggedTensorSpec((None,), tf.string),
    }
    dataset_fn = parameter_server.per_worker_dataset_fn(2, spec, defaults={"x": 0.5})
    fed = iter(coordinator.create_per_worker_dataset(dataset_fn))
    steps = parameter_server.run_steps(coordinator, step, fed, workers=2)

    wrong = parameter_server.per_worker_dataset_fn(
        2, {"n": tf.TensorSpec((), tf.string)}, feed="other"
    )
    try:
        other = iter(coordinator.create_per_worker_dataset(wrong))
        parameter_server.run_steps(coordinator, lambda batch: None, other, workers=2)
        error = ""
    except tf.errors.OpError as raised:
        error = str(raised)
    return {
        "steps": steps,
        "rows": int(rows.numpy()),
        "full": int(full.numpy()),
        "total": float(total.numpy()),
        "words": int(words.numpy()),
        "error": error,
    }


def main() -> None:
    job, index, cluster = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])
    if job == "chief":
        print(json.dumps(train(cluster)), flush=True)
        os._exit(0)  # the coordinator's threads look for its workers for ever
    serve(cluster, job, index)


if __name__ == "__main__":
    main()
