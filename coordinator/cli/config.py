"""The configuration file of the commands: which coordinator, with which credentials.

``$TFLEASE_CONFIG``, or else ``tflease/config.toml`` in the user's folder for configuration::

    coordinator = "grpcs://coordinator.example:7787"
    token_file = "~/.config/tflease/token"
    ca_file = "ca.pem"        # relative to this file

Flags and environment variables come before it. ``TFCluster.run`` does not read it.
"""

from __future__ import annotations

import os
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coordinator.cli.place import parse_address, speaks_tls
from coordinator.paths import expanded

VARIABLE = "TFLEASE_CONFIG"

_PATHS = ("token_file", "ca_file", "cert_file", "key_file")
_KEYS = ("coordinator", *_PATHS)
_FOR_TLS = ("ca_file", "cert_file", "key_file")
_MAX_BYTES = 1 << 16
_WRITABLE_BY_OTHERS = 0o022


class ConfigUnusable(Exception):
    """The text names the file, what is wrong in it, and what to do."""


@dataclass(frozen=True, slots=True)
class Config:
    """What the file says; None for what it does not. ``path``: None where there is no file."""

    path: Path | None = None
    coordinator: str | None = None
    token_file: Path | None = None
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None


def load(environ: Mapping[str, str] = os.environ) -> Config:
    """Empty without a file; but one that is named has to be there. Raises ConfigUnusable."""
    named = environ.get(VARIABLE, "")
    if named == os.devnull:
        return Config()
    path = expanded(named).absolute() if named else _default(environ)
    try:
        content = _read(path)
    except FileNotFoundError:
        if named:
            raise ConfigUnusable(f"{path}, which {VARIABLE} names, does not exist") from None
        return Config()
    except OSError as error:
        raise ConfigUnusable(f"{path} cannot be read: {error.strerror}") from None
    return parse(content, path)


def _default(environ: Mapping[str, str]) -> Path:
    home = environ.get("XDG_CONFIG_HOME", "")
    # A relative one is to be ignored, says the XDG specification.
    folder = Path(home) if os.path.isabs(home) else expanded("~/.config")
    return folder / "tflease" / "config.toml"


def _read(path: Path) -> bytes:
    """Raises OSError, ConfigUnusable: whoever can write to it chooses who is told our token."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise ConfigUnusable(f"{path} is no regular file")
        if found.st_uid not in (os.geteuid(), 0):
            raise ConfigUnusable(
                f"{path} belongs to another user (uid {found.st_uid}): make a copy of your own, "
                f"and name it with {VARIABLE}"
            )
        if stat.S_IMODE(found.st_mode) & _WRITABLE_BY_OTHERS:
            mode = stat.S_IMODE(found.st_mode)
            raise ConfigUnusable(
                f"{path} can be written by others (mode {mode:04o}), who could send your token "
                f"elsewhere: look at what it says, then chmod go-w {path}"
            )
        content = os.read(descriptor, _MAX_BYTES + 1)
    finally:
        os.close(descriptor)
    if len(content) > _MAX_BYTES:
        raise ConfigUnusable(f"{path} is longer than {_MAX_BYTES} bytes")
    return content


def parse(content: bytes, path: Path) -> Config:
    """Raises ConfigUnusable. ``path``: for messages, and where relative paths begin."""
    try:
        table = tomllib.loads(content.decode())
    except UnicodeDecodeError:
        raise ConfigUnusable(f"{path} is no text in UTF-8") from None
    except tomllib.TOMLDecodeError as error:  # it names line and column
        raise ConfigUnusable(f"{path} is no TOML: {error}") from None
    for key, value in table.items():
        if key not in _KEYS:
            raise ConfigUnusable(f"{path}: unknown key {key!r}; there are {', '.join(_KEYS)}")
        if not isinstance(value, str) or not value:
            raise ConfigUnusable(f'{path}: {key} must be a text in quotes, {key} = "..."')
        if "\0" in value:
            raise ConfigUnusable(f"{path}: {key} has a zero byte in it, which no path may have")
    _check_address(table, path)
    folder = path.parent
    paths = {key: folder / expanded(table[key]) for key in _PATHS if key in table}
    return Config(path, table.get("coordinator"), **paths)


def _check_address(table: Mapping[str, Any], path: Path) -> None:
    coordinator = table.get("coordinator")
    if coordinator is None:
        return
    try:
        parse_address(coordinator)
    except ValueError as error:
        raise ConfigUnusable(f"{path}: coordinator: {error}") from None
    unfit = [key for key in _FOR_TLS if key in table]
    if unfit and not speaks_tls(coordinator):
        raise ConfigUnusable(
            f"{path}: {unfit[0]} is for TLS, which grpcs:// asks for, and coordinator is "
            f'"{coordinator}"'
        )
