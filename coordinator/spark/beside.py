"""What a cluster offers beside the training, on the driver's machine: TensorBoard, evaluation."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from coordinator.core.errors import InvalidRun, RunOver, TfleaseError
from coordinator.spark import tensorboard
from coordinator.spark.driver_evaluation import DriverEvaluation
from coordinator.spark.tensorboard import TensorBoard


class Beside:
    """A part of `TFCluster`. All of it ends with the cluster, and with the driver."""

    def __init__(
        self,
        *,
        mirror: Callable[[], Path | None],
        model_dir: str | None,
        is_training_over: Callable[[], bool],
        say: Callable[[str], object],
    ) -> None:
        """``mirror``: the local directory where the members' event files arrive; None where the run
        has none. ``is_training_over``: no new checkpoint comes any more. ``say``: shows the user a
        line."""
        self._beside_mirror = mirror
        self._beside_model_dir = model_dir
        self._is_training_over = is_training_over
        self._say_beside = say
        self._beside_lock = threading.RLock()
        self._tensorboard: TensorBoard | None = None
        self._evaluations: list[DriverEvaluation] = []
        self._is_beside_closed = False

    def start_tensorboard(
        self,
        host: str = "localhost",
        port: int = 0,
        path_prefix: str = "",
        reload_interval: float = 1.0,
        extra: Sequence[str] = (),
    ) -> str:
        """Starts TensorBoard on this machine with the event files of all members, and returns its
        URL once it answers. It ends with the cluster, and with this process, however that ends. The
        URL of the one that runs already, if there is one.

        Args:
            host: where it listens; "0.0.0.0" lets other machines in, and everybody on them.
            port: 0 for any that is free.
            path_prefix: the path at which a proxy offers it, "/user/me/proxy/6006".
            reload_interval: seconds between two looks at the files.
            extra: more of its command line.

        Raises:
            InvalidRun: the run has no event files: pass ``log_dir`` or ``tensorboard=True``.
            FeatureUnavailable: TensorBoard is not installed.
            TensorBoardUnavailable: it did not start, with the end of its output.
        """
        if not reload_interval > 0 or not math.isfinite(reload_interval):
            raise InvalidRun(f"reload_interval must be above 0 seconds, not {reload_interval!r}")
        with self._beside_lock:
            self._check_open()
            if self._tensorboard is not None:
                if self._tensorboard.is_alive:
                    return self._tensorboard.url
                self._tensorboard.close()
            mirror = self._beside_mirror()
            if mirror is None:
                raise InvalidRun(
                    "there are no event files to show: pass log_dir=... or tensorboard=True to "
                    "TFCluster.run, and write them below ctx.log_dir"
                )
            self._tensorboard = TensorBoard(
                mirror,
                say=self._say_beside,
                host=host,
                port=port,
                path_prefix=path_prefix,
                reload_interval=reload_interval,
                extra=extra,
            )
            url = self._tensorboard.url
        tensorboard.announce(url, self._say_beside)
        return url

    def _start_wanted_tensorboard(self) -> None:
        """As ``TFCluster.run(tensorboard=True)`` asks for. No training ends for the sake of it."""
        try:
            self.start_tensorboard()
        except TfleaseError as error:
            self._say_beside(str(error))
        except Exception as error:
            self._say_beside(f"TensorBoard did not start: {error!r}")

    def tensorboard_url(self) -> str | None:
        """Where TensorBoard is; None when none runs."""
        board = self._tensorboard
        return board.url if board is not None and board.is_alive else None

    def evaluate_on_driver(
        self,
        fn: Callable[[Any, Any], Mapping[str, Any] | None],
        args: Any = None,
        *,
        model_dir: str | None = None,
        every: float = 5.0,
        timeout: float = 600.0,
        name: str = "evaluation",
        env: Mapping[str, str] | None = None,
    ) -> DriverEvaluation:
        """Evaluates checkpoints on this machine while the cluster trains, in a process of its own.

        ``fn(args, checkpoint)`` is called for the newest complete checkpoint whenever there is a
        new one (``checkpoint.path``, ``checkpoint.step``), and for the last one once the training
        is over. The numbers that it returns, by name, are kept, and shown in TensorBoard below
        ``name``. When it raises, that is the end of the evaluation, not of the training.

        Args:
            fn: is pickled; runs with this interpreter.
            args: any object that can be pickled.
            model_dir: where to look; default: the run's.
            every: seconds between two looks.
            timeout: seconds that one call of ``fn`` may take.
            name: for messages, and of the directory of its event files.
            env: variables of its process. It sees no GPU unless CUDA_VISIBLE_DEVICES is among them.

        Returns:
            the handle: ``results()``, ``wait()``, ``stop()``.

        Raises:
            InvalidRun: there is no model_dir, or an argument makes no sense.
            PayloadNotPicklable: names what cannot be pickled.
        """
        where = model_dir or self._beside_model_dir
        if where is None:
            raise InvalidRun("evaluate_on_driver needs a model_dir, of the run or its own")
        for label, seconds in (("every", every), ("timeout", timeout)):
            if not seconds > 0:
                raise InvalidRun(f"{label} must be above 0 seconds, not {seconds!r}")
        if not name or "/" in name or name.startswith("."):
            raise InvalidRun(f"name must be the name of a directory, not {name!r}")
        with self._beside_lock:
            self._check_open()
            mirror = self._beside_mirror()
            evaluation = DriverEvaluation(
                fn,
                args,
                model_dir=where,
                events=None if mirror is None else mirror / name,
                is_training_over=self._is_training_over,
                say=self._say_beside,
                every=every,
                timeout=timeout,
                name=name,
                env=env or {},
            )
            self._evaluations.append(evaluation)
        return evaluation

    def _end_beside(self) -> None:
        """On return no process of these is left. Idempotent; whatever one of them raises, the
        others end."""
        with self._beside_lock, ExitStack() as then:
            self._is_beside_closed = True
            for evaluation in self._evaluations:
                then.callback(evaluation.stop)
            if self._tensorboard is not None:
                then.callback(self._tensorboard.close)

    def _check_open(self) -> None:
        if self._is_beside_closed:
            raise RunOver("the cluster was shut down")
