"""Peers that have nothing of ours but the contract, which the coordinator itself tells them."""

from __future__ import annotations

import asyncio
import sys

import pytest

from tests.integration.daemon.process import DEADLINE, ROOT, Daemon

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

PEER = ROOT / "examples" / "generic_peer.py"
ALONE = f"""
import runpy, sys
sys.argv[0] = {str(PEER)!r}
runpy.run_path({str(PEER)!r}, run_name="__main__")
ours = [name for name in sys.modules if name.partition(".")[0] in ("coordinator", "executor_agent")]
print("of ours:", ours)
"""


async def test_the_contract_is_enough_to_reserve_attend_lease_and_stop(daemon: Daemon) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", ALONE, daemon.address, str(daemon.home.token_file),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    async with asyncio.timeout(DEADLINE):
        output, _ = await process.communicate()
    text = output.decode()
    assert process.returncode == 0, text
    said = [line.partition(",")[0] for line in text.splitlines()]
    assert [" ".join(line.split()[:1]) for line in said] == [
        "created", "reserved", "started", "leased", "attended", "stopped", "of",
    ], text  # fmt: skip
    assert "stopped, phase 6" in text
    assert "of ours: []" in text
