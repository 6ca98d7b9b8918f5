"""Whether a member that has ended is started once more in the same Spark task. PURE.

A gang that is restarted forms the quicker the less of it Spark has to seat anew. Each further
incarnation costs a slot that the coordinator has granted, and so is bounded by its budget.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

_NEVER = ("completed", "preempted")
"""Causes that no policy makes a restart in place: there is nothing left to do, or no place."""

_ON_ITS_GPUS = "GPU lost"


@dataclass(frozen=True, slots=True)
class LastWords:
    """What an incarnation's agent has left behind for the task.

    ``had_slot``: it was granted. ``is_to_follow``: the coordinator stopped it so that another
    attempt can follow. ``told``: the cause (a value of ``Cause``) that the coordinator has
    acknowledged; empty: it does not know of the end, and the task's row has to tell it.
    ``ports``: TensorFlow's, and the feed's where there is one.
    """

    had_slot: bool = False
    is_to_follow: bool = False
    told: str = ""
    ports: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Predecessor:
    """Who had the slot before, in the same task."""

    incarnation: str
    ports: tuple[int, ...] = ()


def has_successor(
    words: LastWords,
    restart_causes: Collection[str],
    *,
    is_proven_gone: bool,
    is_wanted: bool,
    has_assigned_gpus: bool = False,
) -> bool:
    """``restart_causes``: values of ``Cause``; without any, nothing is ever restarted here.
    ``is_proven_gone``: nothing of the member is left. ``is_wanted``: Spark waits for the task.
    ``has_assigned_gpus``: the task has GPUs of Spark, and gets no others."""
    if not (restart_causes and is_wanted and is_proven_gone and words.had_slot and words.told):
        return False
    if words.told == _ON_ITS_GPUS and has_assigned_gpus:
        return False  # elsewhere it may get better ones
    if words.is_to_follow:
        return True  # however it took the stop
    return words.told in restart_causes and words.told not in _NEVER
