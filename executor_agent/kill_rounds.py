"""SIGKILL to everything below us, round after round until nobody is left.

Owns: what earlier rounds have found out, so that the later ones are cheap: they run beside the end
of a TensorFlow process with its hundred threads, and take their time from it. Must not know who is
below us or when a round is due.
"""

from __future__ import annotations

import os
import signal

from executor_agent.processes import ProcessIdentity, children_of, descendants, signal_if_same


class KillRounds:
    """``remaining``: what the last round saw, zombies included."""

    def __init__(self) -> None:
        self.remaining: list[ProcessIdentity] = []
        self._killed: set[ProcessIdentity] = set()
        self._final: dict[ProcessIdentity, list[int]] = {}

    def run(self, without: int | None) -> list[ProcessIdentity]:
        """One round; ``without`` and what is below it are left out. Returns who had not been killed
        by an earlier one."""
        self.remaining = descendants(os.getpid(), without, self._children)
        new = [each for each in self.remaining if each not in self._killed]
        for identity in new:
            if signal_if_same(identity, signal.SIGKILL):
                self._killed.add(identity)
        return new

    def _children(self, parent: ProcessIdentity) -> list[int]:
        """Who has been sent SIGKILL cannot fork any more (the kernel looks for it under the lock
        with which it makes a child visible), so that one more reading tells all of its children."""
        if parent not in self._killed:
            return children_of(parent.pid)
        if parent not in self._final:
            self._final[parent] = children_of(parent.pid)
        return self._final[parent]
