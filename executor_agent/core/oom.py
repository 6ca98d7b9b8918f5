"""Whether a member was killed for want of memory."""

from __future__ import annotations

from typing import Literal

Oom = Literal["yes", "no", "unknown"]


def judge_oom(signal: int | None, killed_by_us: bool, before: int | None, after: int | None) -> Oom:
    """What the memory cgroup's counter of out-of-memory kills says about this end.

    The counter is shared by everything in the executor's container, so a rise alone convicts only
    an end by a SIGKILL that we did not send.
    """
    unexplained_kill = signal == 9 and not killed_by_us
    if before is None or after is None:
        return "unknown" if unexplained_kill else "no"
    if after <= before:
        return "no"
    return "yes" if unexplained_kill else "unknown"
