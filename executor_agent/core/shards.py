"""Which items of a list are whose: every member that trains takes every n-th one.

PURE. All members come to the same answer from the same list, without a word to each other.
"""

from collections.abc import Iterable, Set
from itertools import islice
from typing import TypeVar

from executor_agent.core.tf_config import (
    CHIEF,
    EVALUATOR,
    PS,
    WORKER,
    ClusterSpec,
    count_workers,
)

Item = TypeVar("Item")


def place_of(cluster_spec: ClusterSpec, job_name: str, task_index: int) -> tuple[int, int]:
    """Where a member stands among those that train, from 0, and how many of them there are: the
    chief comes first, the workers follow in order.

    Raises:
        ValueError: it does not train, or is not in the cluster.
    """
    if job_name in (PS, EVALUATOR):
        raise ValueError(
            f"a {job_name} does not train, so no share of the items is its own: only the chief and "
            "the workers have one"
        )
    if job_name not in (CHIEF, WORKER):
        raise ValueError(f"{job_name!r} is no role that trains")
    place = task_index + (len(cluster_spec.get(CHIEF, ())) if job_name == WORKER else 0)
    count = count_workers(cluster_spec)
    if not 0 <= task_index < len(cluster_spec.get(job_name, ())):
        raise ValueError(f"there is no {job_name} {task_index} in the cluster")
    return place, count


def share_of(items: Iterable[Item], place: int, count: int) -> list[Item]:
    """Every `count`-th item, beginning with the one at `place`, in the order of `items`.

    Raises:
        TypeError: the items have no order that all members agree on, or are the letters of a text.
    """
    if isinstance(items, str | bytes):
        raise TypeError(
            f"{items!r} is one item, not a list of them: put it in a list, or give it to ctx.fetch"
        )
    # dict.keys() is a Set too, but goes in the order of insertion.
    if isinstance(items, Set) and not isinstance(items, type({}.keys()) | type({}.items())):
        raise TypeError(
            "a set goes in another order in every process, so that members would take the same "
            "items: give sorted(items)"
        )
    return list(islice(items, place, None, count))
