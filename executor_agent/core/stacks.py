"""Where the threads of a process stand: who can be asked, and how the answer is put. PURE.

The main thread comes first, the innermost frame of each too, as `faulthandler` writes them:

    Main thread (most recent call first):
      File "/app/train.py", line 12 in step
      File "/app/train.py", line 30 in main_fun

    Thread "reader" (most recent call first):
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Final, TypeAlias

from executor_agent.core.record import Record

FILE: Final = "stacks"
"""In a member's directory: who answers, then the answers."""

END: Final = "(end)\n"
"""The last line of an answer of Python's."""

MAX_FRAMES: Final = 100
"""Of a thread, the innermost ones; faulthandler has the same limit."""

LIMIT: Final = 16 * 1024
"""Bytes of all of them."""

Frame: TypeAlias = tuple[str, int, str]
"""File, line, function."""

_HEADER = re.compile(r"^(?:Current thread|Thread) 0x([0-9a-f]+)[^\n]*$", re.MULTILINE)
_MAIN = "Main thread (most recent call first):"
_NO_FRAMES = "  <no Python frame>"
_CUT = "  ... (more is left out)\n"
_TOO_MANY = "\n...\n"  # what faulthandler writes after a hundred threads


class Answering(Record):
    """A process that can be asked: the file's first line."""

    pid: int
    create_time: float
    question: int  # the signal that Python answers
    force: int  # the signal that faulthandler answers
    descriptor: int  # of the file, in that process, for faulthandler
    main_thread: int

    def to_json(self) -> str:
        """The text that `from_json` reads."""
        return json.dumps(self.to_dict())

    @classmethod
    def from_json(cls, text: bytes) -> Answering:
        """Raises ValueError."""
        try:
            return cls(**json.loads(text))
        except (TypeError, ValueError) as error:
            raise ValueError(f"not the first line of {FILE!r}: {error}") from None


def put(main: Sequence[Frame], others: Iterable[tuple[str, Sequence[Frame]]]) -> str:
    """Frames of the main thread, and of others by name."""
    blocks = [_block(_MAIN, main)]
    blocks += [_block(f'Thread "{name}" (most recent call first):', each) for name, each in others]
    return limited("\n\n".join(blocks) + "\n")


def _block(header: str, frames: Sequence[Frame]) -> str:
    lines = [f'  File "{path}", line {line} in {name}' for path, line, name in frames]
    return "\n".join((header, *(lines or [_NO_FRAMES])))


def of_python(text: str) -> str | None:
    """The answer of `put`, which has its `END`; None: it is not whole. It may come so late that
    faulthandler has begun, too."""
    if not text.endswith(END):
        return None
    return text[max(0, text.rfind(_MAIN)) :].removesuffix(END)


def of_py_spy(output: bytes) -> str:
    """What `py-spy dump --json` wrote. Raises ValueError when that is something else."""
    main: list[Frame] | None = None
    others: list[tuple[str, list[Frame]]] = []
    try:
        for thread in json.loads(output):
            frames = [
                (str(f["filename"]), int(f["line"]), str(f["name"])) for f in thread["frames"]
            ]
            if thread["thread_name"] == "MainThread":
                main = frames
            else:
                others.append((thread["thread_name"] or hex(thread["thread_id"]), frames))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"py-spy's answer is not understood: {error!r}") from None
    if main is None:
        raise ValueError("py-spy's answer names no main thread")
    return put(main, others)


def has_thread(text: str, ident: int) -> bool:
    """Whether faulthandler has come to that thread (the main one is the last), or has given up."""
    idents = (int(header[1], 16) for header in _HEADER.finditer(text))
    return ident in idents or text.endswith(_TOO_MANY)


def of_faulthandler(text: str, main_thread: int) -> str:
    """What faulthandler wrote, the main thread first."""
    headers = list(_HEADER.finditer(text))
    if not headers:
        return limited(text)
    ends = [each.start() for each in headers[1:]] + [len(text)]
    mains, others = [], []
    for header, end in zip(headers, ends, strict=True):
        frames = text[header.end() : end].strip("\n")
        if int(header[1], 16) == main_thread:
            mains.append(f"{_MAIN}\n{frames}")
        else:
            others.append(f"{header[0].replace('Current thread', 'Thread')}\n{frames}")
    return limited("\n\n".join(mains[-1:] + others) + "\n")


def limited(text: str) -> str:
    """The beginning, in whole lines."""
    data = text.encode(errors="replace")
    if len(data) <= LIMIT:
        return text
    kept = data[: LIMIT - len(_CUT)].decode(errors="ignore")
    return kept[: kept.rfind("\n") + 1] + _CUT
