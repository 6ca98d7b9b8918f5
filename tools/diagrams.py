"""Writes the state diagrams into ARCHITECTURE.md, from the tables that the core follows.

python tools/diagrams.py            # between the markers in ARCHITECTURE.md
python tools/diagrams.py --check    # exit 1 when they are stale or a marker is missing
python tools/diagrams.py --print    # to look at
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # works from a checkout that is not installed, too

from coordinator.core import transitions  # noqa: E402 - needs the path

DOCUMENT = ROOT / "ARCHITECTURE.md"


def diagrams() -> dict[str, str]:
    """The name of each generated block, and what belongs into it."""
    tables = {
        "run-states": transitions.RUN_TRANSITIONS,
        "member-states": transitions.MEMBER_TRANSITIONS,
    }
    return {
        name: f"```mermaid\n{transitions.mermaid(table)}\n```" for name, table in tables.items()
    }


def with_diagrams(text: str) -> tuple[str, list[str]]:
    """The document with fresh diagrams, and the names of the blocks that it has no place for."""
    homeless = []
    for name, diagram in diagrams().items():
        block = re.compile(
            rf"(<!-- generated: {name} -->\n).*?(<!-- end generated -->)", flags=re.DOTALL
        )
        text, count = block.subn(lambda found, d=diagram: f"{found[1]}{d}\n{found[2]}", text)
        if count != 1:
            homeless.append(name)
    return text, homeless


def main(arguments: list[str]) -> int:
    if arguments not in ([], ["--check"], ["--print"]):
        print(__doc__, file=sys.stderr)
        return 2
    if arguments == ["--print"]:
        print("\n\n".join(f"{name}\n{diagram}" for name, diagram in diagrams().items()))
        return 0
    if not DOCUMENT.exists():
        print(f"{DOCUMENT} does not exist", file=sys.stderr)
        return 1
    old = DOCUMENT.read_text()
    new, homeless = with_diagrams(old)
    for name in homeless:
        print(
            f"{DOCUMENT.name} must have exactly one block of <!-- generated: {name} --> and "
            "<!-- end generated -->, each on a line of its own",
            file=sys.stderr,
        )
    if homeless:
        return 1
    if arguments == ["--check"]:
        if new != old:
            print(f"{DOCUMENT.name} is stale: run python tools/diagrams.py", file=sys.stderr)
        return int(new != old)
    DOCUMENT.write_text(new)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
