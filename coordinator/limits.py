"""What the process of a coordinator asks of the operating system."""

from __future__ import annotations

import resource


def raise_descriptor_limit() -> None:
    """As many descriptors as the system allows: every member has a connection, and the usual soft
    limit of 1,024 is there for the sake of select(), which nobody here uses."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
