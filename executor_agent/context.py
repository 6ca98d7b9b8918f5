"""`ctx`: what `main_fun` is told about its member, and what it can say and ask in return.

Owns: the assignment of one member in one generation, and the command that brings it. Must not know
descriptors or how the process began and ends: that is `bootstrap`. What is about rows that Spark
feeds is in `feed.methods`, about data in `ingest.methods`, about models in `model_methods`.
TensorFlow is imported only by the methods that need it.
"""

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, SupportsFloat

from coordinator.core.stall_timeouts import Section
from executor_agent import checkpoints
from executor_agent.core.feed_values import FeedKey
from executor_agent.core.tf_config import (
    EVALUATOR,
    PS,
    WORKER,
    build_tf_config,
    count_workers,
    is_chief,
    training_cluster,
)
from executor_agent.feed.methods import FeedMethods
from executor_agent.framing import Message
from executor_agent.ingest.methods import IngestMethods
from executor_agent.model_methods import ModelMethods
from executor_agent.progress import ProgressReporter, whole_step
from executor_agent.watcher import StopSignal

if TYPE_CHECKING:
    from executor_agent.feed.server import FeedServer


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
    feed_key: FeedKey | None = None
    """Opens the feeds of the run; None: Spark does not feed this member."""
    feed_port: int = 0

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
            key = message.get("feed_key")
            return cls(
                assignment,
                dict(message.get("env") or {}),
                float(message["grace"]),
                FeedKey.from_plain(key) if key is not None else None,
                int(message.get("feed_port") or 0),
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"start command not understood: {error!r}") from error


class Context(FeedMethods, IngestMethods, ModelMethods):
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
        log_dir: a directory of this member on this machine, for event files: what grows there is
            streamed to the driver; None when the run has no log_dir.
        model_dir: where checkpoints and models go; None when the run has no such place.
        gpus: UUIDs of the GPUs leased to this member, in the order CUDA numbers them.
    """

    def __init__(
        self,
        assignment: Assignment,
        stop: StopSignal,
        progress: ProgressReporter,
        feeds: "FeedServer | None" = None,
    ) -> None:
        super().__init__(feeds, stop.is_set)
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
        if timeout is not None:
            return self._stop.wait(timeout)
        with self.section(Section.IDLE.value):
            return self._stop.wait()

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

        Whoever has reported once and then does not for the run's `stall_timeouts.step` seconds
        counts as stuck, but for an evaluator, which waits for checkpoints in between; see `section`
        for what takes longer by its nature. A step beyond all
        before is also what gives a run its restarts back.

        Args:
            step: the number of steps done.
            metrics: what to show beside it: numbers, or whatever `float()` takes, such as a NumPy
                scalar or an eager tensor (which waits until that tensor is computed).
                `total_steps`, how many there will be, makes a bar of it in notebooks.

        Raises:
            TypeError, ValueError: the step or a metric is not a number, or the step is negative or
                not below 2**63.
        """
        done = whole_step(step)
        numbers = {name: float(value) for name, value in metrics.items()}
        # Nobody knows when an evaluator's next checkpoint comes, and nobody waits for it.
        base = Section.IDLE if self.job_name == EVALUATOR else Section.STEP
        self._progress.report(done, numbers, base)

    def report_idle(self) -> None:
        """Say that there is nothing to be counted until the next `report_progress`: nobody waits
        for progress meanwhile. For callbacks; elsewhere `with ctx.section("idle")` reads better."""
        self._progress.become(Section.IDLE)

    @contextmanager
    def section(self, name: str) -> Iterator[None]:
        """What is done inside of this `with` block, and so for how long it may go on without
        progress: `stall_timeouts` of `TFCluster.run` has a time for each.

        Sections may be nested; the innermost counts, and its end is progress. A "checkpoint" that
        the chief leaves without an exception tells the coordinator that one was saved.

        Where `model_dir` is a store that checkpoints are copied to, that is told when it is there.

        Args:
            name: "checkpoint"; "evaluation"; "idle": nobody waits for progress; or "step".

        Raises:
            ValueError: there is no such section.
            StoreError: data of a checkpoint for the store was written on another machine.
        """
        try:
            section = Section(name)
        except ValueError:
            names = ", ".join(repr(each.value) for each in Section)
            raise ValueError(f"there is no section {name!r}; there are: {names}") from None
        entered = self._progress.enter(section)
        try:
            yield
            if section is Section.CHECKPOINT:
                self._checkpoint_saved()
        finally:
            self._progress.leave(entered)

    def keras_callback(self) -> Any:
        """A Keras callback that reports the steps of `model.fit` and says when it evaluates:
        `model.fit(..., callbacks=[ctx.keras_callback()])`. For `tf.keras`, whichever Keras that
        is; for another one, `ReportProgress(ctx, keras=...)` of `executor_agent.keras_progress`.
        """
        from executor_agent.keras_progress import ReportProgress

        return ReportProgress(self)

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
        if self.job_name == WORKER:
            self._serve_feeds(self.task_index)
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
        self.wait_for_stop()

    def parameter_server_cluster_resolver(self) -> Any:
        """The resolver `tf.distribute.ParameterServerStrategy` wants, read from TF_CONFIG."""
        import tensorflow as tf

        return tf.distribute.cluster_resolver.TFConfigClusterResolver(rpc_layer="grpc")

    def _gfile(self) -> Any:
        import tensorflow as tf  # it knows the file systems that have URIs

        return tf.io.gfile
