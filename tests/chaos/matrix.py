"""Runs rows one after the other; a row that fails does not stop the others."""

from __future__ import annotations

import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos import memory, proc, trial
from tests.chaos.proc import Process
from tests.chaos.row import Row
from tests.chaos.stage import MARK, Stages
from tests.chaos.trial import Outcome
from tests.spark.helpers import eventually

_STOOD_BY = "import signal; signal.pause()"


@dataclass
class RowResult:
    """What came of a row's repetitions."""

    row: Row
    outcomes: list[Outcome] = field(default_factory=list)
    obstacle: str = ""
    seconds: float = 0.0

    @property
    def times(self) -> list[float]:
        return [each.gone for each in self.outcomes if each.gone is not None]

    @property
    def sweeps(self) -> list[float]:
        return [each.sweep for each in self.outcomes if each.sweep is not None]

    @property
    def survivors(self) -> list[str]:
        return [name for each in self.outcomes for name in each.survivors]

    @property
    def errors(self) -> list[str]:
        return [each.error for each in self.outcomes if each.error]

    @property
    def harmed(self) -> list[str]:
        return [name for each in self.outcomes for name in each.harmed]

    @property
    def is_sound(self) -> bool:
        """Whether all is as it must be; what is not possible here is no failure."""
        return not (self.errors or self.harmed or self.unexpected)

    @property
    def unexpected(self) -> list[str]:
        """Survivors that must not be: in the known gap the hidden helper may."""
        if self.row.expects != "gap":
            return self.survivors
        return [name for name in self.survivors if "helper (hidden)" not in name]

    @property
    def closed_by(self) -> str:
        if self.row.expects == "gap" and self.survivors:
            return "gap"
        found = {each.closed_by: None for each in self.outcomes if each.closed_by}
        return " / ".join(found)

    def timing(self) -> str:
        if not self.times:
            return "-"
        return f"{statistics.median(self.times):.0f} / {max(self.times):.0f}"


def run(
    rows: Sequence[Row], repeats: int | None, tell: Callable[[RowResult], None]
) -> list[RowResult]:
    """All rows, in the order given; ``tell`` hears of each when it is done."""
    results = []
    with _workplace() as folder, _innocents(folder) as innocents:
        stages = Stages(folder)
        try:
            for row in rows:
                result = _run_row(stages, row, repeats or row.repeats, folder, innocents)
                results.append(result)
                tell(result)
        finally:
            stages.close()
            memory.remove_groups()
    return results


def _run_row(
    stages: Stages, row: Row, repeats: int, folder: Path, innocents: list[Process]
) -> RowResult:
    result = RowResult(row)
    began_at = time.monotonic()
    if row.obstacle is not None:
        result.obstacle = row.obstacle()
    for number in range(0 if result.obstacle else repeats):
        tag = f"chaos-{uuid.uuid4().hex[:12]}"
        try:
            outcome = trial.perform(stages, row, tag, folder / tag, innocents)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            outcome = trial.failed(error)
        if outcome.error or outcome.survivors:
            stages.drop()
        result.outcomes.append(outcome)
        if len(result.errors) > 1 or (number > 1 and len(result.unexpected) > 2):
            break  # it will not get better, and each costs the row's whole patience
    result.seconds = time.monotonic() - began_at
    return result


@contextmanager
def _workplace() -> Iterator[Path]:
    """A folder for everything, the members' directories included."""
    folder = Path(tempfile.mkdtemp(prefix="tflease-chaos-"))
    before = {name: os.environ.get(name) for name in ("TFLEASE_HOME", MARK)}
    os.environ["TFLEASE_HOME"] = str(folder / "home")
    os.environ[MARK] = uuid.uuid4().hex
    try:
        yield folder
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _innocents(folder: Path) -> Iterator[list[Process]]:
    """Processes of the same user that nobody may harm: a plain one, one in a session of its own,
    and a daemon that looks like a member's process and like a sentinel."""
    looks = ("-m", "executor_agent.bootstrap", "--directory", str(folder / "home" / "innocent"))
    sentinel = ("executor_agent.sentinel", "/", "--config-fd", "3")
    script = [sys.executable, "-S", "-E", "-c", _STOOD_BY]
    daemon = [
        sys.executable,
        "-S",
        "-E",
        "-c",
        f"import os\nif os.fork(): os._exit(0)\n{_STOOD_BY}",
    ]
    plain = subprocess.Popen([*script, *looks])
    session = subprocess.Popen([*script, *sentinel], start_new_session=True)
    look_alike = uuid.uuid4().hex
    subprocess.run([*daemon, *looks, look_alike], start_new_session=True, check=True)
    children = (plain, session)
    found = [proc.find(each.pid) for each in children]
    alike = eventually(
        lambda: [e for e in proc.scan().values() if look_alike in e.command], "the daemon", 10
    )
    try:
        yield [*found, alike[0].process]
    finally:
        for process in (*found, alike[0].process):
            proc.send(process, signal.SIGKILL)
        for child in children:
            child.wait()
