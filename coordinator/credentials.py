"""The token of a standalone coordinator, in a file that nobody but its user can read.

Daemon, drivers and command line find it by the same rule. It is in no command line and no
environment: other users of a machine can read the one, and every child process the other.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

from coordinator.core.errors import Unauthenticated
from coordinator.paths import expanded

PATH_VARIABLE = "TFLEASE_TOKEN_FILE"
"""Names the file, and never holds the token."""

_MAX_BYTES = 4096
_OTHERS = 0o077


def default_token_path() -> Path:
    """$TFLEASE_TOKEN_FILE, or else ``tflease/token`` in the user's folder for configuration."""
    named = os.environ.get(PATH_VARIABLE)
    if named:
        return expanded(named)
    home = os.environ.get("XDG_CONFIG_HOME", "")
    # A relative one is to be ignored, says the XDG specification.
    folder = Path(home) if os.path.isabs(home) else expanded("~/.config")
    return folder / "tflease" / "token"


def read_token(path: str | os.PathLike[str] | None = None) -> str:
    """The token in ``path``; None: in ``default_token_path()``.

    Raises Unauthenticated, naming the file and what to do: it is missing, empty or no token,
    others may read it, or somebody else has put it there.
    """
    file = expanded(path) if path is not None else default_token_path()
    try:
        # Whoever put a FIFO there must not make us wait for a writer.
        descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise _refusal(
            file,
            "does not exist: copy the file that `tflease serve` has made on its machine, or name "
            f"another one with token_file or {PATH_VARIABLE}",
        ) from None
    except OSError as error:
        raise _refusal(file, f"cannot be read: {error.strerror}") from None
    try:
        _check(file, os.fstat(descriptor))
        content = os.read(descriptor, _MAX_BYTES + 1)
    except OSError as error:
        raise _refusal(file, f"cannot be read: {error.strerror}") from None
    finally:
        os.close(descriptor)
    return _parse(file, content)


def create_token_file(path: str | os.PathLike[str]) -> str:
    """Makes the file with a new token, for its user alone. One that is there stays, and its token
    is returned.

    Raises Unauthenticated when it is there and unfit (see ``read_token``), when its token was made
    from another one, and when it cannot be made.
    """
    from coordinator.security import new_token  # imports grpc, which readers do not need

    file = expanded(path)
    token = new_token()
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise _refusal(file, f"cannot be made: {error.strerror}: {file.parent}") from None
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return _operators(file, read_token(file))
    except OSError as error:
        raise _refusal(file, f"cannot be made: {error.strerror}") from None
    try:
        with os.fdopen(descriptor, "w") as stream:
            stream.write(token + "\n")
    except OSError as error:
        with suppress(OSError):
            file.unlink()  # half a token would be in the way of the next attempt
        raise _refusal(file, f"cannot be written: {error.strerror}") from None
    return token


def _operators(file: Path, token: str) -> str:
    """One that somebody was given for less must not become the one that opens everything."""
    from coordinator.security import role_of

    role = role_of(token)
    if role is not None:
        raise _refusal(
            file,
            f"holds the token of a {role.value}, made by `tflease token`: whoever was given it "
            "would command this coordinator. Name another file for a token of its own, with "
            f"--token-file or {PATH_VARIABLE}",
        )
    return token


def _check(file: Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise _refusal(file, "is no regular file")
    if found.st_uid != os.geteuid():
        raise _refusal(
            file,
            f"belongs to another user (uid {found.st_uid}, this process has {os.geteuid()}): "
            "make a copy of your own",
        )
    if stat.S_IMODE(found.st_mode) & _OTHERS:
        raise _refusal(
            file,
            f"can be read or written by others (mode {stat.S_IMODE(found.st_mode):04o}): "
            f"chmod 600 {file}, and when somebody may have read it, make a new token",
        )


def _parse(file: Path, content: bytes) -> str:
    if len(content) > _MAX_BYTES:
        raise _refusal(file, f"is longer than {_MAX_BYTES} bytes, which no token is")
    token = content.decode(errors="replace").strip()
    if not token:
        raise _refusal(file, "is empty: remove it, and `tflease serve` makes a new one")
    # It travels in a header of every call, which takes nothing else.
    if not (token.isascii() and token.isprintable()) or " " in token:
        raise _refusal(file, "does not hold a token, which is one line of text without spaces")
    return token


def _refusal(file: Path, problem: str) -> Unauthenticated:
    return Unauthenticated(f"the token file {file} {problem}", {"path": str(file)})
