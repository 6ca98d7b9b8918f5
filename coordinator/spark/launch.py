"""What a run is made of on the driver, from its coordinator to its jobs: put together, started, and
ended in order. What the user sees of it is in ``cluster``."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path

from coordinator.client import CreatedRun, RunClient
from coordinator.core import roster
from coordinator.core.ending import stop_bound
from coordinator.core.errors import (
    CoordinatorUnavailable,
    PermissionDenied,
    TfleaseError,
    Unauthenticated,
)
from coordinator.core.handshakes import advice
from coordinator.core.log_values import LogChunk
from coordinator.core.model import MemberId, RunId, RunView
from coordinator.file_client import FileClient
from coordinator.spark import profiles
from coordinator.spark.coordinators import coordinator_for
from coordinator.spark.gateway import Gateway, Profile
from coordinator.spark.gpu_rivals import Rivals
from coordinator.spark.jobs import MemberJobs
from coordinator.spark.log_directory import LogDirectory
from coordinator.spark.options import Options
from coordinator.spark.resubmission import Resubmitter
from coordinator.spark.session import RunSession

JOIN_TIMEOUT = 15.0
"""Seconds for tasks to return their rows once their members have ended."""

_CONNECT_TIMEOUT = 60.0
_COORDINATOR_TIMEOUT = 30.0


class Launch:
    """A run that was created: ``coordinator`` has it, ``session`` follows it, ``jobs`` are what
    Spark runs for it."""

    def __init__(
        self,
        gateway: Gateway,
        options: Options,
        work: bytes,
        show: Callable[[RunView], object] | None,
    ) -> None:
        """On any error, Ctrl-C included, nothing is left of it."""
        self._options = options
        settings = profiles.GpuSettings.of(gateway)
        self._profiles = profiles.of_roles(options.spec.gpus, settings)
        taken = profiles.taken(options.spec.gpus, settings)
        self.is_idle = True  # after ``end``: whether Spark listed no task of the run any more
        with ExitStack() as undo:
            self._log_directory: LogDirectory | None = None
            if options.log_dir is not None or options.tensorboard:
                self._log_directory = LogDirectory(options.log_dir)
                undo.callback(self._log_directory.close)
            self.coordinator = coordinator_for(options, gateway)
            undo.callback(self.coordinator.kill)
            self._client = RunClient(
                self.coordinator.own_address, self.coordinator.token, self.coordinator.tls
            )
            undo.callback(self._client.close)
            created = self._create()
            run = created.view
            self._client.use_token(created.owner_token)  # the run's own: less can go wrong with it
            self._owner_token = created.owner_token
            undo.callback(self._forget, run.run_id)
            self.session = RunSession(
                self._client,
                run,
                show,
                self.coordinator.patience,
                self.coordinator.is_gone,
                Rivals(gateway.application_id, taken),
            )
            self.jobs = MemberJobs(
                gateway,
                run.run_id,
                options.spec.name,
                self.session.task_returned,
                self.session.task_failed,
                self.session.task_cancelled if options.spec.restart.is_enabled else None,
            )
            self._resubmitter = Resubmitter(
                gateway,
                self.jobs,
                lambda: self.session.view,
                lambda: self._client.get(run.run_id),
                self._submit_again,
                self.session.task_is_lost,
            )
            self._task = options.task(
                str(run.run_id),
                self.coordinator.address,
                created.agent_token,
                work,
                _CONNECT_TIMEOUT,
                run.created_at,
                self.coordinator.tls,
            )
            undo.pop_all()

    def _create(self) -> CreatedRun:
        try:
            return self._client.create(self._options.spec)
        except (CoordinatorUnavailable, Unauthenticated, PermissionDenied) as error:
            hint = advice(error.message, self.coordinator.tls)
            text = f"{self.coordinator.name}: {error}{f' ({hint})' if hint else ''}"
            raise type(error)(text, error.metadata) from None

    def _forget(self, run_id: RunId) -> None:
        """A daemon would keep it until its owner's time is over."""
        with suppress(TfleaseError):
            self._client.stop(run_id, "its driver could not start it", 0.0)

    def start(self) -> None:
        """Follows the run, and submits its jobs."""
        if self._log_directory is not None:
            coordinator, run_id = self.coordinator, self.session.view.run_id
            self._log_directory.receive(
                FileClient(coordinator.own_address, self._owner_token, run_id, coordinator.tls)
            )
        self.session.start(self.jobs, self._resubmitter.look)
        if self._options.spec.restart.is_enabled:
            self._resubmitter.start()
        for members in roster.jobs(self._options.spec.roles):
            for profile, alike in self._by_profile(members).items():
                self.jobs.submit(alike, self._task.for_members(tuple(map(str, alike))), profile)

    def _submit_again(self, member: MemberId, restarts: int) -> None:
        """A job for this member alone, whatever it was in before."""
        task = self._task.for_members((str(member),))
        self.jobs.submit([member], task, self._profiles[member.role], restarts)

    def _by_profile(self, members: tuple[MemberId, ...]) -> Mapping[Profile | None, list[MemberId]]:
        """A job has one profile for all its tasks."""
        found: defaultdict[Profile | None, list[MemberId]] = defaultdict(list)
        for member in members:
            found[self._profiles[member.role]].append(member)
        return found

    def read_log(self, member: MemberId, max_bytes: int, offset: int | None = None) -> LogChunk:
        """A piece of a member's log from ``offset`` on, or its end, read where it is. Raises
        LogUnavailable, LimitExceeded, CoordinatorUnavailable."""
        return self._client.read_log(self.session.view.run_id, member, offset, max_bytes)

    @property
    def log_mirror(self) -> Path | None:
        """The directory of this machine where event files arrive; None: the run has none."""
        return None if self._log_directory is None else self._log_directory.mirror

    def drain_files(self) -> None:
        """Returns when the event files of members that have ended are here; bounded."""
        if self._log_directory is not None:
            self._log_directory.drain(self.session.view)

    @property
    def stop_timeout(self) -> float:
        """Seconds that an orderly end may take."""
        return stop_bound(max(self._options.spec.grace.values()))

    def end(self, grace: float | None) -> None:
        """Ends what still runs: members, tasks, and a coordinator of its own. ``grace`` in seconds
        can only shorten what the members have."""
        with ExitStack() as then:  # from the last to the first, and all, whatever one raises
            then.callback(self.session.close, JOIN_TIMEOUT)
            then.callback(self._client.close)
            then.callback(self.coordinator.close, _COORDINATOR_TIMEOUT)
            if self._log_directory is not None:
                then.callback(self._log_directory.close)
            then.callback(self.session.close, 0.0)
            then.callback(self._await_idle)
            then.callback(self.jobs.join, JOIN_TIMEOUT)
            then.callback(self.jobs.cancel)
            then.callback(self.drain_files)
            try:
                self._stop_and_wait(grace)
            except BaseException:  # Ctrl-C: whoever waits for a grace has lost patience
                self._stop_and_wait(grace=0.0)
                raise

    def _await_idle(self) -> None:
        self.is_idle = self.jobs.wait_until_idle(JOIN_TIMEOUT)

    def _stop_and_wait(self, grace: float | None) -> None:
        self._resubmitter.close(JOIN_TIMEOUT)
        if not self.session.view.settled:
            self.session.stop("the cluster was shut down", grace)
        self.session.wait_for(_is_quiet, self.stop_timeout)
        if self.session.lost is None:
            self.jobs.join(JOIN_TIMEOUT)


def is_over(run: RunView) -> bool:
    """A failure is known once it is settled; a success only when nothing is left."""
    return run.phase.is_terminal or (run.settled and run.failure is not None)


def _is_quiet(run: RunView) -> bool:
    """All that can be waited for: a lost member's fence is minutes away and proves nothing."""
    return run.phase.is_terminal or run.settled
