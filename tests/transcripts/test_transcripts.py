"""Scenario files: commands, ``----``, and the trace that they must leave.

``TFLEASE_REWRITE=1`` writes the traces anew; read the difference before it is committed. One
command a line, several before one ``----`` share a trace; ``#`` starts a comment. Slots are written
``worker:1``, task attempts ``worker:1/2``; the first attempt speaks unless ``attempt=`` says else.

    run chief=1 worker=2 [timeout=60] [python=3.11]
    reserve|ready|enter|beat|open|close SLOT... [attempt=2] [host=node-a]     (SLOT: or "all")
    progress SLOT... step=7 [generation=2]      enter SLOT... [generation=2]
    end SLOT... cause=WORDS [message=WORDS] [reason=WORDS] [type=CLASS] [signal=9]
        [attempt=2] [generation=2]
    flood SLOT... beats=1000                        (tells how many effects that had, of any kind)
    wait SECONDS [beating=all|none|SLOT,SLOT]
    stop [grace=1]   owner-lost   pause SECONDS   slots BUSY/TOTAL [SLOT=failed]   status
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from coordinator.core import diagnosis, effects, events
from coordinator.core.errors import TfleaseError
from coordinator.core.model import Cause, Endpoint, IncarnationId, Roles, RunView, Slots, TaskState
from tests.coordinator.core.scene import Scene, executor

FILES = sorted(Path(__file__).parent.glob("*.txt"))
SEPARATOR = "----"
HOSTS = ("host", "node-a", "node-b")
"""Each has an address of its own: 10.0.0.1 and so on."""
SPOKEN = {
    "open": events.SessionOpened,
    "close": events.SessionClosed,
    "beat": events.Heard,
    "ready": events.ProcessReady,
}


class Player:
    """Plays the commands of one file and tells what came of them."""

    def __init__(self) -> None:
        self.scene: Scene | None = None
        self.seen: RunView | None = None

    def play(self, line: str) -> Iterator[str]:
        """The trace of one command."""
        verb, *words = shlex.split(line)
        options = dict(word.split("=", 1) for word in words if "=" in word)
        plain = [word for word in words if "=" not in word]
        if verb == "run":
            self.scene = self.created(options)
            self.seen = self.scene.view
            return
        scene = self.scene
        assert scene is not None, "a scenario begins with `run`"
        slots = [str(slot) for slot in scene.slots] if plain == ["all"] else plain
        match verb:
            case "status":
                yield diagnosis.headline(scene.view, scene.now)
            case "wait":
                yield from self.wait(scene, float(plain[0]), options.get("beating", "all"))
            case "pause":
                scene.now += float(plain[0])
                yield from self.feed(scene, events.CoordinatorPaused(float(plain[0])))
            case "stop":
                grace = float(options["grace"]) if "grace" in options else None
                stop = events.StopRequested(scene.run_id, "stop was asked for", grace)
                yield from self.feed(scene, stop)
            case "owner-lost":
                yield from self.feed(scene, events.OwnerLost(scene.run_id, "the owner is gone"))
            case "slots":
                busy, total = plain[0].split("/")
                tasks = {slot: TaskState(failed=True, message="Job aborted") for slot in options}
                yield from self.told(lambda: scene.scheduling(Slots(int(total), int(busy)), tasks))
            case _:
                for slot in slots:
                    yield from self.member(scene, verb, slot, options)

    def created(self, options: dict[str, str]) -> Scene:
        timeout = float(options.pop("timeout", 600))
        python = options.pop("python", "")
        roles = Roles.of({role: int(number) for role, number in options.items()})
        return Scene(roles, reservation_timeout=timeout, python_version=python)

    def member(self, scene: Scene, verb: str, slot: str, options: dict[str, str]) -> Iterator[str]:
        attempt = IncarnationId(f"{slot}/{options.get('attempt', '1')}")
        if verb == "reserve":
            host = options.get("host", "host")
            on = executor(host, python_version=options.get("python", ""))
            port = scene.ports.setdefault(attempt, 2000 + len(scene.ports))
            at = Endpoint(f"10.0.0.{1 + HOSTS.index(host)}", port)
            yield from self.told(lambda: scene.reserve(slot, attempt, on=on, endpoint=at))
        elif verb == "enter":
            generation = int(options.get("generation", scene.view.generation))
            yield from self.told(
                lambda: scene.say(events.MainEntered, slot, generation, attempt=attempt)
            )
        elif verb == "end":
            names = {"message": "message", "reason": "reason", "type": "exception_type"}
            facts: dict[str, Any] = {
                names[name]: text for name, text in options.items() if name in names
            }
            if "signal" in options:
                facts["signal"] = int(options["signal"])
            if "generation" in options:
                facts["generation"] = int(options["generation"])
            cause = Cause(options["cause"])
            yield from self.told(lambda: scene.end(slot, cause, attempt=attempt, **facts))
        elif verb == "progress":
            generation = int(options.get("generation", scene.view.generation))
            yield from self.told(
                lambda: scene.say(
                    events.ProgressMade, slot, generation, int(options["step"]), attempt=attempt
                )
            )
        elif verb == "flood":
            beats = int(options["beats"])
            done = [effect for _ in range(beats) for effect in scene.say(events.Heard, slot)]
            yield f"{beats} beats of {slot}: {len(done)} effects"
            yield from self.changes(scene.view)
        else:
            yield from self.told(lambda: scene.say(SPOKEN[verb], slot, attempt=attempt))

    def wait(self, scene: Scene, seconds: float, beating: str) -> Iterator[str]:
        until = scene.now + seconds
        who = None if beating == "all" else beating.split(",")
        while scene.now < until:
            step = min(1.0, until - scene.now)
            for line in self.told(lambda step=step: tuple(scene.wait(step, beating=who))):
                yield f"{scene.now:g}s {line}"

    def feed(self, scene: Scene, event: events.Event) -> Iterator[str]:
        yield from self.told(lambda: scene.handle(event))

    def told(self, act: Callable[[], tuple[effects.Effect, ...]]) -> Iterator[str]:
        """What was answered, what changed, and what was commanded."""
        assert self.scene is not None
        try:
            done = act()
        except TfleaseError as error:
            yield f"refused: {type(error).__name__}: {error}"
            return
        for effect in done:
            match effect:
                case effects.Granted():
                    yield f"granted {effect.member} to {effect.incarnation}"
                case effects.StandBy():
                    yield f"stand by {effect.delay:g} s: {effect.holder} has {effect.member}"
        yield from self.changes(self.scene.view)
        for effect in done:
            match effect:
                case effects.SendStart():
                    yield f"start {effect.member} ({effect.incarnation}): {dict(effect.spec)}"
                case effects.SendStop():
                    grace = f"{effect.grace:g} s"
                    yield f"stop {effect.member} ({effect.incarnation}), {grace}: {effect.reason}"

    def changes(self, new: RunView) -> Iterator[str]:
        old, self.seen = self.seen, new
        assert old is not None
        for before, after in zip(old.members, new.members, strict=True):
            if before.phase is not after.phase:
                yield f"{after.id}: {before.phase.value} -> {after.phase.value}"
            if before.step != after.step:
                yield f"{after.id}: step {before.step} -> {after.step}"
        if old.phase is not new.phase:
            why = f" ({new.stop_reason})" if new.stop_reason and not old.stop_reason else ""
            yield f"run: {old.phase.value} -> {new.phase.value}{why}"
        if new.settled and not old.settled and new.failure is not None:
            yield f"verdict: {new.failure.cause.value}: {new.failure.summary}"
            for other in new.failure.others:
                yield f"   also: {other}"


def played(text: str) -> str:
    """The file with its traces as they come out now."""
    player, lines, trace = Player(), [], []
    in_trace = False
    for line in text.splitlines():
        if line == SEPARATOR:
            in_trace = True
            lines += [line, *(trace or ["(nothing)"])]
            trace = []
        elif in_trace and line:
            continue  # the trace of last time
        else:
            in_trace = False
            lines.append(line)
            if line and not line.startswith("#"):
                trace += player.play(line)
    assert not trace, f"the last commands lack a {SEPARATOR}"
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_scenario_leaves_the_trace_that_is_written(path: Path) -> None:
    expected = path.read_text()
    found = played(expected)
    if os.environ.get("TFLEASE_REWRITE"):
        path.write_text(found)
        return
    assert found.splitlines() == expected.splitlines()


def test_all_promised_scenarios_are_there() -> None:
    assert len(FILES) >= 10
