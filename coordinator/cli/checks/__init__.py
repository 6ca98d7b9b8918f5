"""What a first run needs, one function a line of `tflease doctor`.

They look and change nothing, and never import what they look at.
"""

from __future__ import annotations

from coordinator.check import Check, Status, failed, note, ok

__all__ = ["Check", "Status", "failed", "note", "ok"]
