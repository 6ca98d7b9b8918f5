"""What the members of the feed's figure run: a TensorFlow step for each batch, and the time at
which the last row of each ``cluster.train`` had gone through one."""

import time
from pathlib import Path


def take(args, ctx):
    """Args: {"batch", "kind", "size", "ends": a directory of this machine}."""
    import tensorflow as tf

    spec = {
        "x": tf.TensorSpec((args["size"],), tf.dtypes.as_dtype(args["kind"])),
        "label": tf.TensorSpec((), tf.int64),
    }

    @tf.function(reduce_retracing=True)
    def step(batch):
        return tf.reduce_sum(batch["label"]), tf.reduce_max(batch["x"])

    number = 0
    while not ctx.should_stop:
        rows = 0
        for batch in ctx.dataset(args["batch"], spec, equal_steps=args.get("equal", False)):
            step(batch)
            rows += int(batch["label"].shape[0])
        if rows:
            number += 1
            done = Path(args["ends"], f"{number}-{ctx.task_index}")
            done.with_suffix(".part").write_text(f"{time.time()} {rows}")
            done.with_suffix(".part").rename(done)
