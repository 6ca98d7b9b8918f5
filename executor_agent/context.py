"""`ctx`: what `main_fun` is told about its member, and what it can say and ask in return.

Owns: the assignment of one member in one generation, the command that brings it, and the progress
reports. Must not know descriptors or how the process began and ends: that is
`bootstrap`. TensorFlow is imported only by the two methods that need it.
"""

import os
import re
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, SupportsFloat

from executor_agent import checkpoints
from executor_agent.core.tf_config import (
    PS,
    WORKER,
    build_tf_config,
    count_workers,
    is_chief,
    training_cluster,
)
from executor_agent.framing import Message
from executor_agent.watcher import StopSignal

_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_PROGRESS_INTERVAL = 0.2  # seconds between two progress messages

Send = Callable[[Mapping[str, object]], None]


@dataclass(frozen=True, slots=True)
class Assignment:
    """What the agent's start command says about this member; `Context` documents the fields."""

    run_id: str
    generation: int
    job_name: str
    task_index: int
    cluster_spec: Mapping[str, tuple[str, ...]]
    executor_id: str
    local_dir: str
    log_dir: str | None
    model_dir: str | None
    gpus: tuple[str, ...] = ()
    created_at: float = 0.0
    """When the run was made, Unix time: the same for all members."""


@dataclass(frozen=True, slots=True)
class Start:
    """The start command: this member's assignment and how to run it."""

    assignment: Assignment
    env: Mapping[str, str | None]
    """Variables to set; None removes one."""
    grace: float
    """Seconds that a stop leaves for `main_fun`."""

    @classmethod
    def parse(cls, message: Message) -> "Start":
        """Raises ValueError when a field is missing or of the wrong type."""
        try:
            spec = message["cluster_spec"].items()
            assignment = Assignment(
                run_id=str(message["run_id"]),
                generation=int(message["generation"]),
                job_name=str(message["job_name"]),
                task_index=int(message["task_index"]),
                cluster_spec={str(job): tuple(map(str, members)) for job, members in spec},
                executor_id=str(message["executor_id"]),
                local_dir=str(message["local_dir"]),
                log_dir=message.get("log_dir"),
                model_dir=message.get("model_dir"),
                gpus=tuple(map(str, message.get("gpus") or ())),
                created_at=float(message.get("created_at") or 0.0),
            )
            return cls(assignment, dict(message.get("env") or {}), float(message["grace"]))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"start command not understood: {error!r}") from error


class ProgressReporter:
    """Sends the latest progress from a thread of its own, at most one message an interval.

    Only the newest report is kept while the agent does not read: training never waits for it.
    """

    def __init__(self, send: Send, interval: float = _PROGRESS_INTERVAL) -> None:
        self._send = send
        self._interval = interval
        self._condition = threading.Condition()
        self._pending: Mapping[str, object] | None = None
        self._closing = False
        self._thread: threading.Thread | None = None  # started by the first report

    def report(self, step: int, metrics: Mapping[str, float]) -> None:
        """Replace what is waiting to be sent."""
        with self._condition:
            if self._closing:
                return
            self._pending = {"event": "progress", "step": step, "metrics": dict(metrics)}
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="tflease-progress", daemon=True
                )
                self._thread.start()
            self._condition.notify_all()

    def close(self, timeout: float) -> None:
        """Send what is waiting; give up after `timeout` seconds. Later reports are dropped."""
        with self._condition:
            self._closing = True
            self._condition.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join(timeout)

    def _run(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._pending is not None or self._closing)
                message, self._pending = self._pending, None
            if message is None:
                return
            try:
                self._send(message)
            except (OSError, ValueError):
                # The agent is gone or broken. Whether that ends the run is not for a progress
                # report to decide; further ones go nowhere.
                with self._condition:
                    self._closing = True
                return
            with self._condition:
                self._condition.wait_for(lambda: self._closing, self._interval)


class Context:
    """The second argument of `main_fun`: this member's place in the cluster.

    Attributes:
        run_id: the run this member belongs to.
        job_name: "chief", "worker", "ps" or "evaluator".
        task_index: this member's index in its role, from 0.
        cluster_spec: "host:port" of all members by role, evaluators included (which `tf_config`
            leaves out, as TensorFlow wants it).
        num_workers: how many members train; the chief counts, as in TensorFlow.
        is_chief: whether this is the chief, or worker 0 where there is no chief.
        generation: how often the cluster was assembled, from 1; grows when the gang restarts.
        executor_id: Spark's id of the executor this runs on.
        tf_config: the value of the environment variable TF_CONFIG, parsed.
        local_dir: a directory on this machine for this member alone, removed at the end.
        log_dir: where event files go; None when the run has no such place.
        model_dir: where checkpoints and models go; None when the run has no such place.
        gpus: UUIDs of the GPUs leased to this member, in the order CUDA numbers them.
    """

    def __init__(self, assignment: Assignment, stop: StopSignal, progress: ProgressReporter):
        spec = assignment.cluster_spec
        job_name, task_index = assignment.job_name, assignment.task_index
        self.run_id = assignment.run_id
        self.job_name = job_name
        self.task_index = task_index
        self.cluster_spec = {job: list(addresses) for job, addresses in spec.items()}
        self.num_workers = count_workers(spec)
        self.is_chief = is_chief(spec, job_name, task_index)
        self.generation = assignment.generation
        self.executor_id = assignment.executor_id
        self.tf_config: dict[str, Any] = build_tf_config(spec, job_name, task_index)
        self.local_dir = assignment.local_dir
        self.log_dir = assignment.log_dir
        self.model_dir = assignment.model_dir
        self.gpus = assignment.gpus
        self._generation_name = checkpoints.name_of(
            assignment.created_at, assignment.run_id, assignment.generation
        )
        self._stop = stop
        self._progress = progress
        self._server: object = None

    def __repr__(self) -> str:
        return f"<Context {self.job_name} {self.task_index}, generation {self.generation}>"

    @property
    def checkpoint_dir(self) -> str | None:
        """Where this generation of the run, and nobody else, saves its checkpoints: a directory
        below `model_dir`, made when it is first asked for; None without `model_dir`. The same for
        all members. A member of an earlier generation that was taken for dead, and is not, goes on
        writing into another one.

        Raises:
            OSError, tf.errors.OpError: it cannot be made.
        """
        if self.model_dir is None:
            return None
        path = checkpoints.join(self._checkpoint_root(), self._generation_name)
        self._files().makedirs(path)
        return path

    def latest_checkpoint(self) -> str | None:
        """The newest complete TensorFlow checkpoint below `model_dir`, as `tf.train.Checkpoint`
        takes it (its path without ".index"); None when there is none.

        The newest run and generation comes first, whenever its files were written, and only then
        the time of the files: so what a member of an earlier generation still writes is not taken
        for the latest. A checkpoint is complete when its index and all of its shards are there.

        Raises:
            OSError, tf.errors.OpError: the directories cannot be read.
        """
        if self.model_dir is None:
            return None
        return checkpoints.latest(self._checkpoint_root(), self._files())

    def _checkpoint_root(self) -> str:
        return checkpoints.join(self.absolute_path(self.model_dir or ""), checkpoints.ROOT)

    def _files(self) -> checkpoints.Files:
        if self.model_dir is None or not _URI.match(self.model_dir):
            return checkpoints.LocalFiles()
        import tensorflow as tf  # it knows the file systems that have URIs

        return checkpoints.TensorFlowFiles(tf.io.gfile)

    @property
    def should_stop(self) -> bool:
        """Whether this member was told to stop. Save what is to be kept and return from `main_fun`;
        after the role's grace the process is killed."""
        return self._stop.is_set()

    def wait_for_stop(self, timeout: float | None = None) -> bool:
        """Wait until this member is told to stop.

        Args:
            timeout: seconds to wait at most; None waits for ever.

        Returns:
            Whether it was told to stop.
        """
        return self._stop.wait(timeout)

    def on_stop(self, callback: Callable[[], None]) -> None:
        """Have `callback()` called when this member is told to stop.

        It runs in a thread of its own, while `main_fun` goes on, or at once in the calling thread
        if the stop has begun. Callbacks run one after the other; what one raises is printed and
        stops neither the others nor the process. The role's grace bounds them all.
        """
        self._stop.add_callback(callback)

    def report_progress(self, step: int, **metrics: SupportsFloat) -> None:
        """Say how far the training is. Cheap enough to call every step.

        At most five reports a second leave the process, the latest one wins, and the last one
        is always sent. Never waits for anybody and never raises because the agent is gone.

        Args:
            step: the number of steps done.
            metrics: what to show beside it: numbers, or whatever `float()` takes, such as a NumPy
                scalar or an eager tensor (which waits until that tensor is computed).

        Raises:
            TypeError, ValueError: the step or a metric is not a number.
        """
        self._progress.report(int(step), {name: float(value) for name, value in metrics.items()})

    def serve_forever(self) -> None:
        """Run a `tf.distribute.Server` on this member's address until it is told to stop.

        The whole `main_fun` of a ps, and of a worker of `ParameterServerStrategy`.

        Raises:
            RuntimeError: this member is neither a ps nor a worker.
            tf.errors.OpError: the server could not start.
        """
        if self.job_name not in (PS, WORKER):
            raise RuntimeError(
                f"only ps and workers serve; {self.job_name} {self.task_index} has to run its "
                "own part of main_fun"
            )
        import tensorflow as tf

        began = time.monotonic()
        # Kept: a server that is collected tries to stop, which TensorFlow does not implement.
        self._server = tf.distribute.Server(
            training_cluster(self.cluster_spec),
            job_name=self.job_name,
            task_index=self.task_index,
            protocol="grpc",
        )
        address = self.cluster_spec[self.job_name][self.task_index]
        seconds = time.monotonic() - began
        print(f"tflease: serving TensorFlow on {address} after {seconds:.2f} s", file=sys.stderr)
        # Not server.join(): it never returns, and nothing in Python runs inside it.
        self._stop.wait()

    def parameter_server_cluster_resolver(self) -> Any:
        """The resolver `tf.distribute.ParameterServerStrategy` wants, read from TF_CONFIG."""
        import tensorflow as tf

        return tf.distribute.cluster_resolver.TFConfigClusterResolver(rpc_layer="grpc")

    def absolute_path(self, path: str) -> str:
        """`path` made independent of the working directory.

        Args:
            path: a path, or a URI such as "hdfs://host/x" or "s3a://bucket/x".

        Returns:
            URIs and absolute paths as they are; relative paths against the working directory of
            this process. (TensorFlowOnSpark resolved them against Spark's default file system:
            write the URI where that is meant.)
        """
        return path if _URI.match(path) else os.path.abspath(path)
