"""Whatever is cut, repeated, replaced or deleted on the way: nothing of a growing file is lost, and
nothing is twice in the mirror.

Both ends are the real ones, decisions only; between them are two connections (agent to coordinator,
coordinator to driver) that break whenever Hypothesis likes, with what is on them.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from coordinator.core.file_progress import FileProgress, Seen
from coordinator.core.file_values import Held, Piece, Receiver
from coordinator.core.received_file import ReceivedFile

NAMES = ("a", "b")
WINDOW = 8
names = st.sampled_from(NAMES)


class _Disk:
    """The member's files: bytes, and which file they are."""

    def __init__(self) -> None:
        self.files: dict[str, tuple[bytes, tuple[int, int]]] = {}
        self._made = 0

    def seen(self) -> dict[str, Seen]:
        return {name: Seen(len(data), identity) for name, (data, identity) in self.files.items()}

    def grow(self, name: str, data: bytes) -> None:
        if name not in self.files:
            self.replace(name)
        before, identity = self.files[name]
        self.files[name] = before + data, identity

    def replace(self, name: str) -> None:
        self._made += 1
        self.files[name] = b"", (0, self._made)


class _Mirror:
    """The driver's files."""

    def __init__(self) -> None:
        self.received = {name: ReceivedFile() for name in NAMES}
        self.data = dict.fromkeys(NAMES, b"")

    def take(self, piece: Piece) -> Held:
        file = self.received[piece.path]
        take = file.take(piece.version, piece.offset, len(piece.data))
        if take is None:
            size = 0 if piece.version > file.version else file.size
            return Held(piece.path, piece.version, size, missed=True)
        if take.restarts:
            self.data[piece.path] = b""
        self.data[piece.path] += piece.data[take.skip :][: take.length]
        file.took(take)
        return Held(piece.path, file.version, file.size)

    def forget(self, name: str) -> None:
        """Somebody deletes the file on the driver."""
        self.received[name].size, self.data[name] = 0, b""


class Streaming(RuleBasedStateMachine):
    """``up`` and ``down`` between agent and coordinator, ``out`` and ``back`` to the driver."""

    @initialize()
    def begin(self) -> None:
        self.disk, self.mirror, self.progress = _Disk(), _Mirror(), FileProgress()
        self.up: deque[Piece] = deque()
        self.out: deque[Piece] = deque()
        self.back: deque[Held] = deque()
        self.down: deque[Held | Receiver] = deque()
        self.agent_is_there = self.driver_is_there = False
        self.agent_comes()
        self.driver_comes()

    # -- the member ------------------------------------------------------------------------

    @rule(name=names, data=st.binary(min_size=1, max_size=20))
    def writes(self, name: str, data: bytes) -> None:
        self.disk.grow(name, data)

    @rule(name=names)
    def replaces(self, name: str) -> None:
        self.disk.replace(name)

    @rule(name=names)
    def empties(self, name: str) -> None:
        """And is seen to: what shrinks and grows again between two looks cannot be told."""
        if name in self.disk.files:
            self.disk.files[name] = b"", self.disk.files[name][1]
        self.looks()

    # -- the agent -------------------------------------------------------------------------

    @rule()
    def looks(self) -> None:
        self.progress.saw(self.disk.seen())

    @precondition(lambda self: self.agent_is_there)
    @rule()
    def sends(self) -> None:
        wanted = self.progress.next()
        if wanted is None:
            return
        data, identity = self.disk.files[wanted.path]
        if wanted.length and (
            identity != wanted.identity or len(data) < wanted.offset + wanted.length
        ):
            self.progress.changed(wanted.path, Seen(len(data), identity))
            return
        piece = data[wanted.offset : wanted.offset + wanted.length]
        self.progress.sent(wanted, len(piece))
        self.up.append(Piece(wanted.path, wanted.version, wanted.offset, piece))

    @precondition(lambda self: self.down)
    @rule()
    def hears(self) -> None:
        match self.down.popleft():
            case Receiver(is_there=True):
                self.progress.receiver_came(WINDOW)
            case Receiver():
                self.progress.receiver_left()
            case Held() as held:
                self.progress.held(held)

    # -- the connections -------------------------------------------------------------------

    @precondition(lambda self: self.agent_is_there)
    @rule()
    def agent_is_cut_off(self) -> None:
        self.agent_is_there = False
        self.up.clear()
        self.down.clear()
        self.progress.receiver_left()

    @precondition(lambda self: not self.agent_is_there)
    @rule()
    def agent_comes(self) -> None:
        self.agent_is_there = True
        self.down.append(Receiver(self.driver_is_there))

    @precondition(lambda self: self.driver_is_there)
    @rule()
    def driver_is_cut_off(self) -> None:
        self.driver_is_there = False
        self.out.clear()
        self.back.clear()
        if self.agent_is_there:
            self.down = deque([Receiver(is_there=False)])

    @precondition(lambda self: not self.driver_is_there)
    @rule()
    def driver_comes(self) -> None:
        self.driver_is_there = True
        if self.agent_is_there:
            self.down = deque([Receiver(is_there=True)])

    @precondition(lambda self: self.up)
    @rule()
    def coordinator_passes_on(self) -> None:
        piece = self.up.popleft()
        if self.driver_is_there:
            self.out.append(piece)

    @precondition(lambda self: self.back)
    @rule()
    def coordinator_answers(self) -> None:
        held = self.back.popleft()
        if not self.agent_is_there:
            return
        for number, waiting in enumerate(self.down):  # the latest word on a file counts
            if isinstance(waiting, Held) and waiting.path == held.path:
                missed = waiting.missed and waiting.version == held.version
                self.down[number] = replace(held, missed=held.missed or missed)
                return
        self.down.append(held)

    # -- the driver ------------------------------------------------------------------------

    @precondition(lambda self: self.out)
    @rule()
    def driver_takes(self) -> None:
        self.back.append(self.mirror.take(self.out.popleft()))

    # -- what must hold --------------------------------------------------------------------

    @invariant()
    def no_more_than_a_window_is_on_its_way(self) -> None:
        assert self.progress.on_the_way <= WINDOW

    def teardown(self) -> None:
        """The last look, and all connections as they should be: then all of it is there."""
        if not hasattr(self, "disk"):
            return
        if not self.agent_is_there:
            self.agent_comes()
        if not self.driver_is_there:
            self.driver_comes()
        self.looks()
        for _ in range(2_000):
            for step, is_due in (
                (self.hears, self.down),
                (self.sends, True),
                (self.coordinator_passes_on, self.up),
                (self.driver_takes, self.out),
                (self.coordinator_answers, self.back),
            ):
                if is_due:
                    step()
            if self.progress.is_complete and not (self.up or self.out or self.back or self.down):
                break
        assert self.progress.is_complete
        there = {name: data for name, (data, _) in self.disk.files.items()}
        assert {name: self.mirror.data[name] for name in there} == there


class StreamingToAForgetfulDriver(Streaming):
    """The driver's files are deleted, too, now and then while no driver is there: one that comes
    is asked what it has."""

    @precondition(lambda self: not self.driver_is_there)
    @rule(name=names)
    def driver_forgets(self, name: str) -> None:
        self.mirror.forget(name)


Streaming.TestCase.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)
StreamingToAForgetfulDriver.TestCase.settings = Streaming.TestCase.settings

TestStreaming = Streaming.TestCase
TestStreamingToAForgetfulDriver = StreamingToAForgetfulDriver.TestCase
