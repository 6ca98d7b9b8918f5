"""Event files across a daemon that is killed: nothing of them was in it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest

from coordinator.core.model import Roles, RunSpec
from coordinator.testing import FakeGang
from tests.integration.daemon.process import StartDaemon
from tests.integration.grpc.files_scene import contents, eventually, scene_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

ROLES = Roles(worker=1)


async def test_a_killed_daemon_costs_nothing_but_time(start: StartDaemon, tmp_path: Path) -> None:
    daemon = start()
    client = daemon.client()
    run_id = (await asyncio.to_thread(client.create, RunSpec(ROLES))).run_id
    file = "worker-0/events"
    async with (
        FakeGang(daemon.address, daemon.token, run_id, ROLES) as gang,
        scene_of(cast(Any, daemon), gang, tmp_path) as scene,
    ):
        member = await scene.member()
        mirror = scene.receive()
        member.files.start()
        member.write("events", b"before, ")
        await eventually(lambda: bool(contents(scene.mirror).get(file)), "the first")
        daemon.kill()
        member.write("events", b"while it was away, " * 50_000)
        start(daemon.port)
        await eventually(
            lambda: contents(scene.mirror)[file] == b"before, " + b"while it was away, " * 50_000,
            "what was written meanwhile",
        )
        member.write("events", b"and after")
        await member.files.finish(20.0)
        assert await asyncio.to_thread(mirror.drain, [member.origin], 20.0)
        assert contents(scene.mirror)[file].endswith(b"while it was away, and after")
    assert not member.complaints
    assert not scene.said
    client.close()
