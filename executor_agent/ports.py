"""The member's port: held from the reservation on, so that nobody else takes it (R8), and the
address that others reach it by (R9)."""

from __future__ import annotations

import socket


class HeldPort:
    """A TCP port that is ours though nothing listens on it yet.

    Bound with SO_REUSEPORT and never listening: TensorFlow, told TF_GRPC_REUSE_PORT=true, binds
    the same port and gets every connection, while a stranger's bind is refused.
    It is held for the member's whole life: a socket that does not listen takes no connection.
    """

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            self._socket.bind(("0.0.0.0", 0))
        except OSError:
            self._socket.close()
            raise

    @property
    def port(self) -> int:
        return int(self._socket.getsockname()[1])

    def close(self) -> None:
        self._socket.close()


def address_towards(host: str, port: int) -> str:
    """This machine's own address on the route to ``host``; sends nothing, but may ask a name
    server. Of version 4 where there is one, as the port is held there.

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
