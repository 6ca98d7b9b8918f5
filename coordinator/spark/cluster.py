"""``TFCluster.run``: the library call, and the handle that it returns."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any

from coordinator.client import RunClient
from coordinator.core import roster
from coordinator.core.completion import STOP_STAGES
from coordinator.core.errors import CoordinatorUnavailable, TfleaseError
from coordinator.core.liveness import STOP_BOUND
from coordinator.core.model import MemberPhase, Roles, RunPhase, RunView
from coordinator.spark import payload, preflight, results
from coordinator.spark.coordinator_process import CoordinatorProcess
from coordinator.spark.jobs import MemberJobs
from coordinator.spark.options import InputMode, Options, ProgressCallback
from coordinator.spark.progress import ProgressLine
from coordinator.spark.results import RunResult
from coordinator.spark.session import Forming, RunSession

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_JOIN_TIMEOUT = 15.0
"""Seconds for tasks to return their rows once their members have ended."""

_CONNECT_TIMEOUT = 60.0
_COORDINATOR_TIMEOUT = 30.0


class TFCluster:
    """A TensorFlow cluster on Spark executors. Made by ``run``; use it as a context manager."""

    def __init__(self, spark: SparkSession, options: Options, work: bytes) -> None:
        """Not public: use ``TFCluster.run``."""
        self._spark = spark
        self._options = options
        self._began_at = time.monotonic()
        self._progress = ProgressLine(options.spec.name) if options.progress is True else None
        show = options.progress if callable(options.progress) else None
        self._shutdown_lock = threading.RLock()  # a user's signal handler may call it, too
        self._is_shut_down = False
        host = str(spark.sparkContext.getConf().get("spark.driver.host", ""))
        bind_host, port = options.bind_address(str(spark.sparkContext.master), host)
        advertised = options.advertised_host(host or socket.gethostname())
        with ExitStack() as undo:
            self._coordinator = CoordinatorProcess(bind_host, port, advertised)
            undo.callback(self._coordinator.kill)
            address, token = self._coordinator.address, self._coordinator.token
            self._client = RunClient(address, token)
            undo.callback(self._client.close)
            run = self._client.create(options.spec)
            show = show or (self._progress.show if self._progress else None)
            self._session = RunSession(self._client, run, show)
            self._jobs = MemberJobs(
                spark,
                run.run_id,
                options.spec.name,
                self._session.task_returned,
                self._session.task_failed,
            )
            self._task = options.task(str(run.run_id), address, token, work, _CONNECT_TIMEOUT)
            undo.pop_all()

    @classmethod
    def run(
        cls,
        spark: Any,
        main_fun: Callable[[Any, Any], Any],
        args: Any = None,
        *,
        roles: Roles | Mapping[str, int],
        gpus: Roles | Mapping[str, int] | None = None,
        input_mode: InputMode = InputMode.TENSORFLOW,
        reservation_timeout: float = 600.0,
        name: str = "tflease",
        completion: Iterable[str] | None = None,
        grace: Mapping[str, float] | None = None,
        preload: Iterable[str] = ("tensorflow",),
        env: Mapping[str, str] | None = None,
        log_dir: str | None = None,
        model_dir: str | None = None,
        bind: str | None = None,
        progress: bool | ProgressCallback = True,
    ) -> TFCluster:
        """Starts ``main_fun(args, ctx)`` in a process of its own on one executor slot for each
        member, and returns when it has been entered on all of them.

        Args:
            spark: a SparkSession or SparkContext.
            main_fun: called on every member; ``ctx`` says who it is
                (``executor_agent.context.Context``).
            args: any object that can be pickled; the first argument of ``main_fun``.
            roles: how many members of each role, ``Roles(chief=1, worker=2, ps=1)``.
            gpus: GPUs for each member of a role; not in this version.
            reservation_timeout: seconds until all members must have entered ``main_fun``.
            name: shown in Spark's UI, logs and errors.
            completion: names of the roles whose members must all return for the run to be
                complete. Default: the chief alone when there are a chief and parameter servers,
                otherwise chief and workers.
            grace: seconds that members of a role may take to leave once they are told to
                (``ctx.should_stop``), by role name; others keep 5, parameter servers 0.
            preload: modules that a member's process imports while the others are still coming.
            env: variables for the members' processes.
            log_dir, model_dir: handed to ``ctx``.
            bind: "host:port" for the coordinator; default: an address that executors reach, any
                free port.
            progress: show what is waited for on standard error; or a function that is called
                with the run (``RunView``) whenever something has changed.

        Raises:
            InvalidRun: arguments that make no sense; PayloadNotPicklable names the object.
            SparkUnusable: the session is stopped or of another kind.
            NotEnoughSlots: Spark can never seat so many members.
            FeatureUnavailable: GPUs, Spark Connect, feeding from Spark.
            ReservationTimeout: the members were not all there in time; says who and why.
            TrainingFailed: a member failed before all had entered ``main_fun``.
            CoordinatorUnavailable: the coordinator did not start, or ended.
        """
        options = Options.of(
            roles=roles,
            gpus=gpus,
            input_mode=input_mode,
            reservation_timeout=reservation_timeout,
            name=name,
            completion=completion,
            grace=grace,
            preload=preload,
            env=env,
            log_dir=log_dir,
            model_dir=model_dir,
            bind=bind,
            progress=progress,
        )
        session = preflight.classic_session(spark)
        preflight.check_environment(session)
        preflight.check_slots(session, options.spec.roles)
        work = payload.pack(main_fun, args)
        with Forming(session, options):
            cluster = cls(session, options, work)
            try:
                cluster._launch()
                cluster._wait_until_running()
            except BaseException:
                cluster._abandon()
                raise
        return cluster

    # -- starting --------------------------------------------------------------------------

    def _launch(self) -> None:
        self._session.start(self._jobs)
        for members in roster.jobs(self._options.spec.roles):
            self._jobs.submit(members, self._task.for_members(tuple(map(str, members))))

    def _wait_until_running(self) -> None:
        timeout = self._options.spec.reservation_timeout + self._stop_timeout
        if not self._session.wait_for(lambda run: run.settled or _all_entered(run), timeout):
            raise CoordinatorUnavailable("the coordinator kept no deadline")
        self._raise_if_over()

    def _raise_if_over(self) -> None:
        run = self._session.view
        error = (results.error_of(run) if run.settled else None) or self._session.lost
        if error is not None:
            raise error

    def _abandon(self) -> None:
        """After a failed start, or Ctrl-C: nothing is left, and the first error stays."""
        with suppress(TfleaseError):
            self.shutdown(grace=0.0)

    # -- using -----------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """As given to ``run``."""
        return self._options.spec.name

    @property
    def run_id(self) -> str:
        """The coordinator's name for the run; the executors' directories bear it."""
        return str(self._session.view.run_id)

    def status(self) -> RunView:
        """The run as the coordinator last told it; times are Unix seconds."""
        return self._session.view

    def wait(self, timeout: float | None = None) -> RunResult:
        """Waits for the end of the training.

        Raises TrainingFailed with the first cause, its traceback and log; RunCancelled;
        CoordinatorUnavailable; TimeoutError when it still runs after ``timeout`` seconds (it goes
        on, and can be waited for again).
        """
        if not self._session.wait_for(_is_over, timeout):
            raise TimeoutError(f"run {self.name!r} still runs after {timeout:g} s")
        self._raise_if_over()
        self._jobs.join(_JOIN_TIMEOUT)
        run = self._session.view
        seconds = time.monotonic() - self._began_at
        return results.collect(run, self._jobs, seconds)

    async def wait_async(self, timeout: float | None = None) -> RunResult:
        """``wait`` without blocking the event loop. Cancelling it leaves the run as it is."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._session.wait_for(_is_over, 0.0):
            if deadline is not None and time.monotonic() >= deadline:
                raise TimeoutError(f"run {self.name!r} still runs after {timeout:g} s")
            await asyncio.sleep(0.1)
        return await asyncio.to_thread(self.wait)

    def stop(self, reason: str = "stopped by the user", grace: float | None = None) -> None:
        """Asks for the end and returns at once. ``wait`` then raises RunCancelled. ``grace``
        (seconds) can only shorten what the members have. Does nothing after the end."""
        with suppress(CoordinatorUnavailable):
            self._client.stop(self._session.view.run_id, reason, grace)

    def shutdown(self, grace: float | None = None) -> None:
        """Ends what still runs. When it returns, nothing of the run is left: no process on any
        executor, no task, no coordinator. Idempotent.

        Raises ReleaseUnproven, naming what and where, when that could not be proven.
        """
        with self._shutdown_lock:
            if not self._is_shut_down:
                self._is_shut_down = True
                self._end(grace)
        results.check_released(self._session.view)

    def _end(self, grace: float | None) -> None:
        with ExitStack() as then:  # from the last to the first, and all, whatever one raises
            if self._progress is not None:
                then.callback(self._progress.close)
            then.callback(self._session.close, _JOIN_TIMEOUT)
            then.callback(self._client.close)
            then.callback(self._coordinator.close, _COORDINATOR_TIMEOUT)
            then.callback(self._session.close, 0.0)
            then.callback(self._jobs.wait_until_idle, _JOIN_TIMEOUT)
            then.callback(self._jobs.join, _JOIN_TIMEOUT)
            then.callback(self._jobs.cancel)
            try:
                self._stop_and_wait(grace)
            except BaseException:  # Ctrl-C: whoever waits for a grace has lost patience
                self._stop_and_wait(grace=0.0)
                raise

    def _stop_and_wait(self, grace: float | None) -> None:
        if not self._session.view.settled:
            self.stop("the cluster was shut down", grace)
        self._session.wait_for(_is_quiet, self._stop_timeout)
        if self._session.lost is None:
            self._jobs.join(_JOIN_TIMEOUT)

    @property
    def _stop_timeout(self) -> float:
        longest = max(self._options.spec.grace.values())
        return len(STOP_STAGES) * (longest + STOP_BOUND)

    def __enter__(self) -> TFCluster:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.shutdown()
            return
        with suppress(TfleaseError):  # the error on its way says more
            self.shutdown()


def _all_entered(run: RunView) -> bool:
    return run.phase is not RunPhase.FORMING and all(
        member.phase not in (MemberPhase.READY, MemberPhase.STARTING) for member in run.members
    )


def _is_over(run: RunView) -> bool:
    """A failure is known once it is settled; a success only when nothing is left."""
    return run.phase.is_terminal or (run.settled and run.failure is not None)


def _is_quiet(run: RunView) -> bool:
    """All that can be waited for: a lost member's fence is minutes away and proves nothing."""
    return run.phase.is_terminal or run.settled
