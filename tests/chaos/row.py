"""A row of the matrix as data: the scene that it needs, what is done, what must come of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from tests.chaos.acts import Act
from tests.chaos.programs import ALL
from tests.chaos.scene import Plan, Scene
from tests.chaos.stage import LOCAL

Expectation = Literal["gone", "sweep", "gap"]
"""gone: all by itself. sweep: some need the sweep of the next agent, or of ``tflease reap``.
gap: the known gap, where the hidden helper is found by nobody."""

SLOW = 1
"""Repetitions of a row that costs a Spark application each."""


@dataclass(frozen=True)
class Row:
    """``what``: who dies, and how. ``also``: actors that must be gone besides the member's tree.
    ``limit``: seconds until a survivor is one. ``spoils``: what the act leaves unusable.
    ``beside``: another run's member on the host, which must live. ``prepare``: before the clock
    runs. ``happened``: afterwards, from the scene and the milliseconds to gone: why what the row
    says has not happened after all, or "". ``obstacle``: why the row cannot be performed on this
    machine, or "".
    ``sweep``: who sweeps, in a row that needs it."""

    name: str
    what: str
    act: Act
    program: str = "stuck"
    helpers: tuple[str, ...] = ALL
    roles: Mapping[str, int] = field(default_factory=lambda: {"worker": 1})
    anchor: str = "task"
    grace: float = 0.0
    topology: str = LOCAL
    conf: Mapping[str, str] = field(default_factory=dict)
    repeats: int = 10
    limit: float = 20.0
    also: tuple[str, ...] = ()
    spoils: Literal["", "application", "cluster"] = ""
    beside: bool = False
    expects: Expectation = "gone"
    sweep: Literal["", "agent", "reap"] = ""
    prepare: Callable[[Scene], None] | None = None
    obstacle: Callable[[], str] | None = None
    happened: Callable[[Scene, float | None], str] | None = None

    @property
    def is_tensorflow(self) -> bool:
        return self.program in ("server", "mirrored")

    @property
    def settings(self) -> dict[str, str]:
        """Spark's. Where a sweep is to be seen, a retried task must not come first with its own."""
        return {**self.conf, **({"spark.task.maxFailures": "1"} if self.sweep else {})}

    @property
    def plan(self) -> Plan:
        return Plan(
            self.program,
            self.helpers,
            dict(self.roles),
            self.anchor,
            self.grace,
            self.is_tensorflow,
        )

    @property
    def program_text(self) -> str:
        shape = " + ".join(f"{n} {role}" for role, n in self.roles.items() if n > 1)
        grace = f"grace {self.grace:g} s"
        return ", ".join(filter(None, (_PROGRAMS[self.program], shape, grace)))


_PROGRAMS = {
    "stuck": "stuck",
    "stubborn": "stubborn",
    "obedient": "obedient",
    "polite": "polite",
    "gated": "ordinary",
    "server": "TensorFlow server",
    "mirrored": "TensorFlow mirrored",
}
