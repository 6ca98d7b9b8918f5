"""A process that writes scalars as a training does, for several members at once.

``python -m benchmarks.event_files_writer RATE DIRECTORY...``: says "ready" when TensorFlow is
imported, then writes RATE scalars a second into each directory, with the defaults of
``tf.summary``, until its standard input ends.
"""

from __future__ import annotations

import os
import select
import sys
import time


def main() -> int:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf

    rate = float(sys.argv[1])
    writers = [tf.summary.create_file_writer(directory) for directory in sys.argv[2:]]
    print("ready", flush=True)
    step, due_at = 0, time.monotonic()
    while not select.select([sys.stdin], [], [], max(0.0, due_at - time.monotonic()))[0]:
        writers[step % len(writers)].set_as_default()  # leaving ``as_default`` would flush
        tf.summary.scalar("loss", 1.0 / (step + 1), step=step // len(writers))
        step += 1
        due_at += 1.0 / rate / len(writers)
    for writer in writers:
        writer.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
