"""Which of the files below `model_dir` is the latest checkpoint. PURE.

Each generation of each run has a directory of its own, whose name sorts by time:

    <model_dir>/checkpoints/20260131T120000Z-4f1c0a9be3d2-0002/ckpt-17.index
                                                               ckpt-17.data-00000-of-00001
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable

_DIRECTORY = re.compile(r"\d{8}T\d{6}Z-.+-\d{4,}")
_INDEX = re.compile(r"(?P<prefix>.+)\.index")
_SHARD = re.compile(r"(?P<prefix>.+)\.data-(?P<number>\d{5,})-of-(?P<count>\d{5,})")
_STEP = re.compile(r"(\d+)\D*$")
_END_OF_INDEX = bytes.fromhex("57fb808b247547db")  # the magic number of TensorFlow's tables

_URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://")
OF_TENSORFLOW = ("file", "gs", "har", "hdfs", "ram", "viewfs")
"""The schemes that TensorFlow reads and writes by itself."""


def needs_copies(model_dir: str) -> bool:
    """Whether it is a place that TensorFlow does not reach, so that checkpoints are copied."""
    url = _URL.match(model_dir)
    return url is not None and url["scheme"].lower() not in OF_TENSORFLOW


def directory_name(moment: str, run_id: str, generation: int) -> str:
    """`moment`: when the run was made, in UTC, as 20260131T120000Z. Names sort by it, then by run,
    then by generation."""
    return f"{moment}-{run_id}-{generation:04d}"


def newest_first(names: Iterable[str]) -> list[str]:
    """The directories of generations among these names; others are not ours."""
    ours = (name.rstrip("/") for name in names)  # some file systems list them with a slash
    return sorted(filter(_DIRECTORY.fullmatch, ours), key=_age, reverse=True)


def _age(name: str) -> tuple[str, int]:
    run, _, generation = name.rpartition("-")
    return run, int(generation)


def complete(names: Iterable[str]) -> list[str]:
    """The prefixes of the checkpoints of which the index and every shard are among these files."""
    return _sorted_out(names)[0]


def without_shards(names: Iterable[str]) -> list[str]:
    """The prefixes of those of which the index is there and a shard is not. TensorFlow writes the
    index last: its shards were written on another machine, or are gone."""
    return _sorted_out(names)[1]


def files_of(prefix: str, names: Iterable[str]) -> list[str]:
    """Those of one checkpoint, in the order in which they are copied: the index is the last, so
    that half a copy is not taken for a checkpoint."""
    of_it = (name for name in names if (found := _SHARD.fullmatch(name)) and found[1] == prefix)
    return [*sorted(of_it), f"{prefix}.index"]


def is_whole_index(end: bytes) -> bool:
    """Whether the file that ends so was written to its end."""
    return end[-len(_END_OF_INDEX) :] == _END_OF_INDEX


def _sorted_out(names: Iterable[str]) -> tuple[list[str], list[str]]:
    """The complete ones, and those that lack shards."""
    prefixes: list[str] = []
    shards: defaultdict[tuple[str, int], set[int]] = defaultdict(set)
    for name in names:
        if index := _INDEX.fullmatch(name):
            prefixes.append(index["prefix"])
        elif shard := _SHARD.fullmatch(name):
            shards[shard["prefix"], int(shard["count"])].add(int(shard["number"]))
    whole = {prefix for (prefix, count), found in shards.items() if found >= set(range(count))}
    return [each for each in prefixes if each in whole], [
        each for each in prefixes if each not in whole
    ]


def step_of(prefix: str) -> int:
    """The last number in it: of two that were written at the same moment, "ckpt-10" is younger than
    "ckpt-9"."""
    step = _STEP.search(prefix)
    return int(step[1]) if step else -1
