"""What `recovery` has measured, and what it means: its tables, its notes and its verdict."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks import machine
from benchmarks.figure import Result, Table
from benchmarks.recovery_watch import Recovery
from benchmarks.spread import in_order, median_and_worst, verdict_on
from benchmarks.startup_result import Imports

BOUND = 3.0
"""Seconds. What was promised: so much beyond four imports at once by hand, in the median."""

BEYOND = {"process exit": 0.2, "agent silent": 1.0, "stall": 5.0}
"""Seconds beyond the setting that each waits for. Promised for the first two; a stall is known
when the stacks are there, for which the coordinator waits 5 s at most."""

STEPS = {
    "known": "detect: the coordinator knows of the end",
    "decided": "stop: all members are proven gone, and the policy has chosen",
    "forked": "wait: the last of the new processes is there",
    "ready": "import: all have imported TensorFlow and say so",
    "entered": "enter: main_fun is entered on the last",
}
"""In their order."""


@dataclass(frozen=True, slots=True)
class Detection:
    """``seconds`` from what went wrong until it was known; ``setting``: those that a setting of the
    product makes of it. ``told``: of a stall, who is blamed and where it stands."""

    what: str
    seconds: float
    setting: float
    was_quiet: bool
    told: str = ""

    @property
    def beyond(self) -> float:
        """What is not the setting's."""
        return self.seconds - self.setting


def result(
    recoveries: Sequence[Recovery],
    imports: Sequence[Imports],
    detections: Sequence[Detection],
    left: Sequence[str],
    stall: float,
    java: str,
) -> Result:
    """The tables and the verdict."""
    beyond = median(each.entered for each in recoveries) - median(each.gone for each in imports)
    unnamed = [each for each in detections if each.what == "stall" and "worker:0" not in each.told]
    busy = sum(not each.was_quiet for each in (*recoveries, *imports, *detections))
    total = len(recoveries) + len(imports) + len(detections)
    return Result(
        what=(
            "From SIGKILL of the TensorFlow process of one of 4 members, grace 0, to main_fun "
            "entered again on all of them with TensorFlow imported, against 4 imports of "
            "TensorFlow at once by hand; and from what goes wrong until it is known."
        ),
        tables=(
            _compared(recoveries, imports),
            account(recoveries),
            _detected(detections),
            Table(
                "Every restart, sorted",
                ("main_fun entered on all", "by hand: gone"),
                (
                    (
                        in_order([each.entered for each in recoveries], 2),
                        in_order([each.gone for each in imports], 2),
                    ),
                ),
            ),
        ),
        notes=(
            "One run on a local-cluster of 2 executors with 2 cores each, restarted once for each "
            "kill, in place: the Spark tasks stay. The victim is chosen by chance; kills and "
            "imports by hand take turns.",
            "Agent silent: agent and sentinel are stopped (SIGSTOP); beats come every 5 s, so that "
            "up to so much of the liveness time may have passed before. Stall: one member makes a "
            f"step and then none for {stall:g} s; until the driver sees the failure, with stacks.",
            machine.settling("measurement", busy, total),
            "Afterwards the processes of the machine were searched for what the restarted run "
            f"left: {len(left)} found.",
            *(f"LEFT BEHIND: {line}" for line in left),
            *(f"WRONG: a stall blames nobody: {each.told}" for each in unnamed),
        ),
        verdict="; ".join(
            (
                f"at most {BOUND:g} s beyond the imports by hand, in the median: "
                f"{verdict_on(beyond, BOUND)} ({beyond:+.2f} s)",
                *_verdicts(detections),
            )
        ),
        is_sound=not left and not unnamed,
        machine={"Java": java},
    )


def _verdicts(detections: Sequence[Detection]) -> list[str]:
    said = []
    for what, bound in BEYOND.items():
        worst = max((each.beyond for each in detections if each.what == what), default=math.nan)
        setting = next((each.setting for each in detections if each.what == what), 0.0)
        limit = f"{setting + bound:g} s" if setting else f"{bound * 1000:g} ms"
        said.append(
            f"{what} known within {limit}: {verdict_on(worst, bound)} "
            f"(worst {setting + worst:.2f} s)"
        )
    return said


def _compared(recoveries: Sequence[Recovery], imports: Sequence[Imports]) -> Table:
    by_hand = median(each.gone for each in imports)
    rows = []
    for name, values in (
        ("main_fun entered again on all", [each.entered for each in recoveries]),
        ("by hand: all 4 processes gone", [each.gone for each in imports]),
    ):
        difference = f"{median(values) - by_hand:+.2f}"
        rows.append((name, *median_and_worst(values, 2), difference, str(len(values))))
    return Table(
        "Seconds",
        ("", "median", "worst", "beyond by hand, in medians", "measured"),
        tuple(rows),
    )


def account(recoveries: Sequence[Recovery]) -> Table:
    """Where the time of a restart goes. A moment that no picture had is left out of its step and of
    the next one, not guessed."""
    rows, before = [], dict.fromkeys(range(len(recoveries)), 0.0)
    for name, text in STEPS.items():
        at = {number: getattr(each, name) for number, each in enumerate(recoveries)}
        seen = [value for value in at.values() if math.isfinite(value)]
        steps = [
            value - before[number]
            for number, value in at.items()
            if math.isfinite(value) and math.isfinite(before[number])
        ]
        cells = (
            f"{median(seen):.2f}" if seen else "",
            *(median_and_worst(steps, 2) if steps else ("", "")),
            str(len(steps)),
        )
        rows.append((text, *cells))
        before = at
    return Table(
        "Where the time of a restart goes, seconds in medians where nothing else is said",
        ("", "since the kill", "step", "worst step", "seen"),
        tuple(rows),
    )


def _detected(detections: Sequence[Detection]) -> Table:
    rows = []
    for what in BEYOND:
        found = [each for each in detections if each.what == what]
        if found:
            rows.append(
                (
                    what,
                    f"{found[0].setting:g}",
                    *median_and_worst([each.seconds for each in found], 3),
                    str(len(found)),
                )
            )
    return Table(
        "Seconds until it is known",
        ("", "of which a setting", "median", "worst", "measured"),
        tuple(rows),
    )
