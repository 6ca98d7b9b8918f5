"""What all notebooks share: where things are, how long to train, and the Spark session.

Everything is set by environment variables, so that the notebooks need no editing:

- TFLEASE_EXAMPLE_DIR: where the driver writes; default: a folder of the temporary directory.
- TFLEASE_EXAMPLE_STORE: where the training data and the models are: a path, or any URL of fsspec
  ("s3://bucket/mnist"), that the driver and all executors reach. Default: the former, which will do
  as long as the executors are on this machine.
- TFLEASE_EXAMPLE_MASTER: of your own Spark cluster ("spark://host:7077", "yarn"); default: a
  cluster that is started on this machine.
- TFLEASE_MNIST: "keras" for the 70,000 images of MNIST, which Keras keeps in ~/.keras/datasets and
  downloads where they are not there, or the path of such a `mnist.npz`; default: the 1,797 digits
  that scikit-learn ships.
"""

import os
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import fsspec

FOLDER = Path(__file__).resolve().parent
sys.path.append(str(FOLDER.parents[1]))  # the package `examples` of this repository

# Before TensorFlow is imported: warnings and errors, no information.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

WORK_DIR = Path(
    os.environ.get("TFLEASE_EXAMPLE_DIR")
    or Path(tempfile.gettempdir(), f"tflease-mnist-{os.getuid()}")
).absolute()
LOG_DIR = f"{WORK_DIR}/tflease-logs"

STORE = (os.environ.get("TFLEASE_EXAMPLE_STORE") or str(WORK_DIR)).rstrip("/")
# Names that nobody else has: the notebooks empty these directories.
DATA_URL = f"{STORE}/tflease-data"
MODEL_URL = f"{STORE}/tflease-model"

MASTER = os.environ.get("TFLEASE_EXAMPLE_MASTER")

WORKERS = 2
PARTS = 8  # files that the training data is written to; more than there are workers
BATCH_SIZE = 64  # of all workers together
STEPS = 600
STEPS_PER_CHECKPOINT = 100  # what a restart may cost

MODULES = ("mnist_data.py", "mnist_model.py")
"""What members import. `main_fun` and its module are sent by value; other modules are not."""

_open = ExitStack()


def start_spark():
    """The session that the notebooks use, and the helper modules on their way to its executors."""
    from pyspark.sql import SparkSession

    spark = SparkSession.getActiveSession()  # a platform's notebook has one already
    if spark is None and MASTER:
        builder = SparkSession.builder.master(MASTER).appName("tflease-mnist")
        # Spark's own progress would be printed into the cells.
        spark = builder.config("spark.ui.showConsoleProgress", "false").getOrCreate()
        _open.callback(spark.stop)
    elif spark is None:
        from examples.local_cluster import local_cluster

        spark = _open.enter_context(local_cluster(executors=WORKERS, cores=1))
    for module in MODULES:
        spark.sparkContext.addPyFile(str(FOLDER / module))
    return spark


def stop_spark():
    """Ends the session and its executors, if `start_spark` has started them."""
    _open.close()


def emptied(url):
    """The directory of that name, without what an earlier execution has left there.

    A training that finds a checkpoint goes on from it. The notebooks begin from the beginning.
    """
    files, path = fsspec.url_to_fs(url)
    if files.exists(path):
        files.rm(path, recursive=True)
    files.makedirs(path, exist_ok=True)
    return url
