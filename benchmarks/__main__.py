"""``python -m benchmarks [FIGURE ...]``: measure, show, and keep what was measured."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from rich.console import Console

from benchmarks import (
    cancel,
    crash,
    durable_grants,
    event_files,
    feed,
    feed_scaling,
    gang_formation,
    heartbeats,
    ingest,
    kill_latency,
    kill_others,
    leases,
    machine,
    random_kills,
    recovery,
    report,
    restart,
    soak,
    startup,
)
from benchmarks.figure import Figure, Result, Settings

FIGURES: dict[str, Figure] = {
    figure.name: figure
    for figure in (
        startup.FIGURE,
        gang_formation.FIGURE,
        crash.FIGURE,
        kill_latency.FIGURE,
        kill_others.FIGURE,
        cancel.FIGURE,
        leases.FIGURE,
        heartbeats.FIGURE,
        durable_grants.FIGURE,
        restart.FIGURE,
        recovery.FIGURE,
        random_kills.FIGURE,
        soak.FIGURE,
        feed.FIGURE,
        feed_scaling.FIGURE,
        event_files.FIGURE,
        ingest.FIGURE,
    )
}
"""Every figure there is. A new one: a module with a FIGURE, and its name here."""

DOCUMENT = Path(__file__).parents[1] / "docs" / "benchmarks.md"


def main(argv: list[str] | None = None) -> int:
    """0: measured, whatever came out. 1: something was found wrong while measuring."""
    options = _parser().parse_args(argv)
    console = Console()
    if not console.is_terminal:  # a log: do not squeeze the tables into 80 columns
        console.width = 120
    is_sound = True
    for figure in options.figures or FIGURES.values():
        console.print(
            f"[bold]{figure.name}[/bold]: {figure.summary}", highlight=False, soft_wrap=True
        )
        settings = Settings(
            repeats=options.repeats or figure.repeats,
            console=console,
            members=options.members or 0,
            minutes=options.minutes or 0.0,
            tls=options.tls,
        )
        result, facts = _measure(figure, settings)
        report.show(console, figure, result, facts)
        if not options.no_report:
            report.write(options.report, figure, result, facts)
            console.print(
                f"written to {options.report}", markup=False, highlight=False, soft_wrap=True
            )
        is_sound = is_sound and result.is_sound
    return 0 if is_sound else 1


def _measure(figure: Figure, settings: Settings) -> tuple[Result, dict[str, str]]:
    before = machine.load()
    began_at = time.monotonic()
    result = figure.measure(settings)
    minutes = (time.monotonic() - began_at) / 60
    facts = {
        "measured": f"{time.strftime('%Y-%m-%d %H:%M', time.gmtime())} UTC, in {minutes:.1f} min",
        **machine.facts(),
        **result.machine,
        "load average": f"{before} before, {machine.load()} after",
    }
    return result, facts


def _parser() -> argparse.ArgumentParser:
    listed = "\n".join(f"  {figure.name:16}{figure.summary}" for figure in FIGURES.values())
    defaults = ", ".join(f"{figure.name} {figure.repeats}" for figure in FIGURES.values())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure on this machine what tflease promises in numbers.",
        epilog=f"figures:\n{listed}\n\nNeeds Java 17; `make bench` sees to that.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "figures", nargs="*", type=_figure, metavar="FIGURE", help="what to measure (default: all)"
    )
    parser.add_argument(
        "--repeats",
        type=_positive,
        metavar="N",
        help=f"how often each case is measured (default: {defaults})",
    )
    parser.add_argument(
        "--members",
        type=_positive,
        metavar="N",
        help="how many members, where a figure can have more or fewer (default: as promised)",
    )
    parser.add_argument(
        "--minutes",
        type=_minutes,
        metavar="N",
        help=f"how long the soak goes on (default: {soak.MINUTES:g})",
    )
    parser.add_argument(
        "--tls", action="store_true", help="heartbeats over mutual TLS instead of plain text"
    )
    parser.add_argument(
        "--report",
        type=Path,
        default=DOCUMENT,
        metavar="PATH",
        help="the document that gets the result (default: docs/benchmarks.md)",
    )
    parser.add_argument("--no-report", action="store_true", help="only show the result")
    return parser


def _figure(name: str) -> Figure:
    if name not in FIGURES:
        raise argparse.ArgumentTypeError(f"{name!r} is none of: {', '.join(FIGURES)}")
    return FIGURES[name]


def _positive(text: str) -> int:
    number = int(text) if text.isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 up")
    return number


def _minutes(text: str) -> float:
    try:
        minutes = float(text)
    except ValueError:
        minutes = 0.0
    if not 0.0 < minutes < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of minutes above 0")
    return minutes


if __name__ == "__main__":
    sys.exit(main())
