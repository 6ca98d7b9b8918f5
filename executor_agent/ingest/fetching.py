"""`ctx.fetch`: from what the user asks for to copies on the local disk.

Owns: the order of things. First which files, whose they are and what they are called; then their
sizes, and whether the disk has room; only then the first byte.
"""

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from executor_agent.ingest import names, store
from executor_agent.ingest.checksums import Checksums, expected_of
from executor_agent.ingest.control import Control, in_parallel
from executor_agent.ingest.copying import FileCopy, Patience, asked, tried
from executor_agent.ingest.counters import FetchCounters
from executor_agent.ingest.errors import DiskFull, FetchError, FetchStopped
from executor_agent.ingest.local_copy import LocalCopy
from executor_agent.ingest.names import shown
from executor_agent.ingest.secrets import discreet
from executor_agent.ingest.store import Remote, Source

Urls = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
Share = Callable[[Sequence[int]], list[int]]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the user asked for; `Context.fetch` documents it."""

    urls: Urls = field(repr=False)  # either may have secrets in it
    folder: Path
    parallel: int
    patience: Patience
    checksum: Checksums
    options: Mapping[str, Any] = field(repr=False)


@dataclass(slots=True)
class Target:
    """One file, and where its copy goes."""

    source: Source
    local: LocalCopy
    checksum: str | None
    remote: Remote | None
    """None: the store has not been asked."""


def fetch(
    wanted: Wanted, share: Share, is_stopped: Callable[[], bool], counters: FetchCounters
) -> list[Path]:
    """The local paths of this member's files, in the order of the urls.

    Args:
        share: of the numbers of all files those that are this member's.
        is_stopped: asked every 0.1 s.

    Raises:
        FetchError, ValueError: the message says what to do.
    """
    try:
        return _fetch(wanted, share, is_stopped, counters)
    except Exception as error:
        said = discreet(error, wanted.options)
        if said is error:
            raise
        raise said from None


def _fetch(
    wanted: Wanted, share: Share, is_stopped: Callable[[], bool], counters: FetchCounters
) -> list[Path]:
    control = Control()

    def look() -> None:
        if is_stopped():
            raise FetchStopped("the member was told to stop while it fetched files")

    def all_of(items: Sequence[Any], work: Callable[[Any], None]) -> None:
        in_parallel(control, items, work, wanted.parallel, look)

    def copy(target: Target) -> None:
        remote, patience = _remote(target), wanted.patience
        if wanted.checksum is False:
            remote = replace(remote, md5=None)
        FileCopy(remote, target.local, target.checksum, control, patience, counters).run()

    targets: list[Target] = []
    all_of([None], lambda _: targets.extend(_targets(wanted, share, control)))
    own = list({target.local.path: target for target in targets}.values())
    try:
        all_of(own, lambda target: _ask(target, control, wanted.patience))
        if own:
            _check_space(wanted.folder, own)
        counters.expect(sum(_remote(target).size or 0 for target in own))
        all_of(own, copy)
    except DiskFull as error:
        raise FetchError(
            f"the disk of {wanted.folder} became full while files were copied ({error.__cause__}): "
            "unfinished copies were removed. Free some space, or fetch into a directory of a "
            "larger disk (to=...)"
        ) from error
    return [target.local.path for target in targets]


def _targets(wanted: Wanted, share: Share, control: Control) -> list[Target]:
    remotes: list[Remote | None]
    if isinstance(wanted.urls, str | os.PathLike) and names.is_pattern(os.fspath(wanted.urls)):
        found = _matching(os.fspath(wanted.urls), wanted, control)
        sources, remotes = [each.source for each in found], list(found)
    else:
        call = store.in_thread(lambda: store.sources_of(_listed(wanted.urls), wanted.options))
        sources = control.result(call, wanted.patience.altogether)
        remotes = [None] * len(sources)
    urls = [source.url for source in sources]
    local_names = names.local_names(urls) if urls else []
    checksums = expected_of(wanted.checksum, urls)
    return [
        Target(
            sources[number],
            LocalCopy(wanted.folder, local_names[number]),
            checksums.get(urls[number]),
            remotes[number],
        )
        for number in share(range(len(sources)))
    ]


def _listed(urls: Urls) -> list[str]:
    if isinstance(urls, str | os.PathLike):
        return [os.fspath(urls)]
    return [os.fspath(url) for url in urls]


def _matching(pattern: str, wanted: Wanted, control: Control) -> list[Remote]:
    """Raises FetchError: nothing matches, or the store does not say what does."""
    found: list[Remote] = []

    def list_all() -> None:
        call = store.in_thread(lambda: store.matching(pattern, wanted.options))
        # A listing has many answers; each has its time.
        remotes: list[Remote] = control.result(call, wanted.patience.altogether)
        found.extend(remotes)

    tried(control, wanted.patience, pattern, list_all)
    if not found:
        raise FetchError(
            f"no file matches {shown(pattern)}: check the spelling, and that the files are there "
            "before the run begins"
        )
    return found


def _ask(target: Target, control: Control, patience: Patience) -> None:
    if target.remote is None:
        target.remote = asked(control, patience, target.source)
    target.local.check_origin(target.remote)
    target.local.prepare()


def _remote(target: Target) -> Remote:
    assert target.remote is not None
    return target.remote


def _check_space(folder: Path, targets: Sequence[Target]) -> None:
    """Before the first byte. Raises FetchError."""
    needed = sum(target.local.missing(_remote(target)) for target in targets)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise FetchError(
            f"the disk of {folder} has {_megabytes(free)} MB free, and {len(targets)} files need "
            f"{_megabytes(needed)} MB: nothing was copied. Free some space, fetch into a directory "
            "of a larger disk (to=...), or let more members share the files"
        )


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f}"
