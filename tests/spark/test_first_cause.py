"""E2 on real TensorFlow: of several failing members the culprit is raised, the others attached.

With collectives an innocent raises first: 30 ms after a peer's crash, sometimes before that crash
is seen; ten seconds after a peer has frozen, which nobody else notices at all.
"""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest

from coordinator import Roles, TFCluster, TrainingFailed
from coordinator.core.model import Cause, Failure
from tests.spark.helpers import eventually, marked, member_process_of

pytestmark = [pytest.mark.tensorflow, pytest.mark.timeout(240)]


def reduce_for_ever(args: Any, ctx: Any) -> None:
    """Two workers that cannot take a step without each other, and look at nothing else."""
    import tensorflow as tf

    strategy = tf.distribute.MultiWorkerMirroredStrategy()

    @tf.function
    def step():
        return strategy.run(lambda: tf.distribute.get_replica_context().all_reduce("sum", 1.0))

    done = 0
    while True:
        step()
        done += 1
        ctx.report_progress(done)


def failure_after(spark: Any, number: signal.Signals) -> Failure:
    """Two workers reduce; worker 1's process gets a signal in the middle of it."""
    with TFCluster.run(
        spark, reduce_for_ever, roles=Roles(worker=2), progress=False, reservation_timeout=120
    ) as cluster:

        def both_reduce() -> bool:
            return all(member.step > 3 for member in cluster.status().members)

        eventually(both_reduce, "both workers to take steps")
        os.kill(member_process_of(cluster.run_id, "worker:1").pid, number)
        with pytest.raises(TrainingFailed) as caught:
            cluster.wait(120)
        print(caught.value)  # for whoever looks at a failed test
    assert not marked(cluster.run_id)
    assert caught.value.failure is not None
    return caught.value.failure


def test_of_a_crash_and_the_error_that_it_causes_the_crash_is_raised(spark: Any) -> None:
    """E2"""
    failure = failure_after(spark, signal.SIGKILL)
    assert failure.cause is Cause.KILLED_BY_SIGNAL
    assert str(failure.member) == "worker:1"
    assert "worker:1 on " in failure.summary
    assert failure.exit is not None
    assert not failure.exit.killed_by_us
    # Worker 0 raises 30 ms after the crash, unless the run has ended it by then.
    assert all("worker:0" in other and "lost a peer" in other for other in failure.others)


def test_who_froze_is_raised_though_only_the_others_complained(spark: Any) -> None:
    """E2, E5: the frozen process says nothing, and its agent beats all the while."""
    failure = failure_after(spark, signal.SIGSTOP)
    assert failure.cause is Cause.STALLED
    assert str(failure.member) == "worker:1"
    assert "stuck or frozen" in failure.summary
    assert failure.exit is not None
    assert failure.exit.log_tail
    assert any("worker:0" in other and "lost a peer" in other for other in failure.others)
