"""Pieces of files between agents and drivers: what waits for a driver that reads nothing."""

from __future__ import annotations

import asyncio

from coordinator.core.file_values import WINDOW_BYTES, Receiver
from coordinator.core.model import IncarnationId, MemberId, Role, RunId
from coordinator.file_relay import Delivery, FileRelay, Inbox, Sender, Who

RUN, OTHER = RunId("run"), RunId("other")


def who(index: int) -> Who:
    return MemberId(Role.WORKER, index), IncarnationId(f"a{index}")


async def all_of(inbox: Inbox) -> list[Delivery]:
    found = []
    while True:
        try:
            async with asyncio.timeout(0):
                found.append(await inbox.get())
        except TimeoutError:
            return found


async def window(sender: Sender) -> int:
    """As it was told last."""
    answers = await sender.answers()
    (receiver,) = (each for each in answers if isinstance(each, Receiver))
    assert receiver.is_there
    return receiver.window


async def test_an_agent_that_comes_and_goes_does_not_pile_up() -> None:
    """While its driver reads nothing."""
    relay = FileRelay()
    inbox = relay.open_receiver(RUN)
    for _ in range(1_000):
        sender = relay.open_sender(RUN, who(0))
        relay.close_sender(RUN, who(0), sender)
    relay.open_sender(RUN, who(1))
    assert await all_of(inbox) == [
        Delivery(who(0), is_there=False),
        Delivery(who(1), is_there=True),
    ]


async def test_that_an_agent_has_left_is_told_behind_its_last_piece() -> None:
    relay = FileRelay()
    inbox = relay.open_receiver(RUN)
    sender = relay.open_sender(RUN, who(0))
    await relay.pass_on(RUN, who(0), "first", 5)
    relay.close_sender(RUN, who(0), sender)
    sender = relay.open_sender(RUN, who(0))
    await relay.pass_on(RUN, who(0), "second", 6)
    relay.close_sender(RUN, who(0), sender)
    assert await all_of(inbox) == [
        Delivery(who(0), "first", 5),
        Delivery(who(0), "second", 6),
        Delivery(who(0), is_there=False),
    ]


async def test_what_waits_is_counted_for_each_run_and_for_all() -> None:
    relay = FileRelay()
    inbox, other = relay.open_receiver(RUN), relay.open_receiver(OTHER)
    for run, size in ((RUN, 5), (RUN, 6), (OTHER, 7)):
        await relay.pass_on(run, who(0), "piece", size)
    assert (relay.waits_for(RUN), relay.waits_for(OTHER), relay.load.size) == (11, 7, 18)
    assert (await inbox.get()).size == 5
    assert (relay.waits_for(RUN), relay.load.size) == (6, 13)
    relay.close_receiver(RUN, inbox)
    relay.close_receiver(OTHER, other)
    assert (relay.waits_for(RUN), relay.waits_for(OTHER), relay.load.size) == (0, 0, 0)


async def test_agents_that_come_one_by_one_share_what_may_be_on_its_way() -> None:
    """The first ones have less when there are many more."""
    relay = FileRelay()
    relay.open_receiver(RUN)
    windows: dict[int, int] = {}
    senders = []
    for index in range(3_000):
        senders.append(relay.open_sender(RUN, who(index)))
        if index == 0:
            assert await window(senders[0]) == WINDOW_BYTES
    for index, sender in enumerate(senders[1:], 1):
        windows[index] = await window(sender)
    windows[0] = await window(senders[0])
    assert sum(windows.values()) <= 32 * 1024 * 1024
