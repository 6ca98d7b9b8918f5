"""An executor's end of an examination's roll call (``coordinator.spark.roll_call`` calls it)."""

from __future__ import annotations

import json
import socket
import time
from typing import Any

from executor_agent.ports import split_address

CONNECT_TIMEOUT = 5.0
"""Seconds for a connection: three of TCP's own attempts (after 0, 1 and 3 s) fit in."""

_MAX_LINE = 1 << 20


class RollCall:
    """The connection to the driver, who wants to know who is there. Raises OSError."""

    def __init__(self, driver: str, examination: str, address: str) -> None:
        self._socket = socket.create_connection(split_address(driver), CONNECT_TIMEOUT)
        hello = {"examination": examination, "host": socket.gethostname(), "address": address}
        self._socket.sendall(json.dumps(hello).encode() + b"\n")
        if self._line(CONNECT_TIMEOUT) != {"examination": examination}:
            self.close()
            raise ConnectionError("somebody else listens there")

    def wait_for_the_others(self, timeout: float) -> dict[str, str]:
        """Addresses of the other hosts by name; empty when nobody has told in time."""
        try:
            return dict(self._line(timeout)) if timeout > 0 else {}
        except (OSError, TypeError, ValueError):
            return {}

    def _line(self, timeout: float) -> Any:
        give_up_at = time.monotonic() + timeout
        data = b""
        while not data.endswith(b"\n"):
            self._socket.settimeout(max(0.001, give_up_at - time.monotonic()))
            # Byte by byte: the next line is for the next call of this.
            byte = self._socket.recv(1)
            data += byte
            if not byte or len(data) > _MAX_LINE:
                raise ConnectionError("the driver has hung up")
        try:
            return json.loads(data)
        except ValueError:
            raise ConnectionError("somebody else listens there") from None

    def close(self) -> None:
        """Lets the driver know that we have what we need."""
        self._socket.close()

    def __enter__(self) -> RollCall:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
