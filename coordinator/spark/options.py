"""The arguments of ``TFCluster.run``, checked once."""

from __future__ import annotations

import enum
import math
import os
import platform
import socket
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from coordinator.core.completion import completion_roles
from coordinator.core.errors import FeatureUnavailable, InvalidRun
from coordinator.core.model import DEFAULT_GRACE, VERSION, Role, Roles, RunSpec, RunView
from executor_agent.spark_task import MemberTask

_LONGEST = 365 * 24 * 3600
"""Seconds; more is a mistake, and infinity no message can carry."""

ProgressCallback = Callable[[RunView], object]
"""Called with the run as it is, on a thread of tflease's, whenever something has changed."""


class InputMode(enum.Enum):
    """Where members get their data from (TensorFlowOnSpark's term)."""

    TENSORFLOW = "tensorflow"
    """They read it themselves: files, object stores, ``tf.data``."""

    SPARK = "spark"
    """Spark feeds it. Not in this version."""


@dataclass(frozen=True, slots=True)
class Options:
    """What a run was asked to be."""

    spec: RunSpec
    preload: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    log_dir: str | None = None
    model_dir: str | None = None
    bind: tuple[str, int] | None = None
    progress: bool | ProgressCallback = True

    @classmethod
    def of(
        cls,
        *,
        roles: Roles | Mapping[str, int],
        gpus: Roles | Mapping[str, int] | None,
        input_mode: InputMode,
        reservation_timeout: float,
        name: str,
        completion: Iterable[str] | None,
        grace: Mapping[str, float] | None,
        preload: Iterable[str],
        env: Mapping[str, str] | None,
        log_dir: str | None,
        model_dir: str | None,
        bind: str | None,
        progress: bool | ProgressCallback,
    ) -> Options:
        """Raises InvalidRun, FeatureUnavailable."""
        _check_features(gpus, input_mode)
        _check_name(name)
        spec = RunSpec(
            roles=Roles.of(roles),
            name=name,
            reservation_timeout=_seconds("reservation_timeout", reservation_timeout),
            grace={**DEFAULT_GRACE, **_by_role("grace", grace or {})},
            completion=frozenset(
                _role("completion", each) for each in _names("completion", completion or ())
            ),
            python_version=platform.python_version(),
            tflease_version=VERSION,
        )
        completion_roles(spec)
        return cls(
            spec=spec,
            preload=_modules(preload),
            env=_environment(env or {}),
            log_dir=_path("log_dir", log_dir),
            model_dir=_path("model_dir", model_dir),
            bind=_bind(bind),
            progress=progress,
        )

    def bind_address(self, master: str, driver_host: str) -> tuple[str, int]:
        """Where the coordinator listens. On one machine nobody else needs to reach it; on a
        cluster ``spark.driver.host`` may be a name that is not this machine's own, so it listens
        on all interfaces, behind the run's token."""
        if self.bind is not None:
            return self.bind
        if master.startswith("local") and driver_host:
            host = driver_host.strip("[]")
            with suppress(OSError):
                found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
                found.sort(key=lambda each: each[0] != socket.AF_INET)
                return str(found[0][4][0]), 0
        return "0.0.0.0", 0

    def advertised_host(self, driver_host: str) -> str:
        """What clients are told: the address that was asked for, or else, like Spark's own
        executors, ``spark.driver.host``."""
        if self.bind is None or self.bind[0] in ("0.0.0.0", "::"):
            return driver_host
        return self.bind[0]

    def task(
        self, run_id: str, coordinator: str, token: str, payload: bytes, connect_timeout: float
    ) -> MemberTask:
        """What the run's Spark tasks do; its members are filled in for each job."""
        return MemberTask(
            members=(),
            run_id=run_id,
            coordinator=coordinator,
            token=token,
            payload=payload,
            grace={role.value: self.spec.grace_of(role) for role in Role},
            preload=self.preload,
            connect_timeout=connect_timeout,
            env=self.env,
            log_dir=self.log_dir,
            model_dir=self.model_dir,
        )


def _check_features(gpus: Roles | Mapping[str, int] | None, input_mode: InputMode) -> None:
    if gpus is not None and Roles.of(gpus).total > 0:
        raise FeatureUnavailable(
            "GPU leases are not in this version, and without a lease two members could take the "
            "same GPU: leave out gpus=... to train on CPUs"
        )
    if not isinstance(input_mode, InputMode):
        raise InvalidRun(f"input_mode must be an InputMode, not {input_mode!r}")
    if input_mode is InputMode.SPARK:
        raise FeatureUnavailable(
            "feeding from Spark is not in this version: read the data in main_fun "
            "(InputMode.TENSORFLOW)"
        )


def _check_name(name: object) -> None:
    """It goes into one line on a terminal, and into Spark's web page."""
    if not isinstance(name, str) or not name or not name.isprintable():
        raise InvalidRun(f"name must be a line of printable text, not {name!r}")


def _seconds(argument: str, value: object) -> float:
    try:
        seconds = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        seconds = math.nan
    if not 0 < seconds <= _LONGEST:
        raise InvalidRun(f"{argument} must be a number of seconds up to {_LONGEST}, not {value!r}")
    return seconds


def _names(argument: str, values: Iterable[str]) -> tuple[str, ...]:
    if isinstance(values, str):
        raise InvalidRun(f"{argument} must be a collection of names: ({values!r},)")
    try:
        return tuple(values)
    except TypeError:
        raise InvalidRun(f"{argument} must be a collection of names, not {values!r}") from None


def _modules(preload: Iterable[str]) -> tuple[str, ...]:
    names = _names("preload", preload)
    for name in names:
        if not isinstance(name, str) or not all(map(str.isidentifier, name.split("."))):
            raise InvalidRun(f"preload must hold names of modules, not {name!r}")
    return names


def _path(argument: str, value: object) -> str | None:
    """A ``pathlib.Path`` will do; what travels is text."""
    path = os.fspath(value) if isinstance(value, os.PathLike) else value
    if path is None or isinstance(path, str):
        return path
    raise InvalidRun(f"{argument} must be a path or a URI, not {value!r}")


def _role(argument: str, name: str) -> Role:
    try:
        return Role(name)
    except ValueError:
        known = ", ".join(role.value for role in Role)
        raise InvalidRun(f"{argument} names the unknown role {name!r}: roles are {known}") from None


def _by_role(argument: str, values: Mapping[str, float]) -> dict[Role, float]:
    try:
        return {_role(argument, name): float(value) for name, value in values.items()}
    except InvalidRun:
        raise
    except (AttributeError, TypeError, ValueError):
        raise InvalidRun(f"{argument} must map role names to seconds, not {values!r}") from None


def _environment(env: Mapping[Any, Any]) -> dict[str, str]:
    for name, value in env.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise InvalidRun(f"env must map strings to strings: {name!r}={value!r}")
        if not name or "=" in name or "\0" in name + value:
            raise InvalidRun(f"env cannot set {name!r} to {value!r}")
    return dict(env)


def _bind(bind: str | None) -> tuple[str, int] | None:
    if bind is None:
        return None
    host, separator, port = bind.rpartition(":")
    if not separator or not host or not port.isdecimal() or int(port) > 65535:
        raise InvalidRun(f'bind must be "host:port", for instance "0.0.0.0:47000", not {bind!r}')
    return host.strip("[]"), int(port)
