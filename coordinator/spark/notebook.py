"""What a notebook shows: a display that is updated in place, and runs as tables."""

from __future__ import annotations

import sys
import uuid
from contextlib import suppress
from typing import Any

from coordinator.core.model import RunView
from coordinator.spark import views


def is_running() -> bool:
    """Whether this process is a notebook's kernel: one that shows HTML. Imports nothing."""
    return getattr(_shell(), "kernel", None) is not None


def show_runs() -> None:
    """``cluster.status()`` at the end of a cell becomes a table. The value itself knows nothing of
    HTML."""
    with suppress(Exception):  # a display that fails harms nobody
        if (shell := _shell()) is not None:
            shell.display_formatter.formatters["text/html"].for_type(RunView, views.run)


class Display:
    """One place below a cell. What cannot be shown harms nobody."""

    def __init__(self) -> None:
        self._id = f"tflease-{uuid.uuid4().hex}"
        self._is_there = False

    def show(self, content: str, text: str) -> None:
        """``content``: HTML, in place of what stood here; ``text``: for readers without HTML."""
        with suppress(Exception):
            _shell().display_pub.publish(
                data={"text/html": content, "text/plain": text},
                transient={"display_id": self._id},
                update=self._is_there,
            )
            self._is_there = True


def _shell() -> Any:
    """IPython's, where one is running."""
    module = sys.modules.get("IPython")
    try:
        return module.get_ipython() if module is not None else None
    except Exception:  # half an import, or something else of this name
        return None
