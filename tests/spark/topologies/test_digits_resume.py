"""The examples go on from their checkpoints: members of one generation are killed, those of the
next one begin where the latest complete checkpoint was taken. Without Spark and coordinator."""

from __future__ import annotations

import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from examples.digits_data import evaluate_saved_model
from examples.digits_fit import fit_or_evaluate
from examples.digits_run import REQUIRED_ACCURACY
from examples.digits_sync import train_in_step
from examples.digits_training import train_digits
from tests.integration.bootstrap_harness import MemberProcess, reserved_port, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.tensorflow, pytest.mark.timeout(240)]

ROOT = Path(__file__).parents[3]
ENV = {"TF_CPP_MIN_LOG_LEVEL": "2", "PYTHONPATH": str(ROOT)}
PATIENCE = 120.0


@contextmanager
def generation(
    folder: Path, number: int, main_fun: Callable[..., Any], roles: list[str], steps: int
) -> Iterator[dict[str, MemberProcess]]:
    """The members of one generation, in ``main_fun``; by names such as "worker0"."""
    places = [(role, roles[:at].count(role)) for at, role in enumerate(roles)]
    with ExitStack() as stack:
        spec: dict[str, list[str]] = {}
        for role in roles:
            spec.setdefault(role, []).append(f"127.0.0.1:{stack.enter_context(reserved_port())}")
        members = {}
        for role, index in places:
            directory = folder / f"{number}-{role}{index}"
            member = MemberProcess(
                directory, main_fun, {"steps": steps}, preload=("tensorflow",), env=ENV
            )
            members[f"{role}{index}"] = stack.enter_context(member)
        for (role, index), member in zip(places, members.values(), strict=True):
            member.expect("ready")
            (member.directory / "local").mkdir()
            member.send_start(
                job_name=role,
                task_index=index,
                cluster_spec=spec,
                generation=number,
                model_dir=str(folder / "model"),
                created_at=1e9,
            )
        for member in members.values():
            threading.Thread(target=drain, args=(member,), daemon=True).start()
        yield members


def wait_for(condition: Callable[[], bool], members: dict[str, MemberProcess]) -> None:
    """Fails with the log of a member that has ended before."""

    def holds() -> bool:
        for member in members.values():
            assert not (member.directory / "outcome.json").exists(), member.log()
        return condition()

    wait_until(holds, PATIENCE)


def drain(member: MemberProcess) -> None:
    """Reads what a member says, so that it never waits for a reader."""
    try:
        while member.channel.receive() is not None:
            pass
    except OSError:  # the test is over
        pass


def kill(members: dict[str, MemberProcess]) -> None:
    for member in members.values():
        os.killpg(member.pid, signal.SIGKILL)
    for member in members.values():
        member.wait(PATIENCE)


def saved_in(model_dir: Path, number: int, below: str = "") -> list[int]:
    """The steps, or whatever else their names say, of a generation's checkpoints."""
    found = (model_dir / "checkpoints").glob(f"*-{number:04d}/{below}ckpt-*.index")
    return sorted(int(path.stem.removeprefix("ckpt-")) for path in found)


def noted_in(model_dir: Path, number: int) -> int:
    """The epochs of the latest backup that a generation knows; it may be an older one's."""
    (note,) = (model_dir / "checkpoints").glob(f"*-{number:04d}/chief/checkpoint")
    found = re.search(r'model_checkpoint_path: ".*ckpt-(\d+)"', note.read_text())
    assert found is not None
    return int(found[1])


PROGRAMS = [
    pytest.param(train_in_step, ["worker", "worker"], "worker0", "keras", id="sync"),
    pytest.param(train_digits, ["chief", "worker", "ps"], "chief0", "keras", id="ps"),
]


@pytest.mark.parametrize("main_fun, roles, first, library", PROGRAMS)
def test_a_generation_goes_on_from_the_latest_checkpoint_of_the_one_before(
    tmp_path: Path, main_fun: Callable[..., Any], roles: list[str], first: str, library: str
) -> None:
    """To a model that is as good, in no more steps than were asked for."""
    model_dir = tmp_path / "model"
    with generation(tmp_path, 1, main_fun, roles, steps=1_000_000) as members:
        wait_for(lambda: max(saved_in(model_dir, 1), default=0) >= 200, members)
        kill(members)
    steps = max(saved_in(model_dir, 1)) + 300
    with generation(tmp_path, 2, main_fun, roles, steps) as members:
        assert members[first].wait(PATIENCE) == 0, members[first].log()
        returned = members[first].result()
    assert returned["began_at"] == steps - 300
    assert steps <= returned["steps"] < steps + 100
    assert min(saved_in(model_dir, 2)) > returned["began_at"]
    assert evaluate_saved_model(library, model_dir) >= REQUIRED_ACCURACY


def test_keras_goes_on_after_the_last_epoch_of_the_generation_before(tmp_path: Path) -> None:
    """BackupAndRestore, whose own directory is another one in each generation; also when the second
    one was killed before it had backed up anything, and when all was done before the third."""
    model_dir, roles = tmp_path / "model", ["chief", "worker"]
    with generation(tmp_path, 1, fit_or_evaluate, roles, steps=1_000_000) as members:
        wait_for(lambda: max(saved_in(model_dir, 1, "chief/"), default=0) >= 2, members)
        kill(members)
    first = noted_in(model_dir, 1)
    with generation(tmp_path, 2, fit_or_evaluate, roles, steps=1_000_000) as members:
        wait_for(lambda: any(model_dir.glob("checkpoints/*-0002/chief/checkpoint")), members)
        kill(members)
    epochs = noted_in(model_dir, 2)
    assert epochs >= first
    steps = 100 * (epochs + 3)
    for number, began_at in ((3, 100 * epochs), (4, steps)):
        with generation(tmp_path, number, fit_or_evaluate, roles, steps) as members:
            for each in members.values():
                assert each.wait(PATIENCE) == 0, each.log()
            returned = [each.result() for each in members.values()]
        assert [each["began_at"] for each in returned] == [began_at] * 2
        assert [each["steps"] for each in returned] == [steps] * 2
        assert evaluate_saved_model("tf_keras", model_dir) >= REQUIRED_ACCURACY


def documented() -> Callable[..., Any]:
    """The ``main_fun`` of docs/restarts.md."""
    text = (ROOT / "docs" / "restarts.md").read_text()
    (program,) = re.findall(r"^def main_fun.*?(?=^with)", text, re.DOTALL | re.MULTILINE)
    names: dict[str, Any] = {"__name__": "__main__"}  # so it is sent by value
    exec(program, names)
    found: Callable[..., Any] = names["main_fun"]
    return found


def test_the_program_of_the_documentation_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    model_dir, roles = tmp_path / "model", ["worker", "worker"]
    with generation(tmp_path, 1, documented(), roles, steps=1_000_000) as members:
        wait_for(lambda: max(saved_in(model_dir, 1), default=0) >= 2, members)
        kill(members)
    saved = max(saved_in(model_dir, 1))
    with generation(tmp_path, 2, documented(), roles, 100 * saved + 300) as members:
        for each in members.values():
            assert each.wait(PATIENCE) == 0, each.log()
        assert len({each.result() for each in members.values()}) == 1
    assert saved_in(model_dir, 2) == [saved + 2, saved + 3]


def save_large_ones(args: Any, ctx: Any) -> None:
    """One checkpoint after the other, each of which takes a while to be written."""
    import tensorflow as tf

    checkpoint = tf.train.Checkpoint(large=tf.Variable(tf.zeros(2**25)))
    while True:
        checkpoint.save(f"{ctx.checkpoint_dir}/ckpt")


def look(args: Any, ctx: Any) -> str | None:
    """Restores what it takes for the latest."""
    import tensorflow as tf

    latest: str | None = ctx.latest_checkpoint()
    if latest is not None:
        tf.train.Checkpoint(large=tf.Variable(tf.ones(2**25))).restore(latest).assert_consumed()
    return latest


def test_a_checkpoint_whose_writer_was_killed_in_the_middle_is_not_the_latest(
    tmp_path: Path,
) -> None:
    """With the files that TensorFlow itself leaves behind."""
    folder = tmp_path / "model" / "checkpoints"

    def half_written() -> bool:
        names = {path.name for path in folder.glob("*-0001/*")}
        return "ckpt-2.index" in names and any(name.startswith("ckpt-3") for name in names)

    with generation(tmp_path, 1, save_large_ones, ["chief"], 0) as members:
        wait_for(half_written, members)
        kill(members)
    (directory,) = folder.iterdir()
    names = {path.name for path in directory.iterdir()}
    assert any(name.startswith("ckpt-3") for name in names), names
    assert "ckpt-3.index" not in names, "it was killed too late to show anything"
    with generation(tmp_path, 2, look, ["chief"], 0) as members:
        assert members["chief0"].wait(PATIENCE) == 0, members["chief0"].log()
        assert members["chief0"].result() == str(directory / "ckpt-2")
