"""``python -m coordinator.cli``: where the console script is not on the PATH."""

from __future__ import annotations

from coordinator.cli import main

if __name__ == "__main__":
    main()
