"""What of a notebook's outputs is kept in the repository: what a reader wants to see, and nothing
that belongs to the machine it was executed on.

Pure: no file, no environment. `run-notebooks.py` executes, tests/notebooks looks at what is kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

MAX_IMAGE_BYTES = 60_000
MAX_TEXT_BYTES = 20_000

_ADDRESS = re.compile(r"\b\d{1,3}(?:\.\d{1,3}){3}\b")
_PORT = re.compile(r"\b(localhost|HOST):\d{2,5}\b")
_SECRET = re.compile(r"\b[0-9a-f]{32,}\b|(?<![\w+/-])(?=[\w-]*\d)(?=[\w-]*[A-Z])[\w-]{40,}")
_PATH = re.compile(
    r"(?<![\w./<])/(?:root|home|Users|tmp|var|work|opt|usr|mnt|private)/[^\s'\"<>&),;]+"
)
_OBJECT = re.compile(r"\b0x[0-9a-f]{8,}\b")
_TEXTS = ("text/plain", "text/html", "text/markdown")
_NOT_KEPT = ("stderr",)
"""Warnings of the JVM and of TensorFlow, other ones on each machine."""


def kept(notebook: dict[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """The notebook as it is kept; changed in place. `names`: what to say instead of which text,
    such as the path of a directory or the name of the host."""
    notebook["metadata"] = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for cell in notebook["cells"]:
        cell["metadata"] = {}
        if cell["cell_type"] == "code":
            outputs = (each for each in cell["outputs"] if each.get("name") not in _NOT_KEPT)
            cell["outputs"] = [_kept_output(each, names) for each in _joined(outputs)]
    return notebook


def _joined(outputs: Iterator[dict[str, Any]]) -> list[dict[str, Any]]:
    """Streams come in pieces, cut wherever the time was up."""
    found: list[dict[str, Any]] = []
    for each in outputs:
        last = found[-1] if found else {}
        if each["output_type"] == "stream" == last.get("output_type"):
            last["text"] = _text(last["text"]) + _text(each["text"])
        else:
            found.append(each)
    return found


def _kept_output(output: dict[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    if "text" in output:
        output["text"] = scrubbed(_text(output["text"]), names)
    if "data" in output:
        output["metadata"] = {}
        for kind in _TEXTS:
            if kind in output["data"]:
                output["data"][kind] = scrubbed(_text(output["data"][kind]), names)
    return output


def scrubbed(text: str, names: Mapping[str, str]) -> str:
    """`text` without what belongs to one machine."""
    for name in sorted(names, key=len, reverse=True):
        text = text.replace(name, names[name])
    text = _PORT.sub(r"\1:PORT", _ADDRESS.sub("HOST", text))
    return _SECRET.sub("SECRET", _PATH.sub("PATH", _OBJECT.sub("0x...", text)))


def complaints(notebook: dict[str, Any]) -> list[str]:
    """What is in the kept outputs and should not be."""
    found = []
    for number, cell in enumerate(notebook["cells"]):
        for output in cell.get("outputs", ()):
            found += [f"cell {number}: {each}" for each in _complaints_of(output)]
    return found


def _complaints_of(output: dict[str, Any]) -> Iterator[str]:
    if output["output_type"] == "error":
        yield f"an error: {output['ename']}"
        return
    if output.get("name") in _NOT_KEPT:
        yield "standard error"
    data = output.get("data", {"text/plain": output.get("text", "")})
    for kind, content in data.items():
        text = _text(content)
        if kind.startswith("image/"):
            if len(text) * 3 // 4 > MAX_IMAGE_BYTES:
                yield f"an image of {len(text) * 3 // 4:,} bytes"
        elif len(text) > MAX_TEXT_BYTES:
            yield f"{kind} of {len(text):,} bytes"
        for what in (_ADDRESS, _PORT, _SECRET, _PATH) if kind in _TEXTS else ():
            if match := what.search(text):
                yield f"it names {match[0]!r}"


def _text(content: str | list[str]) -> str:
    return content if isinstance(content, str) else "".join(content)
