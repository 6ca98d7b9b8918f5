"""All rows, in an order in which neighbours share an application where they can."""

from __future__ import annotations

from tests.chaos.row import Row
from tests.chaos.rows_driver import CANCELS, DRIVER_ENDS
from tests.chaos.rows_executor import EXECUTOR_ANCHOR, EXECUTORS, MEMBERS, TASKS
from tests.chaos.rows_standalone import STANDALONE_ROWS
from tests.chaos.rows_supervision import GAP, HANGS, PAIRS, SUPERVISORS, SWEEPS
from tests.chaos.rows_tensorflow import TENSORFLOW_ENDS, TENSORFLOW_ROWS

ROWS: tuple[Row, ...] = (
    *MEMBERS,
    *TASKS,
    *CANCELS,
    *SUPERVISORS,
    *PAIRS,
    *EXECUTORS,
    *EXECUTOR_ANCHOR,
    *HANGS,
    *TENSORFLOW_ROWS,
    *SWEEPS,
    *GAP,
    *DRIVER_ENDS,
    *TENSORFLOW_ENDS,
    *STANDALONE_ROWS,
)
