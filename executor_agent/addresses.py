"""The addresses that this machine has, for a member that is to advertise one of a given network.

Asked of the kernel by netlink, as ``ip address`` does: what the name service says of the host is
another matter (R9), and one interface may have several addresses.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_REQUEST, _DUMP = 0x1, 0x300
_NEW_ADDRESS, _GET_ADDRESS = 20, 22
_ERROR, _DONE = 2, 3
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_ABOUT = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, interface
_ATTRIBUTE = struct.Struct("=HH")  # length, type
_TIMEOUT = 5.0


class NoSuchAddress(Exception):
    """This machine has no address in the network; the text names those that it has."""


@dataclass(frozen=True, slots=True)
class OwnAddress:
    interface: str
    address: Address

    def __str__(self) -> str:
        return f"{self.address} ({self.interface})"


def address_in(network: str, preferred: str = "") -> str:
    """This machine's address in ``network`` (CIDR notation): ``preferred`` if that is one, else
    the first in the kernel's order.

    Raises NoSuchAddress, ValueError for what is no network, and OSError.
    """
    wanted = ipaddress.ip_network(network, strict=False)
    own = own_addresses()
    inside = [each for each in own if each.address in wanted]
    if not inside:
        has = ", ".join(map(str, own)) or "none"
        raise NoSuchAddress(f"{socket.gethostname()} has no address in {wanted}, it has {has}")
    texts = [str(each.address) for each in inside]
    return preferred if preferred in texts else texts[0]


def own_addresses() -> list[OwnAddress]:
    """All of them, loopback included, in the kernel's order. Raises OSError."""
    names = dict(socket.if_nameindex())
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as kernel:
        kernel.settimeout(_TIMEOUT)
        flags = _REQUEST | _DUMP
        size = _HEADER.size + _ABOUT.size
        kernel.send(_HEADER.pack(size, _GET_ADDRESS, flags, 1, 0) + _ABOUT.pack(0, 0, 0, 0, 0))
        found = [_address(body) for body in _answers(kernel)]
    return [OwnAddress(names.get(index, str(index)), each) for index, each in filter(None, found)]


def _answers(kernel: socket.socket) -> Iterator[bytes]:
    """The bodies of the answer's messages, until the kernel says that it is done."""
    while True:
        data = kernel.recv(65536)
        while data:
            length, kind, *_ = _HEADER.unpack_from(data)
            body = data[_HEADER.size : length]
            data = data[_padded(length) :]
            if kind == _DONE:
                return
            if kind == _ERROR:
                (code,) = struct.unpack_from("=i", body)
                raise OSError(-code, os.strerror(-code))
            if kind == _NEW_ADDRESS:
                yield body


def _address(body: bytes) -> tuple[int, Address] | None:
    _, _, _, _, interface = _ABOUT.unpack_from(body)
    values: dict[int, bytes] = {}
    data = body[_ABOUT.size :]
    while len(data) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(data)
        values[kind] = data[_ATTRIBUTE.size : length]
        data = data[_padded(max(length, _ATTRIBUTE.size)) :]
    # On a point-to-point link the plain one is the other end's.
    packed = values.get(_IFA_LOCAL) or values.get(_IFA_ADDRESS)
    return (interface, ipaddress.ip_address(packed)) if packed else None


def _padded(length: int) -> int:
    return (length + 3) & ~3
