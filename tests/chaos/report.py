"""The results as lines on the console, and as docs/kill-matrix.md."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Sequence

from benchmarks import machine
from tests.chaos.matrix import RowResult
from tests.chaos.sweeping import BOUND

_INTRODUCTION = """\
# Kill matrix

Written by `make chaos`, never by hand. What dies, how, on real Spark executors: after each act a
scan of /proc of the matrix's own, which uses none of the product's code, looks for what is left of
the member: sentinel, agent, the member's process, and its helpers.

    make chaos                                          # all rows
    python -m tests.chaos --list                        # their names
    python -m tests.chaos --row 'sentinel-*' --repeats 3 --no-write
"""

_MEANING = """\
## What the rows mean

- **Programs.** All have helpers: a plain child; one in a session of its own; a daemon forked twice,
  in a session of its own; a process whose group has lost its leader; one with an empty environment;
  and, except where the sentinel itself is killed, a hidden one: a session of its own, an empty
  environment, no inherited descriptor. All helpers ignore SIGTERM, SIGHUP and SIGINT. *stuck*: the
  member ignores them too, and a C call holds the interpreter's lock for ever. *stubborn*: it
  ignores them and being told to stop. *obedient*: it ends on SIGTERM. *polite*: it returns when it
  is told to stop. *ordinary*: it runs until the row lets it end. *TensorFlow server*: it holds
  tensors and serves. *TensorFlow mirrored*: the members of a MultiWorkerMirroredStrategy reduce
  for ever.
- **At once** means that all are stopped before the first is killed, so that none sees another die.
- **Time to gone** counts from the signal or the call to the moment at which the last process of the
  member (of all members, where there are several) was gone, its sentinel and agent included; by
  pidfds that were opened before. A grace and Spark's own delays (it kills a cancelled task after
  2 to 5 s) are in it.
- **Survivors** live on after the row's patience (20 s mostly), are found by a scan once all are
  gone, by another one half a second later, or once the driver has ended the run. They are known by
  a tag in their command line, by the pid files that they write, and by the member's marker.
- **Closed by.** *supervision*: somebody was there to say so in a tombstone. *kernel*: all went
  without one. *sweep*: some stayed until the next agent on the host, or `tflease reap --yes`,
  swept.
  *gap*: the known one. *nobody*: a failure.
- **Who noticed** is what the tombstone says, or else what the driver was told. It is information;
  nothing is judged by it.
- In every row three innocent processes of the same user, which look like a sentinel and like
  a member, must live on; in the rows "beside another run" its member as well.
"""

_GAP = """\
## The known gap

Once the sentinel is SIGKILLed, a helper that has a session of its own, an empty environment and
none of the descriptors it inherited is connected to its member by nothing that the kernel shows to
others. Nobody finds it: closing this takes a PID namespace or a cgroup of the member's own.
"""

_COLUMNS = (
    "row", "what dies, how", "anchor", "program", "topology", "runs", "survivors",
    "gone, median / worst (ms)", "closed by", "who noticed",
)  # fmt: skip


def console_head() -> str:
    return f"{'row':42} {'runs':>4} {'left':>4}  {'gone ms':>15}  {'closed by':12} who noticed"


def line(result: RowResult) -> str:
    """A row on the console, with what was wrong below it."""
    told = [
        f"{result.row.name:42} {len(result.outcomes):4} {len(result.survivors):4}  "
        f"{result.timing():>15}  {result.closed_by:12} {noticed(result)} "
        f"[{result.seconds:.0f} s]"
    ]
    if result.obstacle:
        told.append(f"    not possible here: {result.obstacle}")
    told += [f"    not performed: {each}" for each in result.errors]
    told += [f"    survived: {each}" for each in result.survivors]
    told += [f"    an innocent process was harmed: {each}" for each in result.harmed]
    late = [name for each in result.outcomes for name in each.late]
    told += [f"    found late: {each}" for each in late]
    if result.row.expects != "gone":
        told.append(f"    {sweep_text(result)}")
    return "\n".join(told)


def noticed(result: RowResult) -> str:
    """Most frequent first."""
    words = [each.noticed or each.told for each in result.outcomes if each.noticed or each.told]
    return "; ".join(word[:90] for word, _ in Counter(words).most_common(2))


def sweep_text(result: RowResult) -> str:
    """What the sweep had to do, and how long it took."""
    needed = Counter(name for each in result.outcomes for name in each.before_sweep)
    if not needed:
        return "nothing was left for the sweep"
    who = ", ".join(sorted(needed))
    by = "the next agent" if result.row.sweep == "agent" else "tflease reap"
    if not result.sweeps:
        return f"left before {by}: {who}; not all were gone after it"
    worst = max(result.sweeps)
    bound = "met" if worst <= BOUND else "not met"
    median = statistics.median(result.sweeps)
    return (
        f"left before {by}: {who}; {by} took {median:.0f} / {worst:.0f} ms from its start to "
        f"gone, bound of {BOUND:.0f} ms {bound}"
    )


def summary(results: Sequence[RowResult], seconds: float) -> str:
    """The last lines on the console."""
    wrong = [each.row.name for each in results if not each.is_sound]
    repetitions = sum(len(each.outcomes) for each in results)
    verdict = f"not sound: {', '.join(wrong)}" if wrong else "all as they must be"
    return f"{len(results)} rows, {repetitions} repetitions in {seconds / 60:.1f} min: {verdict}"


def document(results: Sequence[RowResult], seconds: float, of_all: int) -> str:
    """The whole of docs/kill-matrix.md."""
    facts = {
        "measured": f"{time.strftime('%Y-%m-%d %H:%M', time.gmtime())} UTC",
        **machine.facts(),
        "rows": f"{len(results)} of {of_all}",
    }
    table = [_cells(_COLUMNS), _cells(["---"] * len(_COLUMNS)), *map(_row, results)]
    remarks = [f"- **{each.row.name}**: {text}" for each in results for text in _remarks(each)]
    parts = [
        _INTRODUCTION,
        f"**Result:** {summary(results, seconds)}.\n",
        "\n".join(f"- {name}: {value}" for name, value in facts.items()) + "\n",
        "\n".join(table) + "\n",
        "## Remarks\n\n" + ("\n".join(remarks) or "None.") + "\n",
        _MEANING,
        _GAP,
    ]
    return "\n".join(parts)


def _row(result: RowResult) -> str:
    row = result.row
    runs = "not possible here" if result.obstacle else str(len(result.outcomes))
    return _cells(
        (
            row.name, row.what, row.anchor, row.program_text, row.topology, runs,
            str(len(result.survivors)), result.timing(), result.closed_by, noticed(result),
        )
    )  # fmt: skip


def _remarks(result: RowResult) -> list[str]:
    told = [f"not possible here: {result.obstacle}"] if result.obstacle else []
    told += [f"not performed: {each}" for each in dict.fromkeys(result.errors)]
    told += [f"survived: {each}" for each in dict.fromkeys(result.survivors)]
    told += [f"harmed an innocent process: {each}" for each in result.harmed]
    if result.row.expects != "gone" and not result.errors:
        told.append(sweep_text(result))
    return told


def _cells(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
