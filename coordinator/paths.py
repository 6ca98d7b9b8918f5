"""Paths as people write them."""

from __future__ import annotations

import os
from pathlib import Path


def expanded(path: str | os.PathLike[str]) -> Path:
    """With "~" and "~NAME" replaced. Where nobody is known by that name, or we have no home, they
    stay as they are, as in a shell: there is no such file then, which is said with its name.
    (``Path.expanduser`` raises RuntimeError.)"""
    return Path(os.path.expanduser(path))


def has_unknown_home(path: Path) -> bool:
    """Whether "~" is left in what ``expanded`` returned: nothing should be made there."""
    return bool(path.parts) and path.parts[0].startswith("~")
