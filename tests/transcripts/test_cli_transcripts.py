"""What `tflease` prints, as files: commands, ``----``, and what they must say.

``TFLEASE_REWRITE=1`` writes the answers anew; read the difference before it is committed. A line
that begins with ``$`` is a command as a shell gets it, ``file NAME: LINE`` adds a line to a file of
the user's folder for configuration, ``mode NAME 0644`` changes one, ``run NAME`` creates a run of
two workers with fake members, of which ``worker:1`` never comes. Standard output and standard error
come together, and an exit code other than 0 at the end. What differs each time is replaced:
ADDRESS, HOME, RUN.
"""

from __future__ import annotations

import asyncio
import os
import re
import shlex
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from typer.testing import CliRunner

from coordinator.cli import app
from coordinator.core.model import Roles, RunSpec
from coordinator.testing import FakeGang, serving
from coordinator.testing.serving import Serving

FILES = sorted((Path(__file__).parent / "cli").glob("*.txt"))
SEPARATOR = "----"


class Shell:
    """A user with a folder for configuration, and a coordinator somewhere."""

    def __init__(self, home: Path, coordinator: Serving, then: AsyncExitStack) -> None:
        self.folder = home / "tflease"
        self.folder.mkdir(mode=0o700)
        self.home, self.coordinator, self.then = home, coordinator, then
        token = self.folder / "token"
        token.touch(0o600)
        token.write_text(coordinator.token + "\n")
        self.runs: list[str] = []

    async def play(self, line: str) -> AsyncIterator[str]:
        """What one line makes appear."""
        verb, _, rest = line.partition(" ")
        match verb:
            case "$":
                async for each in self.command(rest):
                    yield each
            case "file":
                name, _, text = rest.partition(": ")
                path = self.folder / name
                path.touch(0o600)
                path.write_text(path.read_text() + self.filled(text) + "\n")
            case "mode":
                name, mode = rest.split()
                (self.folder / name).chmod(int(mode, 8))
            case "run":
                roles = Roles(worker=2)
                run_id = self.coordinator.create_run(RunSpec(roles, name=rest))
                self.runs.append(run_id)
                address, token = self.coordinator.address, self.coordinator.token
                gang = FakeGang(address, token, run_id, roles)
                await self.then.enter_async_context(gang)
                await gang.form(without=["worker:1"])
            case _:
                raise AssertionError(f"no such verb: {line}")

    async def command(self, text: str) -> AsyncIterator[str]:
        name, *arguments = shlex.split(self.filled(text))
        assert name == "tflease"
        unset = {each: None for each in os.environ if each.startswith("TFLEASE_")}
        environment = {**unset, "XDG_CONFIG_HOME": str(self.home), "COLUMNS": "200"}
        done = await asyncio.to_thread(CliRunner().invoke, app, arguments, env=environment)
        for line in self.scrubbed(done.output).splitlines():
            if line.strip():  # an empty one ends an answer here
                yield line.rstrip()
        if done.exit_code:
            yield f"exit code {done.exit_code}"

    def filled(self, text: str) -> str:
        for number, run_id in enumerate(self.runs):
            text = text.replace(f"RUN{number}", run_id)
        return text.replace("ADDRESS", self.coordinator.address).replace("HOME", str(self.folder))

    def scrubbed(self, text: str) -> str:
        for number, run_id in enumerate(self.runs):
            text = text.replace(run_id, f"RUN{number}")
        text = text.replace(self.coordinator.address, "ADDRESS").replace(str(self.folder), "HOME")
        text = re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+Z", "TIME", text)
        text = re.sub(r"\(UNAVAILABLE: .*\)", "(UNAVAILABLE: ...)", text)  # in gRPC's words
        return re.sub(r"\b\d+ s\b", "N s", text)


async def played(text: str, home: Path) -> str:
    """The file with what its commands say now."""
    lines: list[str] = []
    trace: list[str] = []
    in_trace = False
    async with serving() as coordinator, AsyncExitStack() as then:
        shell = Shell(home, coordinator, then)
        for line in text.splitlines():
            if line == SEPARATOR:
                in_trace = True
                lines += [line, *(trace or ["(nothing)"])]
                trace = []
            elif in_trace and line:
                continue  # what was said last time
            else:
                in_trace = False
                lines.append(line)
                if line and not line.startswith("#"):
                    trace += [each async for each in shell.play(line)]
    assert not trace, f"the last commands lack a {SEPARATOR}"
    return "\n".join(lines) + "\n"


@pytest.mark.slow
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_commands_say_what_is_written(path: Path, tmp_path: Path) -> None:
    expected = path.read_text()
    found = asyncio.run(played(expected, tmp_path))
    if os.environ.get("TFLEASE_REWRITE"):
        path.write_text(found)
        return
    assert found.splitlines() == expected.splitlines()


def test_the_files_are_there() -> None:
    assert len(FILES) >= 3
