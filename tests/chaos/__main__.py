"""``python -m tests.chaos [--row NAME ...]``: kill what can be killed, and see who stays."""

from __future__ import annotations

import argparse
import fnmatch
import os
import signal
import sys
import time
from pathlib import Path

from tests.chaos import matrix, report
from tests.chaos.row import Row
from tests.chaos.rows import ROWS

DOCUMENT = Path(__file__).parents[2] / "docs" / "kill-matrix.md"


def main(argv: list[str] | None = None) -> int:
    """0: nobody survived who must not, and every row was performed, or says why it cannot be here.
    1: otherwise."""
    options = _parser().parse_args(argv)
    rows = _chosen(options.row)
    if options.list:
        for row in rows:
            print(f"{row.name:42} {row.repeats:2} x  {row.what}")
        return 0
    if not rows:
        print("no row has such a name: --list shows them", file=sys.stderr)
        return 1
    # Executors otherwise pick the system's Python, which lacks our dependencies.
    os.environ["PYSPARK_PYTHON"] = os.environ["PYSPARK_DRIVER_PYTHON"] = sys.executable
    if not options.verbose:
        _silence_spark()
    for number in (signal.SIGINT, signal.SIGTERM):  # nothing is left behind then, either
        signal.signal(number, signal.default_int_handler)
    began_at = time.monotonic()
    print(report.console_head(), flush=True)
    results = matrix.run(rows, options.repeats, lambda r: print(report.line(r), flush=True))
    seconds = time.monotonic() - began_at
    print(report.summary(results, seconds))
    whole = not options.row and options.repeats is None
    if not options.no_write and (whole or options.out != DOCUMENT):
        options.out.write_text(report.document(results, seconds, of_all=len(ROWS)))
        print(f"written to {options.out}")
    return 0 if all(result.is_sound for result in results) else 1


def _chosen(patterns: list[str]) -> list[Row]:
    if not patterns:
        return list(ROWS)
    return [row for row in ROWS if any(fnmatch.fnmatch(row.name, each) for each in patterns)]


def _silence_spark() -> None:
    """Its JVMs write to the standard error that they inherit, and they complain a lot here. Ours
    goes on: a duplicate is not inherited."""
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    os.close(null)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument(
        "--row",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME",
        help="only these rows; * and ? stand for what they do in a shell",
    )
    parser.add_argument("--repeats", type=int, help="of every row, instead of its own number")
    parser.add_argument("--list", action="store_true", help="name the rows and end")
    parser.add_argument(
        "--out",
        type=Path,
        default=DOCUMENT,
        help="the document to write; the default one is written only by a run of all rows",
    )
    parser.add_argument("--no-write", action="store_true", help="write no document")
    parser.add_argument("--verbose", action="store_true", help="show what Spark writes")
    return parser  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
