"""Values that the Spark task, the sentinel and the agent exchange about one member.

Owns: the sentinel's configuration, the exit facts (which, written to disk, are the tombstone), the
numbers of the descriptors that children find open, and the names of the files in a member's
directory. Must not know processes, descriptors that are open, the clock or the file system:
standard-library value modules only.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, Final, Literal, TypeAlias

from executor_agent.core.decoding import json_object, require, strings
from executor_agent.core.record import Record

MARKER_VARIABLE: Final = "TFLEASE_MEMBER"
"""Set for the agent, the member's process and so for all its descendants; never for the sentinel,
which must survive a sweep that looks for the marker."""

SENTINEL_MODULE: Final = "executor_agent.sentinel"
"""Stands in the command line after `SENTINEL_START`: by that a sentinel is known, which has no
marker."""

SENTINEL_START: Final = (
    "import sys; _, name, folder, *rest = sys.argv; sys.path.append(folder); "
    "__import__(name); sys.exit(sys.modules[name].main(rest))"
)
"""What `python -S -c` runs, given the module, where to find it, and the sentinel's arguments.
Quicker than `-m`, and than a look through everything that is installed. Nothing that is installed
beside us can stand in for a module of the standard library: our folder comes last."""

# Descriptors of the agent.
AGENT_CONTROL_FD: Final = 3  # SOCK_SEQPACKET to the sentinel, one JSON object a datagram
AGENT_CHANNEL_FD: Final = 4  # SOCK_STREAM to the member
AGENT_CONFIG_FD: Final = 5  # memfd

# Descriptors of the member's process.
MEMBER_CHANNEL_FD: Final = 3  # SOCK_STREAM to the agent
MEMBER_STOP_FD: Final = 4  # pipe: one JSON line when a stop begins, EOF when the sentinel is gone
MEMBER_PAYLOAD_FD: Final = 5  # memfd
MEMBER_SHARED_DEAD_MAN_FD: Final = 6  # D1: held open by the sentinel and by a task that stays
MEMBER_TASK_DEAD_MAN_FD: Final = 7  # D2: held open by the task alone, armed when the grace is 0

# Files in a member's directory (which is 0700).
MEMBER_LOG: Final = "member.log"
TOMBSTONE: Final = "tombstone.json"
LOCAL_DIRECTORY: Final = "local"
EVENTS_DIRECTORY: Final = "events"
ENTERED: Final = "entered"  # empty; there once main_fun has been entered

# The hand-over to the executor: what the task says on its lifeline, and the sentinel's answer.
HAND_OVER: Final = b"hand over\n"
TAKEN_OVER: Final = b"taken over\n"

# Why a stop began, where the words are ours (the agent's command brings its own).
MEMBER_EXITED: Final = "member exited"
LIFELINE_CLOSED: Final = "task let go of its lifeline"
TERMINATED: Final = "sentinel was told to terminate"
AGENT_SILENT: Final = "agent closed its control socket"


def anchor_died(name: str) -> str:
    """The reason when a watched process is gone; name is task, daemon or executor."""
    return f"{name} died"


AnchorName = Literal["task", "daemon", "executor"]
ANCHOR_NAMES: Final[tuple[AnchorName, ...]] = ("task", "daemon", "executor")
Proof = Literal["kernel", "sweep", "none"]
"""kernel: waitpid said ECHILD. sweep: a scan found nothing. none: survivors are named."""


class SentinelConfig(Record):
    """Everything the sentinel is told; it asks nobody else, not even its environment."""

    member: str  # "worker:1"
    run_id: str
    incarnation: str
    marker: str
    directory: str  # exists, 0700, absolute
    claim: str  # file, in a directory that exists, is 0700 and is shared by all our user's members
    watch: Mapping[str, tuple[int, float]]  # anchor -> (pid, create_time), see ProcessIdentity
    grace: float  # seconds, when the stop does not come from the agent
    agent_argv: tuple[str, ...]
    agent_env: Mapping[str, str]  # complete
    member_argv: tuple[str, ...]
    member_env: Mapping[str, str]  # complete
    cwd: str
    shared_dead_man_read_fd: int  # D1
    shared_dead_man_write_fd: int
    agent_config_fd: int
    payload_fd: int
    lifeline_fd: int | None = None  # read end
    # The kernel's promise cannot be taken back: never given to a member that is to be handed over.
    task_dead_man_fd: int | None = None  # D2, read end
    # Given where the anchor is to be the executor: the sentinel detaches itself from the task, and
    # says here who it is and when it needs the task no more. Its end is this pipe's.
    voice_fd: int | None = None  # write end
    term_timeout: float = 1.0  # from SIGTERM to SIGKILL
    kill_timeout: float = 10.0  # until what survives SIGKILL is named and left behind
    report_timeout: float = 3.0  # for the agent to deliver the exit

    def __post_init__(self) -> None:
        for name in ("member", "run_id", "incarnation", "marker"):
            require(bool(getattr(self, name)), f"{name} is empty")
        for name in ("directory", "claim", "cwd"):
            require(getattr(self, name).startswith("/"), f"{name} is not an absolute path")
        for name in ("grace", "term_timeout", "kill_timeout", "report_timeout"):
            seconds = getattr(self, name)
            require(math.isfinite(seconds) and seconds >= 0, f"{name} is not a duration")
        for name in ("agent_argv", "member_argv"):
            require(len(getattr(self, name)) > 0, f"{name} is empty")
        for name, (pid, create_time) in self.watch.items():
            require(name in ANCHOR_NAMES, f"watch names an unknown anchor {name!r}")
            require(pid > 0 and math.isfinite(create_time), f"watch of {name} is not a process")
        descriptors = self.descriptors()
        require(all(fd > 2 for fd in descriptors), "a descriptor collides with stdio")
        require(len(set(descriptors)) == len(descriptors), "a descriptor is named twice")
        if self.voice_fd is not None:
            require(self.task_dead_man_fd is None, "D2 would end a member that was handed over")
            require(self.lifeline_fd is not None, "nobody can hand over without a lifeline")
            require("executor" in self.watch, "there is no executor to hand over to")

    def descriptors(self) -> tuple[int, ...]:
        """Every descriptor the sentinel inherits besides the standard ones."""
        optional = (self.lifeline_fd, self.task_dead_man_fd, self.voice_fd)
        return (
            self.shared_dead_man_read_fd,
            self.shared_dead_man_write_fd,
            self.agent_config_fd,
            self.payload_fd,
            *(fd for fd in optional if fd is not None),
        )

    def to_json(self) -> str:
        """The text that `from_json` reads."""
        return json.dumps(self.to_dict())

    @classmethod
    def from_json(cls, text: str | bytes) -> SentinelConfig:
        """Raise ValueError, saying what is wrong, for anything but a complete configuration."""
        raw = json_object(text)
        unknown = sorted(raw.keys() - set(cls.fields))
        require(not unknown, f"unknown fields {unknown}")
        try:
            raw["watch"] = {
                name: (int(pid), float(create_time))
                for name, (pid, create_time) in raw["watch"].items()
            }
            for name in ("agent_argv", "member_argv"):
                raw[name] = strings(raw[name])
            for name in ("agent_env", "member_env"):
                strings([*raw[name].keys(), *raw[name].values()])
            return cls(**raw)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"configuration is incomplete or of the wrong type: {error}") from None


class Survivor(Record):
    """A process that was still there when we had to go on without it."""

    pid: int
    name: str
    create_time: float = 0.0  # with the pid: exactly this process (see ProcessIdentity)


class ExitFacts(Record):
    """How a member ended and what is proven about the rest of its tree.

    exit_code and signal are mutually exclusive; both are None when nobody saw the end (the member
    was never started, or the sentinel died first).
    """

    member: str
    run_id: str
    incarnation: str
    pid: int | None
    exit_code: int | None
    signal: int | None
    killed_by_us: bool  # we had sent `signal` before the member ended
    reason: str  # why the stop began
    survivors: tuple[Survivor, ...]  # empty unless proof is "none", or the agent is unkillable
    proof: Proof
    max_rss_bytes: int
    user_seconds: float
    system_seconds: float
    stop_seconds: float  # from the reason to the tree being gone
    ended_at: float  # Unix time

    def __post_init__(self) -> None:
        require(self.exit_code is None or self.signal is None, "both exit code and signal")
        require(self.proof in ("kernel", "sweep", "none"), f"unknown proof {self.proof!r}")
        require(self.proof != "kernel" or not self.survivors, "proven gone, yet survivors")

    def to_json(self) -> str:
        """The text that `from_json` reads: the content of a tombstone."""
        return json.dumps(self.to_dict())

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> ExitFacts:
        """Raise ValueError when a fact is missing; ignore what a newer version adds."""
        values = {name: raw[name] for name in cls.fields if name in raw}
        try:
            values["survivors"] = tuple(
                Survivor(int(each["pid"]), str(each["name"]), float(each.get("create_time", 0.0)))
                for each in values["survivors"]
            )
            return cls(**values)
        except (KeyError, TypeError) as error:
            raise ValueError(f"exit facts are incomplete: {error}") from None

    @classmethod
    def from_json(cls, text: str | bytes) -> ExitFacts:
        """As `from_dict`."""
        return cls.from_dict(json_object(text))


Tombstone: TypeAlias = ExitFacts
"""Exit facts at rest, in the member's directory: they outlive sentinel, agent and task."""
