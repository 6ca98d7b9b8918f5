"""One file from a store to the local disk: piece by piece, again where that may help, checked."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from executor_agent.ingest import store
from executor_agent.ingest.checksums import Digest
from executor_agent.ingest.control import Abandoned, Control
from executor_agent.ingest.counters import FetchCounters
from executor_agent.ingest.errors import (
    DiskFull,
    FetchError,
    Mismatch,
    WrongContent,
    advice,
    may_pass,
)
from executor_agent.ingest.local_copy import LocalCopy
from executor_agent.ingest.names import shown
from executor_agent.ingest.store import Remote, Source

_PAUSE, _LONGEST_PAUSE = 0.5, 15.0  # seconds before another try; it doubles from one to the next
_LOCK_PAUSE = 0.1  # seconds between two looks at whether another process is done with the file
_BEGINNINGS = 3  # times that a file which did not arrive whole is copied from its beginning

_USER, _STORE = "checksum=", "the store"


@dataclass(frozen=True, slots=True)
class Patience:
    """`retries`: tries after the first that brought nothing. `timeout`: seconds for one answer."""

    retries: int
    timeout: float

    @property
    def altogether(self) -> float:
        """Seconds without a byte after which a file is given up."""
        return (self.retries + 1) * self.timeout + sum(map(_longest, range(self.retries)))


def tried(control: Control, patience: Patience, url: str, call: Callable[[], object]) -> None:
    """`call()`, again after what may pass.

    Raises:
        FetchError: it did not pass.
        Abandoned, DiskFull: at once.
    """
    failures = 0
    while True:
        try:
            call()
            return
        except (Abandoned, DiskFull, FetchError):
            raise
        except Exception as error:
            failures += 1
            if not may_pass(error) or failures > patience.retries:
                raise FetchError(advice(error, shown(url))) from error
        control.pause(random.uniform(0.5, 1.0) * _longest(failures - 1))


def _longest(failures: int) -> float:
    return min(_LONGEST_PAUSE, _PAUSE * 2.0**failures)


def asked(control: Control, patience: Patience, source: Source) -> Remote:
    """What the store says of a file. Raises FetchError, Abandoned."""
    answers: list[Remote] = []

    def ask() -> None:
        call = store.in_thread(lambda: store.ask(source))
        answers.append(control.result(call, patience.timeout))

    tried(control, patience, source.url, ask)
    return answers[-1]


class FileCopy:
    """The work of copying one file, in one thread."""

    def __init__(
        self,
        remote: Remote,
        local: LocalCopy,
        checksum: str | None,
        control: Control,
        patience: Patience,
        counters: FetchCounters,
    ) -> None:
        self._remote = remote
        self._local = local
        self._checksum = checksum
        self._control = control
        self._patience = patience
        self._counters = counters
        self._counted = 0

    def run(self) -> None:
        """True on return: the copy is there, and whole.

        Raises:
            FetchError: it cannot be copied; the message says what to do.
            DiskFull, Abandoned: no part is left where the disk is full.
        """
        seen, seen_at = -1, time.monotonic()
        while True:
            with self._local.try_lock() as is_ours:
                if is_ours:
                    self._copy_or_clear()
                    return
            # Another member, or another thread, copies it: as long as it comes forward we wait.
            size = self._local.part_bytes()
            if size != seen:
                seen, seen_at = size, time.monotonic()
            elif time.monotonic() - seen_at > self._patience.altogether:
                raise FetchError(
                    f"another process has been copying {self._local.path} for "
                    f"{self._patience.altogether:.0f} s without a byte more: end it, or fetch into "
                    "another directory (to=...)"
                )
            self._control.pause(_LOCK_PAUSE)

    def _copy_or_clear(self) -> None:
        try:
            self._copy()
        except (DiskFull, Abandoned):
            if self._control.is_full:
                self._local.discard()
            raise
        self._counters.done()

    def _copy(self) -> None:
        self._control.check()
        self._local.check_origin(self._remote)  # another fetch may have come before us
        try:
            for attempt in range(_BEGINNINGS):
                if attempt:
                    # It may be another file now; and what came of this one is no good.
                    self._local.discard()
                    self._remote = asked(self._control, self._patience, self._remote.source)
                try:
                    if self._is_there():
                        return
                    self._fill()
                    return
                except Mismatch as error:
                    hopeless = attempt + 1 == _BEGINNINGS
                    if hopeless or (isinstance(error, WrongContent) and attempt):
                        self._local.discard()
                        raise FetchError(advice(error, self._shown)) from error
        except DiskFull:
            self._control.is_full = True
            raise

    @property
    def _shown(self) -> str:
        return shown(self._remote.source.url)

    def _is_there(self) -> bool:
        """From an earlier fetch, or by another member of this host."""
        if not self._local.is_complete(self._remote):
            return False
        if self._checksum is not None and not self._local.was_checked(self._checksum):
            digest = Digest(self._checksum, _USER)
            self._local.digest_copy([digest.hash])
            try:
                digest.check()
            except WrongContent:
                return False
            self._local.note_checksum(self._remote, self._checksum)
        self._count(self._remote.size or 0)
        return True

    def _fill(self) -> None:
        """What is missing of the part, and the part becomes the copy."""
        remote = self._remote
        have = self._local.part_size(remote)
        digests = self._digests()
        if have:
            self._local.digest_part([each.hash for each in digests])
        else:
            self._local.begin(remote)
        self._count(have)
        pieces = 1 if have else 0
        with self._local.appending() as part:
            while remote.size is None or have < remote.size:
                data = self._piece(remote, have)
                self._control.check()
                part.append(data)
                for each in digests:
                    each.hash.update(data)
                have += len(data)
                pieces += 1
                self._count(have)
                if remote.size is None:
                    break
        self._check(remote, digests, pieces)
        self._local.finish(remote, self._checksum)

    def _digests(self) -> list[Digest]:
        digests = []
        if self._checksum is not None:
            digests.append(Digest(self._checksum, _USER))
        if self._remote.md5 is not None:
            digests.append(Digest(f"md5:{self._remote.md5}", _STORE))
        return digests

    def _piece(self, remote: Remote, start: int) -> bytes:
        """The next bytes; some came, so what failed before is forgotten."""
        pieces: list[bytes] = []

        def read() -> None:
            # Asked anew for each try: after one that took too long the pieces are smaller.
            end = min(remote.size or 0, start + self._control.piece)
            began = time.monotonic()
            try:
                call = store.read(remote, start, end)
                data = self._control.result(call, self._patience.timeout)
            except TimeoutError:
                self._control.took_too_long()
                raise
            self._control.took(end - start, time.monotonic() - began)
            pieces.append(store.checked(remote, data, start, end))

        tried(self._control, self._patience, remote.source.url, read)
        return pieces[-1]

    def _check(self, remote: Remote, digests: list[Digest], pieces: int) -> None:
        """Raises Mismatch: what is there is not one content of the file."""
        if remote.size is not None and self._local.part_bytes() != remote.size:
            raise Mismatch("the copy has another length: does somebody else write it?")
        is_proven = False
        for each in digests:
            try:
                each.check()
                is_proven = True
            except WrongContent:
                if each.said_by != _STORE or not self._is_encrypted(remote):
                    raise
        if pieces > 1 and not is_proven:
            now = asked(self._control, self._patience, remote.source)
            if (now.size, now.version) != (remote.size, remote.version):
                raise Mismatch("it changes while it is copied: fetch it when it does not")

    def _is_encrypted(self, remote: Remote) -> bool:
        """So that what the store says is no digest of what it sends."""
        answers: list[bool] = []

        def ask() -> None:
            call = store.in_thread(lambda: store.etag_is_no_md5(remote))
            answers.append(self._control.result(call, self._patience.timeout))

        tried(self._control, self._patience, remote.source.url, ask)
        return answers[-1]

    def _count(self, have: int) -> None:
        self._counters.came(have - self._counted)
        self._counted = have
