"""What can go wrong while files are fetched: which of it may pass by itself, and what to do."""

import errno

from executor_agent.ingest.names import without_secrets


class FetchError(Exception):
    """Files could not be fetched; the message says what to do. The cause, if a library or the
    operating system said one, is the exception's `__cause__`, unless it has a secret in it."""


class FetchStopped(FetchError):
    """The member was told to stop while it fetched files."""


class Mismatch(Exception):
    """What came is not what the store promised: another length, another content. Another try may
    help, from the beginning."""


class WrongContent(Mismatch):
    """All of it came, and its digest is another one."""


class DiskFull(Exception):
    """The local disk, or this user's part of it, is full."""


_HOPELESS = (
    FileNotFoundError,
    PermissionError,
    IsADirectoryError,
    NotADirectoryError,
    ImportError,
    NotImplementedError,
    AttributeError,
    LookupError,
    TypeError,
    ValueError,
)
"""Comes again however often one tries."""

# By name: the libraries that have them may not be there.
_HOPELESS_NAMES = frozenset(
    {
        "NoCredentialsError",
        "PartialCredentialsError",
        "ProfileNotFound",
        "ParamValidationError",
        "InvalidURL",
        "NoRegionError",
        "RefreshError",
        "DefaultCredentialsError",
        "ClientAuthenticationError",
    }
)
_CREDENTIALS_NAMES = frozenset(
    {
        "NoCredentialsError",
        "PartialCredentialsError",
        "ProfileNotFound",
        "RefreshError",
        "DefaultCredentialsError",
        "ClientAuthenticationError",
    }
)

_PASSING_CODES = (408, 425, 429)
"""HTTP's own: asked too slowly, too early, too often."""

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def _real(error: BaseException) -> BaseException:
    """fsspec says of a web server that cannot be reached, or refuses, that the file is not found;
    what it was is the cause."""
    cause = error.__cause__
    if not isinstance(error, FileNotFoundError) or cause is None:
        return error
    is_unreached = isinstance(cause, ConnectionError | TimeoutError)
    is_unreached = is_unreached or "ClientConnectionError" in _names(cause)
    return cause if is_unreached or http_code(cause) not in (None, 404, 410) else error


def may_pass(error: BaseException) -> bool:
    """Whether another try may end better."""
    error = _real(error)
    if isinstance(error, Mismatch):
        return True
    if isinstance(error, _HOPELESS) or _names(error) & _HOPELESS_NAMES:
        return False
    code = http_code(error)
    return code is None or code >= 500 or code in _PASSING_CODES


def is_refusal(error: BaseException) -> bool:
    """Whether the store does not let us in, or we have nothing to show."""
    error = _real(error)
    if isinstance(error, PermissionError) or _names(error) & _CREDENTIALS_NAMES:
        return True
    return http_code(error) in (401, 403)


def is_missing(error: BaseException) -> bool:
    """Whether there is no such file, folder or bucket."""
    error = _real(error)
    return isinstance(error, FileNotFoundError) or http_code(error) in (404, 410)


def http_code(error: BaseException) -> int | None:
    """The status that a store answered with, where the library's exception tells it."""
    for name in ("status", "code", "status_code"):
        code = getattr(error, name, None)
        if isinstance(code, int | str) and str(code).isdecimal() and 400 <= int(code) < 600:
            return int(code)
    return None


def advice(error: BaseException, url: str) -> str:
    """What went wrong with `url` and what to do, as a sentence for the user."""
    error = _real(error)
    said = without_secrets(f"{type(error).__name__}: {error}".rstrip(": "))
    if isinstance(error, ImportError):
        return missing_library(url, error)
    if is_missing(error):
        return f"{url} does not exist ({said}): check the names of the bucket and of the file"
    if is_refusal(error):
        return (
            f"the store refuses {url} ({said}): check the credentials on the executors and their "
            "rights to list and read it (storage_options= passes others), and its name"
        )
    if isinstance(error, Mismatch):
        return f"{url} did not arrive whole: {error}"
    if isinstance(error, TimeoutError) and not str(error):
        said = "no answer in time"
    if may_pass(error):
        return (
            f"{url} could not be read, however often it was tried ({said}): check that executors "
            "reach the store; retries= and timeout= allow more tries and more time"
        )
    return f"{url} cannot be read: {said}"


def missing_library(url: str, error: BaseException) -> str:
    """For a store whose library is not installed."""
    if url.partition(":")[0] in ("s3", "s3a"):
        return f"{url} needs s3fs: install tflease[s3] on the executors ({error})"
    return f"{url} needs a library that is missing: install it on the executors ({error})"


def _names(error: BaseException) -> set[str]:
    return {each.__name__ for each in type(error).__mro__}
