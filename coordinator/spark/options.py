"""The arguments of ``TFCluster.run``, checked once."""

from __future__ import annotations

import enum
import os
import platform
import socket
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from coordinator.core.access import ClientTls
from coordinator.core.completion import completion_roles
from coordinator.core.errors import InvalidRun
from coordinator.core.model import DEFAULT_GRACE, VERSION, Cause, Role, Roles, RunSpec, RunView
from coordinator.core.policy import Action, RestartPolicy
from coordinator.core.stall_timeouts import StallTimeouts
from coordinator.spark import addresses, arguments
from coordinator.spark.feed.keys import make_key
from executor_agent.core.feed_values import FeedKey
from executor_agent.spark_task import MemberTask

ProgressCallback = Callable[[RunView], object]
"""Called with the run as it is, on a thread of tflease's, whenever something has changed."""


_FEED_PRELOAD = ("executor_agent.feed.server",)
"""With pyarrow, which takes its time: better while the others are still coming."""

FilePath = str | os.PathLike[str]


class InputMode(enum.Enum):
    """Where members get their data from (TensorFlowOnSpark's term)."""

    TENSORFLOW = "tensorflow"
    """They read it themselves: files, object stores, ``tf.data``."""

    SPARK = "spark"
    """Spark feeds them: ``cluster.train(df)``, ``cluster.inference(df)``; in ``main_fun``
    ``ctx.dataset(...)``, ``ctx.feed_batches(...)`` or ``ctx.get_data_feed(...)``."""


@dataclass(frozen=True, slots=True)
class Options:
    """What a run was asked to be. ``daemon``: "host:port" of a standalone coordinator; mutually
    exclusive with ``bind`` and ``advertise``, and what ``token_file`` is for. ``is_secure``: it
    speaks TLS, and ``ca_file``, ``cert_file`` and ``key_file`` are for that. ``anchor``: None where
    the user left the choice to us. ``feed_key``: where Spark feeds the members."""

    spec: RunSpec
    preload: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    log_dir: str | None = None
    tensorboard: bool = False
    show_logs: bool = False
    model_dir: str | None = None
    bind: tuple[str, int] | None = None
    progress: bool | ProgressCallback = True
    daemon: str | None = None
    is_secure: bool = False
    token_file: str | None = None
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    advertise: tuple[str, int | None] | None = None
    ports: tuple[int, int] | None = None
    network: str | None = None
    anchor: str | None = None
    feed_key: FeedKey | None = field(default=None, repr=False)

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
        tensorboard: bool,
        show_logs: bool,
        model_dir: str | None,
        bind: str | None,
        progress: bool | ProgressCallback,
        coordinator: str | None,
        token_file: FilePath | None,
        ca_file: FilePath | None,
        cert_file: FilePath | None,
        key_file: FilePath | None,
        owner_timeout: float,
        advertise: str | None,
        ports: str | tuple[int, int] | None,
        network: str | None,
        anchor: str | None,
        restart: RestartPolicy | None,
        stall_timeouts: StallTimeouts | Mapping[str, float | None] | None,
    ) -> Options:
        """Raises InvalidRun."""
        if not isinstance(input_mode, InputMode):
            raise InvalidRun(f"input_mode must be an InputMode, not {input_mode!r}")
        daemon = addresses.daemon(coordinator)
        is_secure = addresses.is_secure(coordinator)
        _check_places(daemon, bind, advertise, token_file)
        _check_tls(is_secure, {"ca_file": ca_file, "cert_file": cert_file, "key_file": key_file})
        owner_seconds = arguments.seconds("owner_timeout", owner_timeout)
        spec = RunSpec(
            roles=Roles.of(roles),
            name=arguments.name(name),
            reservation_timeout=arguments.seconds("reservation_timeout", reservation_timeout),
            grace={**DEFAULT_GRACE, **arguments.by_role("grace", grace or {})},
            completion=frozenset(
                arguments.role("completion", each)
                for each in arguments.names("completion", completion or ())
            ),
            python_version=platform.python_version(),
            tflease_version=VERSION,
            # An embedded coordinator watches its driver itself, and needs no clock for it.
            owner_timeout=owner_seconds if daemon is not None else None,
            gpus=arguments.gpus(gpus),
            restart=arguments.restart(restart, is_fed=input_mode is InputMode.SPARK),
            stall=arguments.stall_timeouts(stall_timeouts),
        )
        completion_roles(spec)
        return cls(
            spec=spec,
            preload=arguments.modules(preload),
            env=arguments.environment(env or {}),
            log_dir=arguments.path("log_dir", log_dir),
            tensorboard=bool(tensorboard),
            show_logs=bool(show_logs),
            model_dir=arguments.path("model_dir", model_dir),
            bind=addresses.bind(bind),
            progress=progress,
            daemon=daemon,
            is_secure=is_secure,
            token_file=arguments.path("token_file", token_file),
            ca_file=arguments.path("ca_file", ca_file),
            cert_file=arguments.path("cert_file", cert_file),
            key_file=arguments.path("key_file", key_file),
            advertise=addresses.advertise(advertise),
            ports=addresses.ports(ports),
            network=addresses.network(network),
            anchor=arguments.anchor(anchor),
            feed_key=make_key() if input_mode is InputMode.SPARK else None,
        )

    def bind_address(self, master: str, driver_host: str) -> tuple[str, int]:
        """Where the coordinator listens. On one machine nobody else needs to reach it; on a
        cluster ``spark.driver.host`` may be a name that is not this machine's own, so it listens
        on all interfaces, behind the run's token; so it does where ``advertise`` is not that."""
        if self.bind is not None:
            return self.bind
        if master.startswith("local") and driver_host and self.advertise is None:
            host = driver_host.strip("[]")
            with suppress(OSError):
                found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
                found.sort(key=lambda each: each[0] != socket.AF_INET)
                return str(found[0][4][0]), 0
        return "0.0.0.0", 0

    def advertised(self, driver_host: str) -> tuple[str, int | None]:
        """What executors are told: what was asked for, or else, like Spark's own executors,
        ``spark.driver.host``. Port None: the one that the coordinator listens on."""
        if self.advertise is not None:
            return self.advertise
        if self.bind is None or self.bind[0] in ("0.0.0.0", "::"):
            return driver_host, None
        return self.bind[0], None

    def task(
        self,
        run_id: str,
        coordinator: str,
        token: str,
        payload: bytes,
        connect_timeout: float,
        created_at: float = 0.0,
        tls: ClientTls | None = None,
    ) -> MemberTask:
        """What the run's Spark tasks do; its members are filled in for each job."""
        return MemberTask(
            members=(),
            run_id=run_id,
            coordinator=coordinator,
            token=token,
            payload=payload,
            grace={role.value: self.spec.grace_of(role) for role in Role},
            preload=(*self.preload, *(_FEED_PRELOAD if self.feed_key is not None else ())),
            connect_timeout=connect_timeout,
            env=self.env,
            has_log_dir=self.log_dir is not None or self.tensorboard,
            model_dir=self.model_dir,
            ports=self.ports,
            network=self.network,
            anchor=self.anchor or "task",
            gpus={role.value: self.spec.gpus.count(role) for role in Role},
            created_at=created_at,
            tls=None if tls is None else tls.to_plain(),
            feed_key=None if self.feed_key is None else self.feed_key.to_plain(),
            restart_causes=restart_causes(self.spec.restart),
        )


def restart_causes(policy: RestartPolicy) -> tuple[str, ...]:
    """After what a member's task starts it once more by itself. Not after *preempted*: the task, or
    what is above it, is then gone or about to go."""
    return tuple(
        cause.value
        for cause in Cause
        if policy.action(cause) is not Action.FAIL and cause is not Cause.PREEMPTED
    )


def _check_places(daemon: str | None, bind: object, advertise: object, token_file: object) -> None:
    """Arguments that belong to one kind of coordinator only."""
    if daemon is None:
        if token_file is not None:
            raise InvalidRun("token_file is for a coordinator of its own: pass coordinator=... too")
        return
    for name, value in (("bind", bind), ("advertise", advertise)):
        if value is not None:
            raise InvalidRun(
                f"{name} is for the coordinator that is started for the run, and coordinator=... "
                "names one that listens already: leave one of them out"
            )


def _check_tls(is_secure: bool, files: Mapping[str, object]) -> None:
    """Whoever names a certificate must not get plaintext."""
    given = [name for name, value in files.items() if value is not None]
    if given and not is_secure:
        raise InvalidRun(
            f"{given[0]} is for a coordinator of its own that speaks TLS: pass "
            'coordinator="grpcs://host:port" too'
        )
    if is_secure and (files["cert_file"] is None) != (files["key_file"] is None):
        raise InvalidRun("cert_file and key_file belong together: pass both, or none")
