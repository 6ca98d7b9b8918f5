"""How far a member's fetches are, for whoever watches the run."""

import threading
from collections.abc import Mapping

BYTES, TOTAL_BYTES, FILES = "fetch/bytes", "fetch/total_bytes", "fetch/files"


class FetchCounters:
    """Of all fetches of a member together. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._bytes = 0
        self._total = 0
        self._files = 0

    def expect(self, size: int) -> None:
        """So many bytes more belong to the files that are fetched."""
        with self._lock:
            self._total += size

    def came(self, size: int) -> None:
        """So many of them are here; negative: were lost again."""
        with self._lock:
            self._bytes += size

    def done(self) -> None:
        """One file more is whole."""
        with self._lock:
            self._files += 1

    def __call__(self) -> Mapping[str, float]:
        with self._lock:
            return {BYTES: self._bytes, TOTAL_BYTES: self._total, FILES: self._files}
