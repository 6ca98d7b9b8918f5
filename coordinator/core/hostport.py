"""Host and port in a text: "host:7787", "10.0.0.5:7787", "[::1]:7787"."""

from __future__ import annotations

import ipaddress
import re

HIGHEST_PORT = 65535

_HOST = re.compile(r"[\w.:%-]+", re.ASCII)
_PORT = re.compile(r"[0-9]{1,5}")


def host_and_port(text: str) -> tuple[str, int] | None:
    """The host without brackets. None when it is not written so; an address of version 6 without
    brackets is not: its last group is no port."""
    host, _, port = text.rpartition(":")
    if not is_host(host) or not _PORT.fullmatch(port) or int(port) > HIGHEST_PORT:
        return None
    if ":" in host and not host.startswith("["):
        return None
    return host.strip("[]"), int(port)


def is_host(text: str) -> bool:
    """A name or an address, of version 6 with or without brackets."""
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    return _HOST.fullmatch(bare) is not None and (":" not in bare or _is_version_6(bare))


def _is_version_6(host: str) -> bool:
    try:
        ipaddress.IPv6Address(host)
    except ValueError:
        return False
    return True
