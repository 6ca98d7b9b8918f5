"""E6: nobody is stopped whom somebody else still needs; the last file is written and seen.

The chief of a cluster with parameter servers takes two seconds to save at the end. Until it has,
the parameter server serves; the evaluator sees the file before it goes; the parameter server goes
last.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from coordinator import Roles, RunCancelled, TFCluster
from examples.process_watch import ProcessWatch, Watched
from tests.spark.helpers import eventually, member_process_of

MEMBERS = ("chief:0", "worker:0", "ps:0", "evaluator:0")
ROLES = Roles(chief=1, worker=1, ps=1, evaluator=1)


def main_fun(args: Any, ctx: Any) -> str:
    """Trains nothing, but ends as a training does."""
    import time

    folder = Path(args["folder"])
    (folder / f"{ctx.job_name}.pid").write_text(str(os.getpid()))
    if ctx.job_name == "evaluator":
        ctx.wait_for_stop()  # the last look is what matters here
        seen = [path.name for path in folder.glob("step-*")]
        (folder / "seen.json").write_text(json.dumps(seen))
        return "looked"
    if ctx.job_name != "chief":
        ctx.wait_for_stop()
        return "served"
    while not (folder / "finish").exists() and not ctx.should_stop:
        time.sleep(0.02)
    ps = int((folder / "ps.pid").read_text())
    alive = []
    with (folder / "half").open("w") as file:
        for number in range(20):  # a slow disk
            time.sleep(0.1)
            file.write(f"{number}\n")
            stat = Path(f"/proc/{ps}/stat")
            # A zombie would be gone for whoever wants a variable of it.
            alive.append(stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z")
    (folder / "alive.json").write_text(json.dumps(alive))
    os.replace(folder / "half", folder / "step-2")
    return "saved"


@pytest.mark.parametrize("ending", ["the chief is done", "the run is stopped"])
def test_the_ps_serves_until_the_chief_has_saved_and_the_evaluator_sees_the_last_file(
    spark: Any, tmp_path: Path, ending: str
) -> None:
    (tmp_path / "step-1").touch()
    with TFCluster.run(
        spark,
        main_fun,
        {"folder": str(tmp_path)},
        roles=ROLES,
        preload=(),
        progress=False,
        reservation_timeout=120.0,
        # Only an upper bound: nobody here takes more than it needs.
        grace={"chief": 60.0, "evaluator": 60.0, "worker": 60.0},
    ) as cluster:
        eventually(lambda: len(list(tmp_path.glob("*.pid"))) == 4, "all to have entered")
        with ProcessWatch(
            Watched.now(member_process_of(cluster.run_id, member).pid, member) for member in MEMBERS
        ) as watch:
            if ending == "the run is stopped":
                cluster.stop("enough of it")
                with pytest.raises(RunCancelled):
                    cluster.wait(120)
            else:
                (tmp_path / "finish").touch()
                assert cluster.wait(120)["chief:0"] == "saved"
            cluster.shutdown()
            ended = [each.part for each in watch.stop()]
    alive = json.loads((tmp_path / "alive.json").read_text())
    assert alive == [True] * 20
    assert len((tmp_path / "step-2").read_text().splitlines()) == 20
    assert set(json.loads((tmp_path / "seen.json").read_text())) == {"step-1", "step-2"}
    # Chief and worker are stopped together; a chief that is done goes first.
    assert set(ended[:2]) == {"chief:0", "worker:0"}
    assert ended[2:] == ["evaluator:0", "ps:0"]
    if ending == "the chief is done":
        assert ended[0] == "chief:0"
