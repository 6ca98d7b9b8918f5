"""The member's port: held from the reservation on, so that nobody else takes it (R8), and the
address that others reach it by (R9)."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator

_ANY = ((socket.AF_INET6, "::"), (socket.AF_INET, "0.0.0.0"))
_NO_SUCH_VERSION = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.ENOPROTOOPT)


class NoFreePort(Exception):
    """Every port that was allowed is taken; the text says which and where."""


class HeldPort:
    """A TCP port that is ours though nothing listens on it yet.

    Bound, never listening, and open to sharing by SO_REUSEPORT: TensorFlow, told
    TF_GRPC_REUSE_PORT=true, binds the same port and gets every connection, while a stranger's bind
    is refused. On both versions of IP where the host has them, because TensorFlow listens on both.
    It is held for the member's whole life: a socket that does not listen takes no connection.

    Sharing is meant for TensorFlow and nobody else, yet the kernel grants it to every process of
    the same user that asks: two members that both bind with SO_REUSEPORT share a port, silently.
    So a port is taken without it, and opened to sharing when it is ours.

    Args:
        ports: the first and the last port that will do; None: any.
        preferred: taken if it can be had; 0: none is.

    Raises:
        NoFreePort: all of them are taken.
        OSError: no port is to be had at all.
    """

    def __init__(self, ports: tuple[int, int] | None = None, preferred: int = 0) -> None:
        taken = _take_if_free(preferred) if preferred else ()
        self._sockets = taken or ((_any_port(),) if ports is None else _one_of(*ports))

    @property
    def port(self) -> int:
        return int(self._sockets[0].getsockname()[1])

    def close(self) -> None:
        for each in self._sockets:
            each.close()


def _take_if_free(port: int) -> tuple[socket.socket, ...]:
    try:
        return _take(port)
    except OSError:
        return ()


def _any_port() -> socket.socket:
    held = _bound(0)
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    return held


def _one_of(first: int, last: int) -> tuple[socket.socket, ...]:
    taken = 0
    problems: set[str] = set()
    for port in _spread(first, last):
        try:
            return _take(port)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                taken += 1
            else:
                problems.add(error.strerror or str(error))
    counts = "; ".join([f"{taken} of {last - first + 1} taken", *sorted(problems)])
    raise NoFreePort(f"no free port in {first}-{last} on {socket.gethostname()} ({counts})")


def _spread(first: int, last: int) -> Iterator[int]:
    """All ports of the range; members of one host, whose pids differ, begin at different ones."""
    size = last - first + 1
    for offset in range(size):
        yield first + (os.getpid() + offset) % size


def _take(port: int) -> tuple[socket.socket, socket.socket]:
    """A given port, which may have closed connections of an earlier member in TIME_WAIT: they
    refuse a plain bind for a minute, and a range is soon used up. SO_REUSEADDR looks past them,
    but past a second one that tries it, too. So it takes three steps. Raises OSError.

    1. The name of a Unix socket keeps members from one another. It is in the abstract namespace,
       which every process has in common that has the ports in common, whatever its user and its
       files, and the kernel frees it with its holder.
    2. A bind with SO_REUSEADDR alone fails where anybody else is, be he ready to share or not.
    3. The port is bound to share while the second step still keeps others off it.
    """
    claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        claim.bind(f"\0tflease-port-{port}")
        with _bound(port, socket.SO_REUSEADDR) as first:
            first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            return _bound(port, socket.SO_REUSEPORT), claim
    except OSError:
        claim.close()
        raise


def _bound(port: int, *options: int) -> socket.socket:
    for family, any_address in _ANY:
        try:
            return _bound_as(family, any_address, port, options)
        except OSError as error:
            if family == socket.AF_INET or error.errno not in _NO_SUCH_VERSION:
                raise
    raise AssertionError("unreachable: the last family returns or raises")


def _bound_as(
    family: socket.AddressFamily, host: str, port: int, options: tuple[int, ...]
) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        for option in options:
            made.setsockopt(socket.SOL_SOCKET, option, 1)
        made.bind((host, port))
    except OSError:
        made.close()
        raise
    return made


def address_towards(host: str, port: int) -> str:
    """This machine's own address on the route to ``host``; sends nothing, but may ask a name
    server. Of version 4 where there is one.

    Raises OSError when there is no such route or name.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    problem: OSError | None = None
    for family, kind, protocol, _, target in sorted(found, key=_is_version_6):
        try:
            with socket.socket(family, kind, protocol) as probe:
                probe.connect(target)
                return str(probe.getsockname()[0])
        except OSError as error:
            problem = problem or error
    raise problem or OSError(f"no address of {host}")


def _is_version_6(info: tuple[object, ...]) -> bool:
    return info[0] != socket.AF_INET


def split_address(address: str) -> tuple[str, int]:
    """``"host:port"`` or ``"[::1]:port"`` -> host, port. Raises ValueError."""
    host, separator, port = address.rpartition(":")
    if not separator or not host:
        raise ValueError(f"not host:port: {address!r}")
    return host.strip("[]"), int(port)
