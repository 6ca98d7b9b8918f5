"""Addresses, ports and networks among the arguments of ``TFCluster.run``: text in, values out.

Every function raises InvalidRun saying what the argument must look like.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Any

from coordinator.core import hostport
from coordinator.core.errors import InvalidRun
from coordinator.core.model import Endpoint

_LOWEST_PORT = 1024


def joined(host: str, port: int) -> str:
    """ "host:port", with an address of version 6 in brackets (Spark writes it so, too)."""
    return Endpoint(host.strip("[]"), port).address


def bind(value: object) -> tuple[str, int] | None:
    """Where the embedded coordinator listens; port 0: any that is free."""
    if value is None:
        return None
    found = _host_and_port(value)
    if found is None:
        raise InvalidRun(f'bind must be "host:port", for instance "0.0.0.0:47000", not {value!r}')
    return found


def advertise(value: object) -> tuple[str, int | None] | None:
    """Where executors reach the embedded coordinator; port None: the one that it listens on."""
    if value is None:
        return None
    found = _host_and_port(value)
    if found is not None and found[1] != 0:
        return found
    if isinstance(value, str) and found is None and hostport.is_host(value):
        return value.strip("[]"), None
    raise InvalidRun(
        f'advertise must be "host" or "host:port", as executors reach the driver, not {value!r}'
    )


def daemon(value: object) -> str | None:
    """ "host:port" of a standalone coordinator, from "grpc://host:port" or "grpcs://..."."""
    if value is None:
        return None
    scheme, rest = _scheme_of(value)
    found = _host_and_port(rest.removesuffix("/")) if scheme in ("grpc", "grpcs") else None
    if found is None or found[1] == 0:
        raise InvalidRun(
            "coordinator must be None (one is started for the run) or "
            '"grpc://host:port", where `tflease serve` listens, or "grpcs://host:port" when it '
            f"speaks TLS, not {value!r}"
        )
    return joined(*found)


def is_secure(value: object) -> bool:
    """Whether the coordinator at this address speaks TLS."""
    return _scheme_of(value)[0] == "grpcs"


def _scheme_of(value: object) -> tuple[str, str]:
    scheme, separator, rest = value.partition("://") if isinstance(value, str) else ("", "", "")
    return (scheme.lower(), rest) if separator else ("", "")


def ports(value: object) -> tuple[int, int] | None:
    """The first and the last port that members may listen on, from "40000-40100" or a pair."""
    if value is None:
        return None
    parts: Any = value
    if isinstance(value, str):
        matched = re.fullmatch(r"\s*([0-9]{1,5})\s*-\s*([0-9]{1,5})\s*", value)
        parts = tuple(map(int, matched.groups())) if matched else ()
    try:
        first, last = parts
    except (TypeError, ValueError):
        first = last = None
    if type(first) is not int or type(last) is not int:
        raise InvalidRun(f'ports must be "40000-40100" or (40000, 40100), not {value!r}')
    if not _LOWEST_PORT <= first <= last <= hostport.HIGHEST_PORT:
        raise InvalidRun(
            f"ports must be a range within {_LOWEST_PORT}-{hostport.HIGHEST_PORT}, first port "
            f"first, not {value!r}"
        )
    return first, last


def network(value: object) -> str | None:
    """A network in CIDR notation."""
    if value is None:
        return None
    problem = ""
    if isinstance(value, str) and "/" in value:
        try:
            return str(ipaddress.ip_network(value.strip()))
        except ValueError as error:
            problem = f": {error}"
    raise InvalidRun(f'network must be like "10.20.0.0/16", not {value!r}{problem}')


def _host_and_port(value: object) -> tuple[str, int] | None:
    return hostport.host_and_port(value) if isinstance(value, str) else None
