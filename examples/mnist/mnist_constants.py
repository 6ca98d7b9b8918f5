"""What all notebooks share: where things are, how long to train, and the Spark session.

Everything is set by environment variables, so that the notebooks need no editing:

- TFLEASE_EXAMPLE_DIR: where the notebooks write; default: a folder of the temporary directory.
- TFLEASE_EXAMPLE_DATA: where the training data is kept, any URL of fsspec ("s3://bucket/mnist");
  default: below the former.
- TFLEASE_MNIST: "keras" for the 60,000 images of MNIST, which Keras downloads, or the path of a
  `mnist.npz`; default: the 1,797 digits that scikit-learn ships.
"""

import getpass
import os
import shutil
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
sys.path.append(str(FOLDER.parents[1]))  # the package `examples` of this repository

# Before TensorFlow is imported: warnings and errors, no information.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

WORK_DIR = Path(
    os.environ.get("TFLEASE_EXAMPLE_DIR")
    or Path(tempfile.gettempdir(), f"tflease-mnist-{getpass.getuser()}")
).absolute()
DATA_URL = os.environ.get("TFLEASE_EXAMPLE_DATA") or (WORK_DIR / "data").as_uri()

WORKERS = 2
PARTS = 8  # files that the training data is written to; more than there are workers
BATCH_SIZE = 64  # of all workers together
STEPS = 600
STEPS_PER_CHECKPOINT = 100  # what a restart may cost

MODULES = ("mnist_data.py", "mnist_model.py")
"""What members import. `main_fun` and its module are sent by value; other modules are not."""

_open = ExitStack()


def start_spark():
    """The session that the notebooks use.

    Here: a cluster on this machine, whose executors are processes of their own. On your own
    cluster: `SparkSession.builder.getOrCreate()`, and the modules sent in the same way.
    """
    from examples.local_cluster import local_cluster

    spark = _open.enter_context(local_cluster(executors=WORKERS, cores=1))
    for module in MODULES:
        spark.sparkContext.addPyFile(str(FOLDER / module))
    return spark


def stop_spark():
    """Ends the session and its executors."""
    _open.close()


def empty_directory(name):
    """A directory below WORK_DIR, without what an earlier execution has left there.

    A training that finds a checkpoint goes on from it. The notebooks begin from the beginning.
    """
    path = WORK_DIR / name
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    return str(path)
