"""What is done to a scene. An act is a function of the scene; it raises NotPerformed when it
cannot be done."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

from tests.chaos import proc
from tests.chaos.scene import NotPerformed, Scene
from tests.spark.helpers import eventually

Act = Callable[[Scene], None]


def kill(*names: str, number: int = signal.SIGKILL) -> Act:
    """One, or several at once: then they are stopped first, so that none sees another die."""

    def act(scene: Scene) -> None:
        if len(names) > 1:
            _stop(scene, names)
        scene.acted_at = proc.now()
        for name in names:
            _send(scene, name, number)

    return act


def terminate(name: str) -> Act:
    """SIGTERM, which can be answered."""
    return kill(name, number=signal.SIGTERM)


def stop_then(names: tuple[str, ...], *then: Act) -> Act:
    """These hang (SIGSTOP); something else happens meanwhile."""

    def act(scene: Scene) -> None:
        _stop(scene, names)
        in_turn(*then)(scene)

    return act


def resume(name: str) -> Act:
    """It goes on after a stop, and after what was done meanwhile."""
    return kill(name, number=signal.SIGCONT)


def in_turn(*acts: Act) -> Act:
    def act(scene: Scene) -> None:
        for each in acts:
            each(scene)

    return act


def in_driver(function: Callable[..., Any]) -> Act:
    """The driver calls this function of ``driving``."""

    def act(scene: Scene) -> None:
        scene.acted_at = proc.now()
        scene.stage.ask(function, scene.run_id)

    return act


def gate(word: str) -> Act:
    """The program goes on, as this says."""

    def act(scene: Scene) -> None:
        scene.acted_at = proc.now()
        scene.open_gate(word)

    return act


def _stop(scene: Scene, names: tuple[str, ...]) -> None:
    for name in names:
        _send(scene, name, signal.SIGSTOP)
    for name in names:
        victim = scene.actors[name]
        eventually(lambda v=victim: proc.state_of(v) in ("T", "t", ""), f"{name} to be stopped", 5)


def _send(scene: Scene, name: str, number: int) -> None:
    victim = scene.actors.get(name)
    if victim is None:
        raise NotPerformed(f"there is no {name}")
    if not proc.send(victim, number):
        raise NotPerformed(f"the {name} is gone before anything was done")
