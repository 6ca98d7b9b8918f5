"""Errors without what opens a store: they end in logs, and on the driver.

PURE. Secrets are what `names.without_secrets` knows by its form, and what the user has handed over
in `storage_options` under a name that says so.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from executor_agent.ingest.errors import FetchError
from executor_agent.ingest.names import without_secrets

_NAMES = re.compile(
    r"secret|passw|passphrase|token|key|auth|cred|sas|cookie|connection_string", re.IGNORECASE
)
_SHORTEST = 6  # characters; what is shorter is in too many words


def discreet(error: Exception, options: Mapping[str, Any]) -> Exception:
    """`error` itself if nothing that its traceback prints is a secret; else one of its kind that
    says the rest, and not what it came from."""
    values = sorted(set(_secrets(options)), key=len, reverse=True)

    def clean(text: str) -> str:
        text = without_secrets(text)
        for value in values:
            text = text.replace(value, "***")
        return text

    if all(clean(said) == said for each in _printed(error) for said in _said_by(each)):
        return error
    said = clean(str(error))
    if isinstance(error, FetchError):
        other: Exception = type(error)(said)
    elif type(error) in (ValueError, TypeError):
        other = type(error)(said)
    else:
        other = FetchError(f"{type(error).__name__}: {said}")
    return other.with_traceback(error.__traceback__)


def _secrets(options: Any, is_secret: bool = False) -> Iterator[str]:
    if isinstance(options, str):
        if is_secret and len(options) >= _SHORTEST:
            yield options
    elif isinstance(options, Mapping):
        for name, value in options.items():
            yield from _secrets(value, is_secret or bool(_NAMES.search(str(name))))
    elif isinstance(options, list | tuple):
        for value in options:
            yield from _secrets(value, is_secret)


def _printed(error: BaseException) -> Iterator[BaseException]:
    """It, and those that a traceback shows above it."""
    seen: set[int] = set()
    each: BaseException | None = error
    while each is not None and id(each) not in seen:
        seen.add(id(each))
        yield each
        each = each.__cause__ or (None if each.__suppress_context__ else each.__context__)


def _said_by(error: BaseException) -> Iterator[str]:
    yield str(error)
    yield from getattr(error, "__notes__", ())
