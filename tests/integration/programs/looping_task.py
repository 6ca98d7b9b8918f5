"""The Spark task's part in a process of its own: it can be interrupted and killed.

argv: a file with the pickled ``MemberTask``, the member's name, the incarnation. Says its row
without the result as one JSON line, or "interrupted".
"""

from __future__ import annotations

import json
import pickle
import sys
from pathlib import Path

from executor_agent.spark_task import MemberTask


def main() -> None:
    path, member, incarnation = sys.argv[1:]
    task: MemberTask = pickle.loads(Path(path).read_bytes())
    try:
        row = task._run(member, incarnation, 1)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
    else:
        print(json.dumps({**row, "result": None}), flush=True)


main()
