"""A worker is killed in the middle of an epoch, and the gang starts again: each row is counted."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from coordinator import (
    FeedReport,
    InputMode,
    RestartPolicy,
    Roles,
    TFCluster,
    TrainingFailed,
)
from coordinator.core.model import Cause, MemberPhase
from tests.spark.helpers import DEADLINE, eventually, member_process_of

ROWS, PARTITIONS, BATCH = 1200, 24, 10


def take_slowly(args: Any, ctx: Any) -> None:
    """Writes down each row before it asks for more; the first generation stands still at a gate."""
    import json
    import time
    from pathlib import Path

    folder = Path(args["folder"])
    with (folder / f"{ctx.generation}-{ctx.task_index}").open("w") as found:
        first = ctx.first_epoch()
        options = {"equal_steps": args["equal"]}
        for step, batch in enumerate(ctx.feed_batches(args["batch"], **options), start=1):
            found.write(json.dumps([first, [int(each) for each in batch["id"]]]) + "\n")
            found.flush()
            ctx.report_progress(step)
            while ctx.generation == 1 and step == args["pause_at"] and not ctx.should_stop:
                time.sleep(0.02)


class Fed:
    """A cluster that is fed, and what its members wrote down."""

    def __init__(self, cluster: TFCluster, folder: Path) -> None:
        self.cluster = cluster
        self._folder = folder

    def kill(self, member: str = "worker:1") -> None:
        member_process_of(self.cluster.run_id, member).kill()

    def counts(self, generation: int | None = None) -> Counter[int]:
        """How often each row was read."""
        found: Counter[int] = Counter()
        for path in self._folder.glob(f"{generation or '*'}-*"):
            for line in path.read_text().splitlines():
                found.update(json.loads(line)[1])
        return found

    def used(self) -> list[float]:
        """Rows that each member tells it has done with."""
        members = self.cluster.status().members
        return [float(each.metrics.get("feed/input/used", 0)) for each in members]

    def train(self, frame: Any, **more: Any) -> tuple[threading.Thread, list[FeedReport]]:
        reports: list[FeedReport] = []
        feeding = threading.Thread(
            target=lambda: reports.append(self.cluster.train(frame, **more)), daemon=True
        )
        feeding.start()
        return feeding, reports


@contextmanager
def fed(
    spark: Any, folder: Path, *, pause_at: int, restarts: int = 2, **args: Any
) -> Iterator[Fed]:
    plain = {"folder": str(folder), "batch": BATCH, "pause_at": pause_at, "equal": False, **args}
    with TFCluster.run(
        spark,
        take_slowly,
        plain,
        roles=Roles(worker=2),
        input_mode=InputMode.SPARK,
        restart=RestartPolicy(max_restarts=restarts),
        reservation_timeout=120.0,
        grace={"worker": 1.0},
        preload=(),
        progress=False,
    ) as cluster:
        yield Fed(cluster, folder)


@pytest.mark.parametrize("equal", [False, True])
@pytest.mark.parametrize("mode", ["resume", "repeat"])
def test_an_epoch_outlives_its_gang(spark: Any, tmp_path: Path, mode: str, equal: bool) -> None:
    """O1: all rows come in the end, and those that come twice are no more than is said."""
    frame = spark.range(0, ROWS, 1, PARTITIONS)
    with fed(spark, tmp_path, pause_at=31, equal=equal) as run:
        feeding, reports = run.train(frame, on_restart=mode)
        eventually(lambda: min(run.used()) >= 250, "both to have read half of their rows")
        run.kill()
        feeding.join(3 * DEADLINE)
        assert reports, "train has not come back"
        report = reports[0]
        run.cluster.wait(DEADLINE)
        [restart] = run.cluster.status().restarts
    assert restart.cause is Cause.KILLED_BY_SIGNAL
    counts, second = run.counts(), run.counts(2)
    assert max(counts.values()) <= 2
    assert ROWS - len(counts) <= report.left_out < 2 * BATCH
    [epoch] = report.epochs
    assert (epoch.number, epoch.rows) == (1, ROWS)
    sent_again = sum(second.values()) + report.left_out
    assert report.delivery.startswith(f"at least once: {sent_again:,} rows")
    twice = sum(1 for count in counts.values() if count == 2)
    assert twice <= sent_again
    if mode == "repeat":
        assert sent_again == ROWS
    else:
        assert sent_again <= ROWS - 400, "what was read to its end has come again"


def test_a_job_that_was_cut_short_has_brought_home_what_was_delivered(
    spark: Any, tmp_path: Path
) -> None:
    """F3: with feeders at work, and most of them waiting for room."""
    frame = spark.range(0, 60, 1, 30).selectExpr("id", "cast(repeat('x', 4000000) as binary) as x")
    with fed(spark, tmp_path, pause_at=6, batch=2) as run:
        feeding, reports = run.train(frame, num_epochs=2)
        eventually(lambda: min(run.used()) >= 8, "rows that are read")
        run.kill()
        feeding.join(3 * DEADLINE)
        run.cluster.wait(DEADLINE)
        assert reports, "train has not come back"
    counts = run.counts()
    assert set(counts) == set(range(60))
    assert min(counts.values()) >= 2
    first, second = reports[0].epochs
    assert (first.rows, second.rows) == (60, 60)
    assert (first.again, second.again) == (sum(run.counts(2).values()) - 60, 0)
    assert first.again < 60, "what was read to its end has come again"


def test_a_gang_that_fails_after_the_last_row_comes_to_its_end(spark: Any, tmp_path: Path) -> None:
    """Its datasets are over: nobody will fill them again."""

    def read_then_work(args: Any, ctx: Any) -> int:
        rows = sum(len(batch["id"]) for batch in ctx.feed_batches(args["batch"]))
        ctx.report_progress(rows)
        if ctx.generation == 1:
            ctx.wait_for_stop(600.0)
        return rows

    with TFCluster.run(
        spark,
        read_then_work,
        {"batch": BATCH},
        roles=Roles(worker=2),
        input_mode=InputMode.SPARK,
        restart=RestartPolicy(max_restarts=2),
        grace={"worker": 1.0},
        preload=(),
        progress=False,
    ) as cluster:
        assert cluster.train(spark.range(0, 400, 1, 4)).delivery == "exactly once"
        member_process_of(cluster.run_id, "worker:1").kill()
        result = cluster.wait(3 * DEADLINE)
    assert result.returned == {"worker:0": 0, "worker:1": 0}


def test_the_last_restart_spent_is_a_failure_with_its_first_cause(
    spark: Any, tmp_path: Path
) -> None:
    """Each generation is killed before it has read anything more than the one before."""

    def never_read(args: Any, ctx: Any) -> None:
        ctx.wait_for_stop(600.0)

    with TFCluster.run(
        spark,
        never_read,
        roles=Roles(worker=2),
        input_mode=InputMode.SPARK,
        restart=RestartPolicy(max_restarts=1),
        grace={"worker": 0.0},
        preload=(),
        progress=False,
    ) as cluster:

        def at_work(generation: int) -> bool:
            run = cluster.status()
            entered = all(each.phase is MemberPhase.RUNNING for each in run.members)
            return run.generation == generation and entered

        def kill_twice() -> None:
            for generation in (1, 2):
                eventually(partial(at_work, generation), "the gang")
                member_process_of(cluster.run_id, "worker:1").kill()

        killing = threading.Thread(target=kill_twice, daemon=True)
        killing.start()
        with pytest.raises(TrainingFailed, match="after 1 restart") as caught:
            cluster.train(spark.range(0, 10**9, 1, 10))
        killing.join(DEADLINE)
    assert caught.value.failure is not None
    assert caught.value.failure.cause is Cause.KILLED_BY_SIGNAL
