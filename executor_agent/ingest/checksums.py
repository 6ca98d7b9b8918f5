"""Digests that a copy has to have: what the user said, and what the store says."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Literal

from executor_agent.ingest.errors import WrongContent
from executor_agent.ingest.names import shown

Checksums = Mapping[str, str] | str | Literal[False] | None
"""False: not even those that the store tells."""


class Digest:
    """One that is being made. `expected`: "algorithm:hexadecimal"."""

    def __init__(self, expected: str, said_by: str) -> None:
        self._expected = expected
        self.said_by = said_by
        self.hash = hashlib.new(expected.partition(":")[0], usedforsecurity=False)

    def check(self) -> None:
        """Raises WrongContent."""
        algorithm, _, digits = self._expected.partition(":")
        found = self.hash.hexdigest()
        if found != digits:
            raise WrongContent(
                f"its {algorithm} is {found}, and {self.said_by} says {digits}: the file was "
                "changed or damaged, or the expected checksum is that of another one"
            )


def expected_of(checksum: Checksums, urls: Sequence[str]) -> dict[str, str]:
    """The user's checksums by url.

    Raises:
        ValueError: one is not understood, or belongs to no url, or to several.
    """
    if checksum is None or checksum is False:
        return {}
    if isinstance(checksum, str):
        if len(urls) != 1:
            raise ValueError(
                f"one checksum for {len(urls)} files: give a mapping from url or file name to "
                "checksum"
            )
        return {urls[0]: _understood(checksum)}
    found = {}
    for key, value in checksum.items():
        matching = [url for url in urls if key in (url, shown(url).rpartition("/")[2])]
        if len(set(matching)) != 1:
            count = "none" if not matching else "several"
            raise ValueError(f"checksum= has {key!r}, and {count} of the files are called so")
        found[matching[0]] = _understood(value)
    return found


def _understood(checksum: str) -> str:
    algorithm, colon, digits = checksum.strip().lower().partition(":")
    try:
        length = hashlib.new(algorithm, usedforsecurity=False).digest_size * 2
        is_good = bool(colon) and len(digits) == length and int(digits, 16) >= 0
    except ValueError:
        is_good = False
    if not is_good:
        raise ValueError(f"{checksum!r} is no checksum: write it as 'sha256:<64 digits>'")
    return f"{algorithm}:{digits}"
