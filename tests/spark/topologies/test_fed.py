"""Members that leave no slot on executors of one slot each: they are fed all the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from coordinator import InputMode, Roles, TFCluster
from tests.spark.application import application
from tests.spark.helpers import marked


def test_members_on_all_slots_leave_them_to_the_feeders(tmp_path: Path) -> None:
    """F5: the anchor is chosen by itself; each executor has its member and feeders in turn."""
    with application("local-cluster[2,1,1024]", executors=2) as driver:
        found = driver.call(feed, str(tmp_path))
    assert found["rows"] == 3 * 1000
    assert found["steps"] == [1000 // 32] * 3
    assert found["members"] == ["worker:0", "worker:1"], "both were fed"
    assert sorted(found["taken"]) == [3 * (1000 // 32) * 16] * 2
    assert found["left"] == []


def feed(spark: Any, folder: str) -> dict[str, Any]:
    """In the application's driver. With this anchor nothing comes back but files."""

    def take(args: Any, ctx: Any) -> None:
        import json
        from pathlib import Path

        ids = [int(each) for batch in ctx.feed_batches(16) for each in batch["id"]]
        Path(args, str(ctx.task_index)).write_text(json.dumps(ids))

    with TFCluster.run(
        spark,
        take,
        folder,
        roles=Roles(worker=2),
        input_mode=InputMode.SPARK,
        preload=(),
        progress=False,
        reservation_timeout=90.0,
    ) as cluster:
        report = cluster.train(spark.range(0, 1000, 1, 5), num_epochs=3)
        cluster.wait(60)
    assert isinstance(report.epochs, tuple)
    return {
        "rows": report.rows,
        "steps": [epoch.steps for epoch in report.epochs],
        "members": sorted(report.epochs[0].members),
        "taken": [len(json.loads(Path(folder, str(index)).read_text())) for index in range(2)],
        "left": [str(process) for process in marked(cluster.run_id)],
    }
