"""One process of peers that beat (``heartbeat_peers``): all on one thread, with one `epoll`.

``python -m benchmarks.heartbeat_fleet`` is told whom to play, says ``settled``, and is then told
how often to beat and for how long to measure. It beats from its start to its end.
"""

from __future__ import annotations

import select
import ssl
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.client_process import Commands, say
from benchmarks.heartbeat_peers import EtcdHolder, Member, Peer, Poller
from coordinator.limits import raise_descriptor_limit

_STARTING = 32
"""So many peers are on their way in at once."""

_DRAIN = 5.0
"""Seconds after a measurement in which late acknowledgements still count."""


class Crowd:
    """Peers with one rhythm: each beats once in ``interval``, evenly spread over it."""

    def __init__(self, peers: Sequence[Peer], interval: float) -> None:
        self._peers = peers
        self._poll = select.epoll()
        self._by_descriptor: dict[int, Peer] = {}
        self._next = 0  # who beats next
        self._due_at = time.monotonic()
        self._step = interval / len(peers)
        self._begun = 0
        self._arriving: list[Peer] = []
        self._is_settled = False
        self.took: list[float] = []
        self.sent = 0
        self.cut_off = 0

    def settle_into(self, interval: float) -> None:
        """A new rhythm, from now on."""
        self._step = interval / len(self._peers)
        self._due_at = time.monotonic()

    def watch(self, commands: Commands) -> None:
        self._poll.register(commands.fileno(), select.EPOLLIN)

    def turn(self, until: float) -> bool:
        """Beats and listens once, for a short while. True: there are commands."""
        self._let_in()
        now = self._beat()
        wait = max(0.0, min(self._due_at, until) - now)
        has_commands = False
        for descriptor, _ in self._poll.poll(wait):
            peer = self._by_descriptor.get(descriptor)
            if peer is None:
                has_commands = True
            else:
                self._listen(peer)
        return has_commands

    def _listen(self, peer: Peer) -> None:
        try:
            self.took += peer.receive(time.monotonic())
        except OSError:
            self._lose(peer)

    def _lose(self, peer: Peer) -> None:
        """Before all are in, that is an end to it: raises the OSError that is being handled."""
        if not self.is_settled:
            raise  # noqa: PLE0704 - called by those who handle it
        self.cut_off += 1
        peer.is_over, peer.is_beating = True, False
        self._poll.unregister(peer.fileno())

    def _beat(self) -> float:
        now = time.monotonic()
        for _ in self._peers:  # at most a round: commands must come through
            if self._due_at > now:
                break
            peer = self._peers[self._next]
            self._next = (self._next + 1) % len(self._peers)
            self._due_at += self._step
            if peer.is_beating:
                self._let_beat(peer, now)
                now = time.monotonic()
        return now

    def _let_beat(self, peer: Peer, now: float) -> None:
        try:
            peer.beat(now)
            self.sent += 1
        except OSError:
            self._lose(peer)

    def _let_in(self) -> None:
        if self._begun == len(self._peers):
            return
        self._arriving = [peer for peer in self._arriving if not (peer.is_beating or peer.is_over)]
        room = _STARTING - len(self._arriving)
        for peer in self._peers[self._begun : self._begun + room]:
            peer.begin()
            self._arriving.append(peer)
            self._poll.register(peer.fileno(), select.EPOLLIN)
            self._by_descriptor[peer.fileno()] = peer
            self._begun += 1

    @property
    def is_settled(self) -> bool:
        """All are through their start."""
        self._is_settled = self._is_settled or all(peer.is_settled for peer in self._peers)
        return self._is_settled

    @property
    def unanswered(self) -> int:
        """Beats of all that are still there."""
        return sum(peer.unanswered for peer in self._peers if not peer.is_over)

    def close(self) -> None:
        for peer in self._peers:
            peer.close()


def peers_of(config: Mapping[str, Any]) -> list[Peer]:
    """Whom to play."""
    where = (config["host"], config["port"])
    match config["kind"]:
        case "member":
            tls = config.get("tls")
            known = (*where, config["token"], *(_tls_of(tls) if tls else ()))
            return [Member(known, run_id, member) for run_id, member in config["members"]]
        case "etcd":
            return [EtcdHolder(*where) for _ in range(config["count"])]
        case "poller":
            return [Poller(*where) for _ in range(config["count"])]
        case other:
            raise ValueError(f"nobody is called {other!r}")


def _tls_of(files: Mapping[str, str]) -> tuple[ssl.SSLContext, str]:
    context = ssl.create_default_context(cafile=files["ca"])
    context.set_alpn_protocols(["h2"])
    context.load_cert_chain(files["certificate"], files["key"])
    return context, files["server_name"]


def play(crowd: Crowd, commands: Commands) -> None:
    """Until standard input ends. Raises OSError when a peer is cut off."""
    crowd.watch(commands)
    told = False
    while not commands.is_over:
        if crowd.turn(time.monotonic() + 0.5):
            for command in commands.take():
                _measure(crowd, command["interval"], command["seconds"])
        if not told and crowd.is_settled:
            told = True
            say({"settled": True})


def _measure(crowd: Crowd, interval: float, seconds: float) -> None:
    """First it settles into the rhythm; both sides' processor times are taken in between."""
    crowd.settle_into(interval)
    _turn_until(crowd, time.monotonic() + max(interval, 1.0))
    say({"began": True})
    crowd.took, crowd.sent = [], 0
    _turn_until(crowd, time.monotonic() + seconds)
    sent, took, behind = crowd.sent, crowd.took, crowd.unanswered
    say({"measured": True})
    crowd.took = []
    _turn_until(crowd, time.monotonic() + min(_DRAIN, interval))
    took = [round(each, 6) for each in (*took, *crowd.took)]
    say({"sent": sent, "behind": behind, "took": took, "cut_off": crowd.cut_off})


def _turn_until(crowd: Crowd, deadline: float) -> None:
    while time.monotonic() < deadline:
        crowd.turn(deadline)


def main() -> int:
    """The process."""
    raise_descriptor_limit()
    commands = Commands()
    config = commands.first()
    crowd = Crowd(peers_of(config), config["interval"])
    try:
        play(crowd, commands)
    except OSError as error:
        say({"failure": f"a peer was cut off: {error}"})
        return 1
    finally:
        crowd.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
