"""What NVML's absence, refusal and silence have in common."""

from __future__ import annotations


class NvmlError(Exception):
    """NVML gives no answer; the text says why, and what to do where something can be done."""
