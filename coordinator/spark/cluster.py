"""``TFCluster.run``: the library call, and the handle that it returns."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import replace
from types import TracebackType
from typing import Any

from coordinator.core.diagnosis import REJOINING
from coordinator.core.errors import CoordinatorUnavailable, TfleaseError
from coordinator.core.model import MemberPhase, Roles, RunPhase, RunView
from coordinator.core.policy import RestartPolicy
from coordinator.core.stall_timeouts import StallTimeouts
from coordinator.spark import gpu_preflight, payload, preflight, results
from coordinator.spark.beside import Beside
from coordinator.spark.fed_cluster import FedCluster
from coordinator.spark.feed.feeding import Feeding
from coordinator.spark.feed.progress import FeedLine
from coordinator.spark.gateway import Gateway, open_gateway
from coordinator.spark.launch import JOIN_TIMEOUT, Launch, is_over
from coordinator.spark.options import InputMode, Options, ProgressCallback
from coordinator.spark.results import RunResult
from coordinator.spark.session import Forming
from coordinator.spark.shown_cluster import ShownCluster
from coordinator.spark.tensorboard import check_installed


class TFCluster(FedCluster, ShownCluster, Beside):
    """A TensorFlow cluster on Spark executors. Made by ``run``; use it as a context manager."""

    def __init__(self, gateway: Gateway, options: Options, work: bytes) -> None:
        """Not public: use ``TFCluster.run``."""
        self._options = options
        self._began_at = time.monotonic()
        self._progress = FeedLine(options.spec.name) if options.progress is True else None
        show = options.progress if callable(options.progress) else None
        self._shutdown_lock = threading.RLock()  # a user's signal handler may call it, too
        self._is_shut_down = False
        show = show or (self._progress.show if self._progress else None)
        self._launch = Launch(gateway, options, work, show)
        self._coordinator = self._launch.coordinator
        self._session = self._launch.session
        feeding = Feeding(
            gateway,
            self._session,
            options.feed_key,
            options.spec.name,
            options.spec.roles,
            anchor=options.anchor or "task",
            line=self._progress,
        )
        FedCluster.__init__(self, feeding)
        ShownCluster.__init__(self, self._launch, self._progress)
        Beside.__init__(
            self,
            mirror=lambda: self._launch.log_mirror,
            model_dir=options.model_dir,
            is_training_over=self._is_training_over,
            say=self._progress.say if self._progress is not None else self._print,
        )

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
        tensorboard: bool = False,
        show_logs: bool = False,
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
        anchor: str | None = None,
        restart: RestartPolicy | None = None,
        stall_timeouts: StallTimeouts | Mapping[str, float | None] | None = None,
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
            input_mode: ``InputMode.SPARK`` when Spark is to feed the members (``train``,
                ``inference``).
            name: shown in Spark's UI, logs and errors.
            completion: names of the roles whose members must all return for the run to be
                complete. Default: the chief alone when there are a chief and parameter servers,
                otherwise chief and workers.
            grace: seconds that members of a role may take to leave once they are told to
                (``ctx.should_stop``), by role name; others keep 5, parameter servers 0.
            preload: modules that a member's process imports while the others are still coming.
            env: variables for the members' processes.
            log_dir: where event files end up: a local path of the driver, or any URL of fsspec
                (docs/event-files.md). Members write into ``ctx.log_dir``, a directory of their own
                on their executors; what grows there is streamed to the driver. With
                ``tensorboard`` default: a new temporary directory.
            tensorboard: start TensorBoard on the driver once the members run (docs/tensorboard.md).
            show_logs: print what members print on the driver's standard error, as it comes.
            model_dir: where checkpoints and models go (docs/model-dir.md).
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
            anchor: what the members live as long as. "task": their Spark tasks. "executor" ends
                these tasks as soon as the gang is formed, which frees the executors' slots; the
                members live on with executor and driver. What ``main_fun`` returns does not come
                back then, and cancelling a notebook's cell or a Spark job does not reach the
                members: ``stop`` does. Default: "task", unless Spark is to feed the members and
                they would leave it no slot to do so.
            restart: after which failures, and how often, the members start again from their last
                checkpoint (``ctx.latest_checkpoint()``) instead of failing the run:
                ``RestartPolicy(max_restarts=3, on={"user exception": "restart"})``. Default: a
                failure ends the run.
            stall_timeouts: seconds without progress (``ctx.report_progress``) after which a member
                counts as stuck, ``StallTimeouts(step=60)`` or ``{"step": 60}``; members that report
                none are never late. Default: half an hour for a step.

        Raises:
            InvalidRun: arguments that make no sense; PayloadNotPicklable names the object.
            SparkUnusable: the session is stopped or of another kind.
            NotEnoughSlots: Spark can never seat so many members, or give them so many GPUs.
            FeatureUnavailable: Spark Connect without a standalone coordinator.
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
            tensorboard=tensorboard,
            show_logs=show_logs,
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
            restart=restart,
            stall_timeouts=stall_timeouts,
        )
        if options.tensorboard:
            check_installed()
        gateway = open_gateway(spark, has_daemon=options.daemon is not None)
        preflight.check_environment(gateway)
        preflight.check_slots(gateway, options.spec.roles)
        roles, is_fed = options.spec.roles, options.feed_key is not None
        anchor = preflight.choose_anchor(gateway, roles, options.anchor, is_fed=is_fed)
        options = replace(options, anchor=anchor)
        gpu_preflight.check_gpus(gateway, options.spec)
        work = payload.pack(main_fun, args)
        with Forming(gateway, options) as forming:
            cluster = cls(gateway, options, work)
            try:
                cluster._launch.start()
                if options.show_logs:
                    cluster._print_logs()
                cluster._wait_until_running(forming)
                if options.tensorboard:  # others may form meanwhile
                    cluster._start_wanted_tensorboard()
            except BaseException:  # nobody has the cluster yet who could shut it down
                cluster._abandon()
                raise
        return cluster

    # -- starting --------------------------------------------------------------------------

    def _wait_until_running(self, forming: Forming) -> None:
        """Lets others form once this run has all of its slots: it may wait for GPUs for long."""
        self._wait_until(_is_seated)
        forming.end()
        self._wait_until(_all_entered)
        self._raise_if_over()

    def _wait_until(self, condition: Callable[[RunView], bool]) -> None:
        """Or until the outcome is known. Each restart has the time of a new start."""
        spec = self._options.spec
        patience = self._coordinator.patience + self._launch.stop_timeout
        timeout = spec.reservation_timeout + patience
        if spec.restart.is_enabled:
            timeout += spec.fence_timeout + spec.restart.max_backoff
        stands = self._session.view
        while self._session.lost is None and not (stands.settled or condition(stands)):
            known = _stage(stands)
            if not self._session.wait_for(
                lambda run: run.settled or condition(run) or _stage(run) != known,  # noqa: B023
                timeout,
            ):
                raise CoordinatorUnavailable("the coordinator kept no deadline")
            stands = self._session.view

    def _raise_if_over(self) -> None:
        run = self._session.view
        error = (results.error_of(run) if run.settled else None) or self._session.lost
        if error is not None:
            raise error

    def _abandon(self) -> None:
        """After a failed start, or Ctrl-C: nothing is left, and the first error stays."""
        with suppress(TfleaseError):
            self.shutdown(grace=0.0)

    def _is_training_over(self) -> bool:
        return self._session.lost is not None or is_over(self._session.view)

    def _print(self, text: str) -> None:
        print(f"[{self.name}] {text}", file=sys.stderr, flush=True)

    # -- using -----------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """As given to ``run``."""
        return self._options.spec.name

    @property
    def run_id(self) -> str:
        """The coordinator's name for the run; the executors' directories bear it."""
        return str(self._session.view.run_id)

    @property
    def metrics_url(self) -> str:
        """Where this machine can read the metrics of the run's own coordinator, in Prometheus'
        text format (docs/metrics.md); empty where a standalone one is used."""
        return self._launch.coordinator.metrics_url

    def wait(self, timeout: float | None = None) -> RunResult:
        """Waits for the end of the training.

        Raises TrainingFailed with the first cause, its traceback and log; RunCancelled;
        CoordinatorUnavailable; TimeoutError when it still runs after ``timeout`` seconds (it goes
        on, and can be waited for again).
        """
        if not self._session.wait_for(is_over, timeout):
            raise TimeoutError(f"run {self.name!r} still runs after {timeout:g} s")
        self._launch.drain_files()
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
                with ExitStack() as then:  # from the last to the first, and all: Ctrl-C, too
                    if self._progress is not None:
                        then.callback(self._progress.close)
                    then.callback(self._finish_logs)
                    then.callback(self._launch.end, grace)
                    then.callback(self._end_beside)  # first, so that its event files are kept
                    then.callback(self._streams.close)
        results.check_released(
            self._session.view, self._session.unproven, is_idle=self._launch.is_idle
        )

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
    """Never true of a gang that did not form, or that forms again: that one is waited for until
    it has, or its failure is known."""
    if run.generation == 0 or run.phase in (RunPhase.FORMING, RunPhase.RESTARTING):
        return False
    coming = (MemberPhase.STARTING, *REJOINING) if run.phase is RunPhase.RUNNING else ()
    return all(member.phase not in coming for member in run.members)


def _stage(run: RunView) -> tuple[int, RunPhase]:
    """What has a deadline of its own."""
    return run.restart_count, run.phase
