"""``TFCluster.run``: the library call, and the handle that it returns."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any

from coordinator.core.errors import CoordinatorUnavailable, TfleaseError
from coordinator.core.model import LogChunk, MemberId, MemberPhase, Roles, RunView
from coordinator.spark import gpu_preflight, member_logs, payload, preflight, results
from coordinator.spark.gateway import Gateway, open_gateway
from coordinator.spark.launch import JOIN_TIMEOUT, Launch, is_over
from coordinator.spark.options import InputMode, Options, ProgressCallback
from coordinator.spark.progress import ProgressLine
from coordinator.spark.results import RunResult
from coordinator.spark.session import Forming


class TFCluster:
    """A TensorFlow cluster on Spark executors. Made by ``run``; use it as a context manager."""

    def __init__(self, gateway: Gateway, options: Options, work: bytes) -> None:
        """Not public: use ``TFCluster.run``."""
        self._options = options
        self._began_at = time.monotonic()
        self._progress = ProgressLine(options.spec.name) if options.progress is True else None
        show = options.progress if callable(options.progress) else None
        self._shutdown_lock = threading.RLock()  # a user's signal handler may call it, too
        self._is_shut_down = False
        show = show or (self._progress.show if self._progress else None)
        self._launch = Launch(gateway, options, work, show)
        self._coordinator = self._launch.coordinator
        self._session = self._launch.session

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
        coordinator: str | None = None,
        token_file: str | os.PathLike[str] | None = None,
        ca_file: str | os.PathLike[str] | None = None,
        cert_file: str | os.PathLike[str] | None = None,
        key_file: str | os.PathLike[str] | None = None,
        owner_timeout: float = 300.0,
        advertise: str | None = None,
        ports: str | tuple[int, int] | None = None,
        network: str | None = None,
        anchor: str = "task",
    ) -> TFCluster:
        """Starts ``main_fun(args, ctx)`` in a process of its own on one executor slot for each
        member, and returns when it has been entered on all of them.

        Args:
            spark: a SparkSession or SparkContext; a Spark Connect session with ``coordinator``.
            main_fun: called on every member; ``ctx`` says who it is
                (``executor_agent.context.Context``).
            args: any object that can be pickled; the first argument of ``main_fun``.
            roles: how many members of each role, ``Roles(chief=1, worker=2, ps=1)``.
            gpus: GPUs for each member of a role, ``Roles(worker=1)``; roles that are not named get
                none. Each is leased to one member until it is proven free (docs/gpus.md).
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
            bind: "host:port" that the run's own coordinator listens on; default: an address that
                executors reach, any free port.
            progress: show what is waited for on standard error; or a function that is called
                with the run (``RunView``) whenever something has changed.
            coordinator: "grpc://host:port" of a standalone coordinator (``tflease serve``), as
                driver and executors reach it, "grpcs://host:port" of one that speaks TLS; default:
                one is started for the run, which always does.
            token_file: the file with that coordinator's token; default: what $TFLEASE_TOKEN_FILE
                names, or ``~/.config/tflease/token``.
            ca_file: PEM; with "grpcs://": who that coordinator's certificate must come from;
                default: anybody that the system trusts. Files of the driver's machine: members get
                what is in them with their tasks.
            cert_file, key_file: PEM; this side's own certificate and its key, for a coordinator
                that wants to see one (``tflease serve --tls-client-ca``).
            owner_timeout: seconds that this driver may be away from a standalone coordinator
                before that cancels the run.
            advertise: "host" or "host:port" where executors reach the run's own coordinator, when
                that is not what it is bound to: behind a NAT, a Kubernetes service.
            ports: "40000-40100" or ``(40000, 40100)``: where the members' TensorFlow listens.
            network: in CIDR notation: members advertise their address in it to each other.
            anchor: "executor" ends the members' Spark tasks as soon as the gang is formed, which
                frees the executors' slots; the members live on with executor and driver. What
                ``main_fun`` returns does not come back then, and cancelling a notebook's cell or
                a Spark job does not reach the members: ``stop`` does.

        Raises:
            InvalidRun: arguments that make no sense; PayloadNotPicklable names the object.
            SparkUnusable: the session is stopped or of another kind.
            NotEnoughSlots: Spark can never seat so many members, or give them so many GPUs.
            FeatureUnavailable: feeding from Spark, Spark Connect without a standalone coordinator.
            Unauthenticated: no token for the standalone coordinator, or a wrong one; a file for
                TLS that is of no use.
            ReservationTimeout: the members were not all there in time; says who and why, and who
                holds the GPUs that they wait for.
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
            coordinator=coordinator,
            token_file=token_file,
            ca_file=ca_file,
            cert_file=cert_file,
            key_file=key_file,
            owner_timeout=owner_timeout,
            advertise=advertise,
            ports=ports,
            network=network,
            anchor=anchor,
        )
        gateway = open_gateway(spark, has_daemon=options.daemon is not None)
        preflight.check_environment(gateway)
        preflight.check_anchor(gateway, options.anchor)
        preflight.check_slots(gateway, options.spec.roles)
        gpu_preflight.check_gpus(gateway, options.spec)
        work = payload.pack(main_fun, args)
        with Forming(gateway, options) as forming:
            cluster = cls(gateway, options, work)
            try:
                cluster._launch.start()
                cluster._wait_until_running(forming)
            except BaseException:
                cluster._abandon()
                raise
        return cluster

    # -- starting --------------------------------------------------------------------------

    def _wait_until_running(self, forming: Forming) -> None:
        """Lets others form once this run has all of its slots: it may wait for GPUs for long."""
        patience = self._coordinator.patience + self._launch.stop_timeout
        timeout = self._options.spec.reservation_timeout + patience
        is_seated = self._session.wait_for(lambda run: run.settled or _is_seated(run), timeout)
        forming.end()
        if not is_seated or not self._session.wait_for(
            lambda run: run.settled or _all_entered(run), timeout
        ):
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

    @property
    def metrics_url(self) -> str:
        """Where this machine can read the metrics of the run's own coordinator, in Prometheus'
        text format (docs/metrics.md); empty where a standalone one is used."""
        return self._launch.coordinator.metrics_url

    def logs(self, member: str | None = None, max_bytes: int = 64 * 1024) -> str:
        """The end of what a member ("worker:1") has printed, read from its executor now, at most
        ``max_bytes`` (up to 1 MiB). Without ``member``: of all, with the member's name in front of
        every line. Of a member that has ended: the last 8 KiB, which came with its report.

        Raises InvalidRun when there is no such member; LogUnavailable when nobody is there to read
        it, saying where it is; CoordinatorUnavailable.
        """

        def read(asked: MemberId) -> LogChunk:
            return self._launch.read_log(asked, max_bytes)

        if member is None:
            return member_logs.end_of_all(self.status(), read)
        return member_logs.end_of(self.status(), member, read)

    def wait(self, timeout: float | None = None) -> RunResult:
        """Waits for the end of the training.

        Raises TrainingFailed with the first cause, its traceback and log; RunCancelled;
        CoordinatorUnavailable; TimeoutError when it still runs after ``timeout`` seconds (it goes
        on, and can be waited for again).
        """
        if not self._session.wait_for(is_over, timeout):
            raise TimeoutError(f"run {self.name!r} still runs after {timeout:g} s")
        self._raise_if_over()
        self._launch.jobs.join(JOIN_TIMEOUT)
        seconds = time.monotonic() - self._began_at
        return results.collect(self._session.view, self._launch.jobs, seconds)

    async def wait_async(self, timeout: float | None = None) -> RunResult:
        """``wait`` without blocking the event loop. Cancelling it leaves the run as it is."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._session.wait_for(is_over, 0.0):
            if deadline is not None and time.monotonic() >= deadline:
                raise TimeoutError(f"run {self.name!r} still runs after {timeout:g} s")
            await asyncio.sleep(0.1)
        return await asyncio.to_thread(self.wait)

    def stop(self, reason: str = "stopped by the user", grace: float | None = None) -> None:
        """Asks for the end and returns at once. ``wait`` then raises RunCancelled. ``grace``
        (seconds) can only shorten what the members have. Does nothing after the end."""
        self._session.stop(reason, grace)

    def shutdown(self, grace: float | None = None) -> None:
        """Ends what still runs. When it returns, nothing of the run is left: no process on any
        executor, no task, no coordinator but a standalone one. Idempotent.

        Raises ReleaseUnproven, naming what and where, when that could not be proven.
        """
        with self._shutdown_lock:
            if not self._is_shut_down:
                self._is_shut_down = True
                try:
                    self._launch.end(grace)
                finally:
                    if self._progress is not None:
                        self._progress.close()
        results.check_released(self._session.view, is_idle=self._launch.is_idle)

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


def _is_seated(run: RunView) -> bool:
    """Every member has its slot, and needs no more of Spark."""
    return run.generation > 0 or all(member.phase is MemberPhase.READY for member in run.members)


def _all_entered(run: RunView) -> bool:
    """Never true of a gang that did not form: that one is waited for until its failure is known."""
    return run.generation > 0 and all(
        member.phase is not MemberPhase.STARTING for member in run.members
    )
