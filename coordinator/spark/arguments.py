"""What the arguments of ``TFCluster.run`` must look like, one function for each kind.

Every function raises InvalidRun, which names the argument.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from typing import Any

from coordinator.core.errors import InvalidRun
from coordinator.core.model import Role, Roles
from coordinator.core.policy import NO_RESTARTS, RestartPolicy
from coordinator.core.stall_timeouts import DEFAULT_STALL_TIMEOUTS, StallTimeouts

_LONGEST = 365 * 24 * 3600
"""Seconds; more is a mistake, and infinity no message can carry."""

_OURS = ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER")
"""Whoever sets these takes GPUs past their leases."""

_ANCHORS = ("task", "executor")


def name(value: object) -> str:
    """It goes into one line on a terminal, and into Spark's web page."""
    if not isinstance(value, str) or not value or not value.isprintable():
        raise InvalidRun(f"name must be a line of printable text, not {value!r}")
    return value


def seconds(argument: str, value: object) -> float:
    """A duration."""
    try:
        found = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        found = math.nan
    if not 0 < found <= _LONGEST:
        raise InvalidRun(f"{argument} must be a number of seconds up to {_LONGEST}, not {value!r}")
    return found


def anchor(value: object) -> str | None:
    """What a member's life is tied to; None: what suits the run."""
    if value is not None and value not in _ANCHORS:
        raise InvalidRun(f'anchor must be "task" or "executor", not {value!r}')
    return None if value is None else str(value)


def names(argument: str, values: Iterable[str]) -> tuple[str, ...]:
    """Several names; one text is none of them."""
    if isinstance(values, str):
        raise InvalidRun(f"{argument} must be a collection of names: ({values!r},)")
    try:
        return tuple(values)
    except TypeError:
        raise InvalidRun(f"{argument} must be a collection of names, not {values!r}") from None


def modules(preload: Iterable[str]) -> tuple[str, ...]:
    """Names of modules; they end up in a command line."""
    found = names("preload", preload)
    for each in found:
        if not isinstance(each, str) or not all(map(str.isidentifier, each.split("."))):
            raise InvalidRun(f"preload must hold names of modules, not {each!r}")
    return found


def path(argument: str, value: object) -> str | None:
    """A ``pathlib.Path`` will do; what travels is text."""
    found = os.fspath(value) if isinstance(value, os.PathLike) else value
    if found is None or isinstance(found, str):
        return found
    raise InvalidRun(f"{argument} must be a path or a URI, not {value!r}")


def role(argument: str, value: str) -> Role:
    """A role by its name."""
    try:
        return Role(value)
    except ValueError:
        known = ", ".join(each.value for each in Role)
        raise InvalidRun(
            f"{argument} names the unknown role {value!r}: roles are {known}"
        ) from None


def by_role(argument: str, values: Mapping[str, float]) -> dict[Role, float]:
    """Seconds by role."""
    try:
        return {role(argument, each): float(value) for each, value in values.items()}
    except InvalidRun:
        raise
    except (AttributeError, TypeError, ValueError):
        raise InvalidRun(f"{argument} must map role names to seconds, not {values!r}") from None


def gpus(value: Roles | Mapping[str, int] | None) -> Roles:
    """GPUs for each member of a role."""
    if value is None:
        return Roles()
    try:
        return Roles.of(value)
    except InvalidRun as error:
        raise InvalidRun(f"gpus, the number for each member of a role: {error}") from None


def environment(env: Mapping[Any, Any]) -> dict[str, str]:
    """Variables that a process can have."""
    for each, value in env.items():
        if not isinstance(each, str) or not isinstance(value, str):
            raise InvalidRun(f"env must map strings to strings: {each!r}={value!r}")
        if not each or "=" in each or "\0" in each + value:
            raise InvalidRun(f"env cannot set {each!r} to {value!r}")
        if each in _OURS:
            raise InvalidRun(
                f"env cannot set {each}: tflease sets it to the GPUs that a member has leased, and "
                "to none for the others. Leave it out, and ask with gpus=Roles(worker=1)"
            )
    return dict(env)


def restart(value: object, *, is_fed: bool) -> RestartPolicy:
    """What becomes of failures. In a fed run no worker starts again alone: what it had taken of the
    feed is gone with it."""
    if value is None:
        return NO_RESTARTS
    if not isinstance(value, RestartPolicy):
        raise InvalidRun(
            f"restart must be a RestartPolicy, such as RestartPolicy(max_restarts=3), not {value!r}"
        )
    return replace(value, alone=False) if is_fed else value


def stall_timeouts(value: object) -> StallTimeouts:
    """Also as a mapping: what it does not name stays as it is by default."""
    if value is None:
        return DEFAULT_STALL_TIMEOUTS
    if isinstance(value, StallTimeouts):
        return value
    known = [item.name for item in fields(StallTimeouts)]
    if not isinstance(value, Mapping):
        raise InvalidRun(
            "stall_timeouts must be StallTimeouts(...) or a mapping from sections to seconds, not "
            f"{value!r}"
        )
    for each in value:
        if each not in known:
            raise InvalidRun(f"stall_timeouts names {each!r}: sections are {', '.join(known)}")
    return StallTimeouts(
        **{
            each: None if limit is None else seconds(f"the stall timeout of {each}", limit)
            for each, limit in value.items()
        }
    )
