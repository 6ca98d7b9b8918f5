"""What the copies of remote files are called on the local disk.

PURE. A copy has the name of its file. Where two files have the same one, all keep the folders below
the one that they have in common. All members find the same names, whatever their share is.
"""

import hashlib
import posixpath
import re
from collections.abc import Sequence

BOOKS = ".tflease-fetch"
"""The folder beside the copies that says how far they are."""

_LONGEST = 200  # bytes; with what is added to it, a name stays below the 255 of most file systems
_DIGEST = 16  # hexadecimal digits
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_WEB = re.compile(r"https?://", re.IGNORECASE)
_QUERY = re.compile(r"(https?://[^\s?'\"]+)\?[^\s'\")]*", re.IGNORECASE)
_PASSWORD = re.compile(r"(://[^/@:\s'\"]*):[^/\s'\"]*@")
_TOKEN = re.compile(r"(https?://)[^/:\s'\"]*@", re.IGNORECASE)  # in the place of a user's name


def shown(url: str) -> str:
    """`url` without what may be a secret in it: the query of a web address, a password. Of a chain
    the same for each link."""
    links = (
        re.split(r"[?#]", link, maxsplit=1)[0] if _WEB.match(link) else link
        for link in url.split("::")
    )
    return _without_users("::".join(links))


def without_secrets(text: str) -> str:
    """The same for what a library says, with addresses anywhere in it."""
    return _without_users(_QUERY.sub(r"\1", text))


def _without_users(text: str) -> str:
    return _TOKEN.sub(r"\1***@", _PASSWORD.sub(r"\1:***@", text))


def is_pattern(url: str) -> bool:
    """Whether `url` stands for all that match it. A question mark in a web address does not."""
    return any(
        re.search(r"[*\[]" if _WEB.match(link) else r"[*?\[]", link) for link in url.split("::")
    )


def local_names(urls: Sequence[str]) -> list[str]:
    """A relative path for each of them; the same one only for the same url.

    Raises:
        ValueError: one of them names no file, or one's name would have to be another's folder.
    """
    paths = {url: _segments(url) for url in urls}
    if len({path[-1] for path in paths.values()}) < len(paths):
        common = _common(list(paths.values()))
        paths = {url: path[common:] for url, path in paths.items()}
    else:
        paths = {url: path[-1:] for url, path in paths.items()}
    names = {url: "/".join(map(_safe, path)) for url, path in paths.items()}
    _check(names)
    return [names[url] for url in urls]


def _segments(url: str) -> list[str]:
    links = shown(url).split("::")  # of a chain, the outermost that has a path is the file
    path = next((link for link in links if "://" in link), links[0])
    segments = _SCHEME.sub("", path).split("/")
    if not segments[-1]:
        raise ValueError(f"{shown(url)} names no file: it ends with a slash")
    return segments


def _common(paths: Sequence[Sequence[str]]) -> int:
    """How many folders all have in common, at the beginning."""
    shortest = min(len(path) - 1 for path in paths)
    for depth in range(shortest):
        if len({path[depth] for path in paths}) > 1:
            return depth
    return shortest


def _safe(segment: str) -> str:
    """A name that stays in its folder and that every local file system takes."""
    if segment in ("", ".", "..", BOOKS):
        return "%" + segment.replace(".", "%2E")
    segment = segment.replace("\0", "%00")
    raw = segment.encode(errors="surrogateescape")
    if len(raw) <= _LONGEST:
        return segment
    stem, extension = posixpath.splitext(segment)
    extension = extension if len(extension.encode(errors="surrogateescape")) <= 20 else ""
    digest = hashlib.sha256(raw).hexdigest()[:_DIGEST]
    kept = _LONGEST - len(digest) - len(extension.encode(errors="surrogateescape")) - 1
    start = stem.encode(errors="surrogateescape")[:kept].decode(errors="ignore")
    return f"{start}-{digest}{extension}"


def _check(names: dict[str, str]) -> None:
    urls: dict[str, str] = {}
    for url, name in names.items():
        other = urls.setdefault(name, url)
        if other != url:
            raise ValueError(
                f"{shown(other)} and {shown(url)} would get the same local name: fetch them into "
                "two directories"
            )
    for name, url in urls.items():
        folder = posixpath.dirname(name)
        while folder:
            if folder in urls:
                raise ValueError(
                    f"{shown(urls[folder])} is a file and {shown(url)} is below it, which no local "
                    "disk can hold: fetch them into two directories"
                )
            folder = posixpath.dirname(folder)
