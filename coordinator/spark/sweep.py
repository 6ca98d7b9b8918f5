"""``sweep``: many small trainings that know nothing of each other, as many at a time as have room.

Each trial is a run of one worker, with all that a run has: a process tree of its own that ends with
it, its log, its restarts. What one trial does to itself costs no other.
"""

from __future__ import annotations

import reprlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from coordinator.core.errors import InvalidRun, PayloadNotPicklable
from coordinator.core.model import Roles, RunView
from coordinator.spark import payload, preflight
from coordinator.spark.cluster import TFCluster
from coordinator.spark.gateway import Gateway, open_gateway
from coordinator.spark.progress import ProgressLine
from coordinator.spark.results import RunResult

MEMBER = "worker:0"
"""The one member of a trial's run."""

_REFUSED = {
    "roles": "a trial is one worker",
    "input_mode": "trials read their data themselves",
    "completion": "a trial is one worker",
    "anchor": "what main_fun returns would not come back",
    "bind": "trials that run at the same time cannot share a port",
    "tensorboard": "pass log_dir, and look at it with one TensorBoard: each trial has a folder",
}
"""Arguments of ``TFCluster.run`` that make no sense here, and why."""

_JOIN_INTERVAL = 0.2


@dataclass(frozen=True, slots=True)
class Trial:
    """How one trial went. ``number``: its place in what ``sweep`` was given, from 0; ``args``: what
    its ``main_fun`` was called with.

    ``value`` is what ``main_fun`` returned, ``error`` why it went wrong: a ``TrainingFailed`` with
    the traceback and the log, a ``TimeoutError``, or another; None where all went well. Both are
    there when the training went well and its release could not be proven. ``seconds``: from its
    start to the end of its processes.
    """

    number: int
    args: Any
    value: Any = None
    error: Exception | None = None
    seconds: float = 0.0
    run_id: str = ""

    @property
    def is_ok(self) -> bool:
        """Whether ``value`` is there and nothing went wrong."""
        return self.error is None

    def __str__(self) -> str:
        value = reprlib.repr(self.value)  # both may be large
        how = f"returned {value}" if self.is_ok else f"failed: {_headline(self.error)}"
        return f"trial {self.number} ({reprlib.repr(self.args)}) {how}"


def sweep(
    spark: Any,
    main_fun: Callable[[Any, Any], Any],
    trials: Iterable[Any],
    *,
    parallel: int | None = None,
    gpus: int = 0,
    timeout: float | None = None,
    name: str = "sweep",
    progress: bool | Callable[[Trial], object] = True,
    model_dir: str | None = None,
    log_dir: str | None = None,
    **options: Any,
) -> list[Trial]:
    """Runs ``main_fun(args, ctx)`` once for each ``args`` in ``trials``, each in a run of its own
    with one worker, several at a time; returns all, in their order, when the last one has ended.

    A trial that fails is kept with its ``error``, and the others go on. Ctrl-C, or any other
    exception in the calling thread, ends those at work before it is raised again.

    Args:
        spark: as for ``TFCluster.run``.
        main_fun: called in a process of its own. There is no ``tf.distribute`` cluster: any Keras
            and any strategy for one machine work.
        trials: the first argument of ``main_fun``, one for each trial.
        parallel: how many trials may run at the same time. Default, and most: the application's
            task slots. With ``gpus`` it must be given.
        gpus: GPUs for each trial.
        timeout: seconds that a trial may take once it has begun; then it is ended.
        name: shown in Spark's UI, logs and errors, with the trial's number.
        progress: print a line for each trial that has ended on standard error; or a function that
            is called with it (``Trial``).
        model_dir, log_dir: as for ``TFCluster.run``; each trial has a folder there, ``trial-007``.
        options: more arguments of ``TFCluster.run``: ``env``, ``preload``, ``restart``,
            ``coordinator`` (without, each trial starts one for itself) and others.

    Raises:
        InvalidRun: arguments that make no sense; PayloadNotPicklable names the object.
        NotEnoughSlots, SparkUnusable and all else that keeps even the first run from being
            created. An error that comes later is the trial's.
    """
    given = list(trials) if not isinstance(trials, (str, bytes, Mapping)) else None
    if given is None:
        raise InvalidRun("trials: expected a list with the args of each trial, not one value")
    _check(options, parallel, gpus)
    gateway = open_gateway(spark, has_daemon=options.get("coordinator") is not None)
    preflight.check_slots(gateway, Roles(worker=1))
    for number, args in enumerate(given):
        _check_payload(number, main_fun, args)

    def start(number: int, saw: Callable[[RunView], object]) -> TFCluster:
        return TFCluster.run(
            spark,
            main_fun,
            given[number],
            roles=Roles(worker=1),
            gpus=Roles(worker=gpus) if gpus else None,
            name=f"{name}-{number}",
            model_dir=_below(model_dir, number),
            log_dir=_below(log_dir, number),
            progress=saw,
            **options,
        )

    show = progress if callable(progress) else _printer(name, len(given)) if progress else None
    width = min(parallel or _slots(gateway), _slots(gateway), max(1, len(given)))
    return Trials(gateway, given, start, timeout, show).run(width)


class Running(Protocol):
    """What is needed of a ``TFCluster``."""

    def wait(self, timeout: float | None = None) -> RunResult: ...

    def stop(self, reason: str = "", grace: float | None = None) -> None: ...

    def shutdown(self, grace: float | None = None) -> None: ...


Start = Callable[[int, Callable[[RunView], object]], Running]
"""Starts the trial with this number, and returns once it has begun; the function is told of the
run's state."""


@dataclass
class _Attempt:
    """A trial under way: waiting for its turn, starting (``run_id`` is known soon), or running."""

    run_id: str = ""
    cluster: Running | None = None
    has_turn: bool = False
    is_stopped: bool = False


class Trials:
    """The trials of a sweep, from the first to the last. All that is shared is under one lock.

    They begin one after the other, because the runs of an application form in turn; the wait for
    that turn is here, where it has no deadline and can be given up.
    """

    def __init__(
        self,
        gateway: Gateway,
        trials: list[Any],
        start: Start,
        timeout: float | None,
        show: Callable[[Trial], object] | None,
    ) -> None:
        self._gateway = gateway
        self._trials = trials
        self._start = start
        self._timeout = timeout
        self._show = show
        self._changed = threading.Condition()
        self._waiting = deque(range(len(trials)))
        self._under_way: dict[int, _Attempt] = {}
        self._ended: dict[int, Trial] = {}
        self._shown: set[int] = set()
        self._has_begun = False  # whether any run was ever created
        self._is_closed = False
        self._fatal: Exception | None = None

    def run(self, parallel: int) -> list[Trial]:
        """Blocks until all have ended. Whatever it raises, none is left then."""
        threads = [self._gateway.thread(self._work) for _ in range(parallel)]
        try:
            for thread in threads:
                thread.start()
            self._follow()
        finally:
            self._end(threads)
        if self._fatal is not None:
            raise self._fatal
        return [self._ended[number] for number in range(len(self._trials))]

    def _follow(self) -> None:
        """On the caller's thread, so that what ``show`` raises is the caller's."""
        while True:
            with self._changed:
                self._changed.wait_for(self._has_news)
                new = [each for each in self._ended.values() if each.number not in self._shown]
                self._shown.update(each.number for each in new)
                is_over = self._fatal is not None or len(self._shown) == len(self._trials)
            for trial in new if self._show is not None else ():
                assert self._show is not None
                self._show(trial)
            if is_over:
                return

    def _has_news(self) -> bool:
        return (
            self._fatal is not None
            or len(self._ended) > len(self._shown)
            or len(self._ended) == len(self._trials)
        )

    def _end(self, threads: list[threading.Thread]) -> None:
        """After the last trial there is nothing to do; otherwise what runs is ended. A run that
        forms yet is ended by its Spark job, since nobody has a handle on it."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        for thread in threads:
            while thread.ident is not None and thread.is_alive():
                self._stop_all()
                thread.join(_JOIN_INTERVAL)

    def _stop_all(self) -> None:
        with self._changed:
            under_way = list(self._under_way.values())
        for each in under_way:
            if each.cluster is not None and not each.is_stopped:
                each.is_stopped = True
                each.cluster.stop("the sweep was ended", 0.0)
            elif each.cluster is None and each.run_id:
                self._gateway.cancel(f"tflease-{each.run_id}")

    # -- threads ---------------------------------------------------------------------------

    def _work(self) -> None:
        """One trial after the other, until there is none."""
        while True:
            with self._changed:
                if self._is_closed or not self._waiting:
                    return
                number = self._waiting.popleft()
                attempt = self._under_way[number] = _Attempt()
            trial = self._one(number, attempt)
            with self._changed:
                del self._under_way[number]
                if trial.error is not None and not (trial.run_id or self._has_begun):
                    self._fatal = self._fatal or trial.error
                    self._is_closed = True
                self._ended[number] = trial
                self._changed.notify_all()

    def _one(self, number: int, attempt: _Attempt) -> Trial:
        value, error = None, None
        self._take_turn(attempt)
        began_at = time.monotonic()
        try:
            value = self._run(number, attempt)
        except _Returned as returned:
            value, error = returned.value, returned.error
        except Exception as raised:  # whatever it is: the other trials go on
            error = raised
        finally:
            self._give_turn(attempt)
        seconds = time.monotonic() - began_at
        return Trial(number, self._trials[number], value, error, seconds, attempt.run_id)

    def _run(self, number: int, attempt: _Attempt) -> Any:
        if self._is_closed:
            raise InvalidRun("the sweep was ended before this trial began")
        cluster = self._start(number, lambda run: self._saw(attempt, run))
        attempt.cluster = cluster  # from here on the caller can stop it
        try:
            value = cluster.wait(self._timeout)[MEMBER]
        except BaseException:
            _shut_down_quietly(cluster)
            raise
        try:
            cluster.shutdown()
        except Exception as error:
            raise _Returned(value, error) from error
        return value

    def _saw(self, attempt: _Attempt, run: RunView) -> None:
        """On the thread that follows the run."""
        attempt.run_id = str(run.run_id)
        self._has_begun = True
        if run.generation > 0 or run.phase.is_terminal:  # it needs no slot any more
            self._give_turn(attempt)

    def _take_turn(self, attempt: _Attempt) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._is_closed or not self._is_forming())
            attempt.has_turn = True

    def _give_turn(self, attempt: _Attempt) -> None:
        with self._changed:
            attempt.has_turn = False
            self._changed.notify_all()

    def _is_forming(self) -> bool:
        return any(each.has_turn for each in self._under_way.values())


class _Returned(Exception):
    """The trial has its value; what came after it went wrong."""

    def __init__(self, value: Any, error: Exception) -> None:
        super().__init__(str(error))
        self.value = value
        self.error = error


def _shut_down_quietly(cluster: Running) -> None:
    with suppress(Exception):  # the error on its way says more
        cluster.shutdown(grace=0.0)


def _check(options: Mapping[str, Any], parallel: int | None, gpus: int) -> None:
    for name in options:
        if name in _REFUSED:
            raise InvalidRun(f"{name}: not for a sweep; {_REFUSED[name]}")
    if parallel is not None and (not isinstance(parallel, int) or parallel < 1):
        raise InvalidRun(f"parallel={parallel!r}: expected a number of trials, 1 or more")
    if gpus and parallel is None:
        raise InvalidRun(
            "a sweep with gpus needs parallel=...: how many trials find their GPUs at the same time"
        )


def _check_payload(number: int, main_fun: Callable[[Any, Any], Any], args: Any) -> None:
    """Now, and not after hours: whether the trial can be sent to an executor at all."""
    try:
        payload.pack(main_fun, args)
    except PayloadNotPicklable as error:
        raise PayloadNotPicklable(f"trial {number}: {error}", error.metadata) from error


def _slots(gateway: Gateway) -> int:
    return max(1, preflight.capacity(gateway).slots)


def _below(folder: str | None, number: int) -> str | None:
    return None if folder is None else f"{str(folder).rstrip('/')}/trial-{number:03}"


def _headline(error: Exception | None) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _printer(name: str, total: int) -> Callable[[Trial], object]:
    line = ProgressLine(name)
    ended: list[Trial] = []

    def show(trial: Trial) -> None:
        ended.append(trial)
        failed = sum(not each.is_ok for each in ended)
        counts = f"{len(ended)} of {total} ended, {failed} failed"
        line.say(f"{counts}: {trial}, after {trial.seconds:.1f} s")

    return show
