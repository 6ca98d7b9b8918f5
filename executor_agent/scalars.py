"""Scalars into an event file of TensorBoard's, without TensorFlow: a program that evaluates with
something else must not pay for its import.

Owns: the format, which is TFRecord around `tensorflow.Event` (event.proto, summary.proto).
"""

from __future__ import annotations

import itertools
import math
import os
import socket
import struct
import time
from collections.abc import Mapping
from pathlib import Path

_VERSION = b"brain.Event:2"
_numbers = itertools.count()


class ScalarWriter:
    """One event file, made with the first scalars. Each write is whole and visible at once."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._path: Path | None = None

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Raises OSError."""
        now = time.time()
        if self._path is None:
            self._directory.mkdir(parents=True, exist_ok=True)
            unique = f"{socket.gethostname()}.{os.getpid()}.{next(_numbers)}"
            path = self._directory / f"events.out.tfevents.{int(now)}.{unique}.v2"
            path.write_bytes(_record(_double(1, now) + _bytes(3, _VERSION)))
            self._path = path
        values = b"".join(
            _bytes(1, _bytes(1, tag.encode()) + _float(2, value)) for tag, value in scalars.items()
        )
        event = _double(1, now) + _integer(2, step) + _bytes(5, values)
        with open(self._path, "ab", buffering=0) as file:
            file.write(_record(event))


def _record(data: bytes) -> bytes:
    length = struct.pack("<Q", len(data))
    return length + _checksum(length) + data + _checksum(data)


def _checksum(data: bytes) -> bytes:
    """CRC-32C, masked as TFRecord wants it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF)


def _table() -> tuple[int, ...]:
    table = []
    for number in range(256):
        value = number
        for _ in range(8):
            value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return tuple(table)


_TABLE = _table()

# Fields of protocol buffers: their number and wire type, then the value.


def _integer(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value & 0xFFFFFFFFFFFFFFFF)


def _double(number: int, value: float) -> bytes:
    return _varint(number << 3 | 1) + struct.pack("<d", value)


def _float(number: int, value: float) -> bytes:
    try:
        packed = struct.pack("<f", value)
    except OverflowError:  # beyond single precision
        packed = struct.pack("<f", math.copysign(math.inf, value))
    return _varint(number << 3 | 5) + packed


def _bytes(number: int, value: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
