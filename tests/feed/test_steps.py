"""The keeper of a feed's steps (F4). Random histories of it: tests/property/test_feed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pytest

from executor_agent.core.feed_shares import Move, plan_moves
from executor_agent.core.feed_steps import (
    ANSWERS_KEPT,
    Arrived,
    CloseAsked,
    Closed,
    Effect,
    EndAsked,
    Ended,
    Event,
    Frozen,
    Gone,
    Keeper,
    Moved,
    Opened,
    Reads,
    Ready,
    Say,
    Stopped,
    Trouble,
)
from executor_agent.core.feed_values import FeedEndpoint

A, B, C = "worker:0", "worker:1", "worker:2"


class Scene:
    """A keeper, and what came out of it since it was last looked at."""

    def __init__(self, *workers: str, epochs: int | None = 1) -> None:
        self.workers = workers
        self.endpoints = {name: FeedEndpoint(name, f"host of {name}", 1) for name in workers}
        self.keeper = Keeper("input", 4, epochs, list(self.endpoints.values()))
        self.effects: list[Effect] = list(self.keeper.begin(100.0))

    def tell(self, *events: Event) -> Scene:
        for event in events:
            self.effects += self.keeper.handle(event, 100.0)
        return self

    def take(self) -> list[Effect]:
        effects, self.effects = self.effects, []
        return effects

    def said(self, word: str) -> dict[str, dict[str, Any]]:
        """To whom a word was said (last), and the rest of the message; other effects are lost."""
        return {
            effect.worker: {key: value for key, value in effect.message.items() if key != "say"}
            for effect in self.take()
            if isinstance(effect, Say) and effect.message["say"] == word
        }

    def freeze(self, *rows: int, epoch: int = 1) -> Scene:
        self.tell(CloseAsked(epoch))
        assert self.said("freeze").keys() == set(self.workers)
        return self.tell(*map(Frozen, self.workers, [epoch] * len(rows), rows))


def reading(*batch_sizes: int | None, equal: bool = True, epochs: int | None = 1) -> Scene:
    """A train that all have opened and read."""
    names = [A, B, C][: len(batch_sizes)]
    scene = Scene(*names, epochs=epochs).tell(*map(Opened, names))
    scene.tell(*(Reads(name, size, equal) for name, size in zip(names, batch_sizes, strict=True)))
    scene.take()
    return scene


def to_all(word: str, workers: Sequence[str] = (A, B), **more: Any) -> list[Effect]:
    return [Say(name, {"say": word, **more}) for name in workers]


# --- open -----------------------------------------------------------------------------------------


def test_workers_are_told_to_open_and_the_driver_hears_when_all_have() -> None:
    scene = Scene(A, B, epochs=3)
    assert scene.take() == to_all("open", feed="input", train=4, epochs=3)
    assert scene.tell(Opened(A)).take() == []
    assert not scene.keeper.is_ready
    assert scene.tell(Opened(B)).take() == [Ready()]
    assert scene.keeper.is_ready
    assert scene.tell(Opened(B)).take() == []


def test_a_train_without_workers_is_refused() -> None:
    with pytest.raises(ValueError, match="no worker"):
        Keeper("input", 1, 1, [])


# --- release --------------------------------------------------------------------------------------


def test_steps_are_released_to_all_when_the_last_one_has_the_rows() -> None:
    scene = reading(4, 10).tell(Arrived(A, 1, 100))
    assert scene.take() == []
    assert scene.tell(Arrived(B, 1, 9)).take() == []
    assert scene.tell(Arrived(B, 1, 29)).take() == to_all("release", epoch=1, steps=2)
    assert scene.tell(Arrived(B, 1, 29), Arrived(A, 1, 104)).take() == []


def test_nothing_is_released_before_all_read() -> None:
    scene = Scene(A, B).tell(Opened(A), Opened(B), Arrived(A, 1, 8), Arrived(B, 1, 8))
    assert not scene.tell(Reads(A, 4, True)).said("release")
    assert scene.tell(Reads(B, 4, True)).take() == to_all("release", epoch=1, steps=2)


def test_without_equal_steps_nothing_is_released() -> None:
    assert reading(4, None, equal=False).tell(Arrived(A, 1, 8), Arrived(B, 1, 8)).take() == []


# --- close ----------------------------------------------------------------------------------------


def test_an_epoch_is_closed_with_as_many_steps_as_the_rows_suffice_for() -> None:
    scene = reading(4, 4, epochs=2).freeze(13, 5)
    (move,) = scene.take()
    assert move == Say(
        A, {"say": "move", "epoch": 1, "to": scene.endpoints[B].to_json(), "rows": 3}
    )
    assert scene.tell(Moved(A, 1, 3)).take() == [
        Say(A, {"say": "closed", "epoch": 1, "steps": 2, "rows": 10}),
        Say(B, {"say": "closed", "epoch": 1, "steps": 2, "rows": 8}),
        Closed(1, 2, {A: 10, B: 8}, left_out=2),
    ]


def test_one_partition_that_all_went_to_one_worker_is_shared_out() -> None:
    scene = reading(10, 10, 5).freeze(100, 0, 0)
    assert scene.said("move") == {
        A: {"epoch": 1, "to": scene.endpoints[B].to_json(), "rows": 40}
    }, "a giver does one move at a time"
    assert scene.tell(Moved(A, 1, 40)).said("move")[A]["rows"] == 20
    effects = scene.tell(Moved(A, 1, 20)).take()
    assert Closed(1, 4, {A: 40, B: 40, C: 20}, left_out=0) in effects


@pytest.mark.parametrize("rows", [(0, 0), (0, 7), (3, 4)])
def test_fewer_rows_than_one_step_of_all_are_left_out(rows: tuple[int, int]) -> None:
    effects = reading(4, 4, epochs=2).freeze(*rows).take()
    assert effects[-1] == Closed(1, 0, dict(zip((A, B), rows, strict=True)), left_out=sum(rows))


def test_without_equal_steps_every_row_stays_where_it_is() -> None:
    effects = reading(4, None, equal=False, epochs=2).freeze(13, 5).take()
    assert effects == [
        Say(A, {"say": "closed", "epoch": 1, "steps": None, "rows": 13}),
        Say(B, {"say": "closed", "epoch": 1, "steps": None, "rows": 5}),
        Closed(1, None, {A: 13, B: 5}, left_out=0),
    ]


def test_closing_waits_until_it_is_known_how_the_feed_is_read() -> None:
    scene = Scene(A, B).tell(Opened(A), Opened(B), CloseAsked(1))
    assert not scene.said("freeze")
    assert not scene.tell(Reads(A, 4, True)).said("freeze")
    assert scene.tell(Reads(B, 4, True)).said("freeze").keys() == {A, B}


def test_closing_does_not_wait_for_readers_that_need_no_equal_steps() -> None:
    scene = Scene(A, B).tell(Opened(A), Opened(B), CloseAsked(1), Reads(A, 4, False))
    assert scene.said("freeze").keys() == {A, B}


def test_a_close_that_is_asked_again_is_answered_again_and_told_to_nobody_else() -> None:
    scene = reading(4, 4, epochs=2).freeze(8, 8)
    closed = scene.take()[-1]
    assert scene.tell(CloseAsked(1)).take() == [closed]
    scene.tell(CloseAsked(2), CloseAsked(2))
    assert scene.take() == to_all("freeze", epoch=2)


def test_a_stream_of_epochs_remembers_the_last_answers_only() -> None:
    scene = reading(4, 4, epochs=None)
    for epoch in range(ANSWERS_KEPT + 1):
        scene.freeze(4, 4, epoch=epoch)
    scene.take()
    assert scene.tell(CloseAsked(0)).take() == [Closed(0, None, {}, left_out=0)]
    assert scene.tell(CloseAsked(1)).take() == [Closed(1, 1, {A: 4, B: 4}, left_out=0)]


def test_rows_of_the_next_epoch_are_released_and_late_words_of_the_last_one_are_not() -> None:
    scene = reading(4, 4, epochs=3).freeze(8, 8)
    scene.take()
    assert scene.tell(Arrived(A, 1, 80), Arrived(B, 1, 80)).take() == []
    scene.tell(Arrived(A, 2, 4), Arrived(B, 2, 4))
    assert scene.take() == to_all("release", epoch=2, steps=1)


def test_rows_that_could_not_be_moved_are_trouble() -> None:
    """They may be lost: nobody may claim afterwards that each came once."""
    effects = reading(4, 4).freeze(16, 0).tell(Moved(A, 1, 5)).take()
    (text,) = [effect.text for effect in effects if isinstance(effect, Trouble)]
    assert "could give worker:1 only 5 of 8 rows" in text


# --- the end --------------------------------------------------------------------------------------


def test_the_train_ends_after_its_last_epoch() -> None:
    scene = reading(4, 4, epochs=1).freeze(8, 8)
    effects = scene.take()
    closed = Closed(1, 2, {A: 8, B: 8}, left_out=0)
    assert effects[-4:] == [closed, *to_all("end", reason=""), Ended("")]
    assert scene.keeper.is_ended
    assert scene.tell(EndAsked(""), CloseAsked(1)).take() == [Ended(""), closed]
    assert scene.tell(Arrived(A, 1, 9), Stopped(A, "late"), Gone(B, "late")).take() == []


def test_an_open_train_ends_when_it_is_told_to() -> None:
    scene = reading(4, 4, epochs=None).freeze(8, 8, epoch=77)
    assert isinstance(scene.take()[-1], Closed)
    scene.tell(EndAsked("the query was stopped"))
    reason = "the query was stopped"
    assert scene.take() == [*to_all("end", reason=reason), Ended(reason)]


def test_with_equal_steps_one_stop_is_the_end_for_all() -> None:
    scene = reading(4, 4).tell(Arrived(A, 1, 9), Arrived(B, 1, 9))
    assert scene.said("release").keys() == {A, B}
    scene.tell(Stopped(B, "accurate enough"))
    reason = "worker:1 stopped: accurate enough"
    assert scene.take() == [*to_all("end", reason=reason), Ended(reason)]
    assert scene.tell(CloseAsked(1)).take() == [Ended(reason)]


def test_without_equal_steps_the_last_stop_is_the_end() -> None:
    scene = reading(4, 4, equal=False).tell(Arrived(A, 1, 5), Stopped(A, "enough"))
    assert scene.take() == []
    scene.tell(CloseAsked(1), Frozen(B, 1, 6))
    assert Closed(1, None, {A: 5, B: 6}, left_out=0) in scene.take()
    scene = reading(4, 4, equal=False).tell(Stopped(A, "enough"), Stopped(B, "me too"))
    assert scene.take()[-1] == Ended("worker:0 stopped: enough; worker:1 stopped: me too")


def test_a_worker_that_stopped_before_reading_ends_a_train_of_equal_steps_only() -> None:
    scene = Scene(A, B).tell(Opened(A), Stopped(B, "main_fun is over"))
    assert scene.take()[-1] == Ready(), "nobody waits for it to open"
    assert isinstance(scene.tell(Reads(A, 4, True)).take()[-1], Ended)


def test_a_stop_between_freezing_and_closing_does_not_hold_up_the_others() -> None:
    scene = reading(4, 4, equal=False).tell(Arrived(A, 1, 5), CloseAsked(1), Frozen(B, 1, 6))
    assert Closed(1, None, {A: 5, B: 6}, left_out=0) in scene.tell(Stopped(A, "enough")).take()


def test_a_worker_that_is_gone_is_trouble_unless_it_had_stopped() -> None:
    """F3."""
    scene = reading(4, 4, equal=False).tell(Stopped(A, "enough"), Gone(A, "it exited"))
    assert scene.take() == []
    effects = scene.tell(Gone(B, "connection reset")).take()
    text = "worker:1 is gone: connection reset"
    assert effects == [Trouble(text), Ended(text)], "nobody is left to be told"
    assert scene.tell(CloseAsked(1)).take() == effects


@pytest.mark.parametrize(
    "reads, text",
    [
        (Reads(B, 4, False), "disagree about equal steps.*worker:0 wants.*worker:1 does not"),
        (Reads(B, None, True), "worker:1 wants equal steps.*batch_size=None"),
        (Reads(B, 0, True), "batch_size=0"),
    ],
)
def test_readers_that_cannot_go_together_are_trouble(reads: Reads, text: str) -> None:
    scene = Scene(A, B).tell(Reads(A, 4, True), reads)
    trouble, *rest = [effect for effect in scene.take() if not isinstance(effect, Say)]
    assert isinstance(trouble, Trouble)
    assert rest == [Ended(trouble.text)]
    assert re.search(text, trouble.text)


def test_another_way_of_reading_is_welcome_between_epochs_and_trouble_within_one() -> None:
    scene = reading(4, 4, epochs=3).freeze(8, 8)
    scene.tell(Reads(A, 2, True), Arrived(A, 2, 4), Arrived(B, 2, 8))
    assert scene.said("release")[A] == {"epoch": 2, "steps": 2}
    scene.tell(Reads(B, 4, True))
    assert scene.take() == [], "the same way again"
    scene.tell(Reads(B, 5, True))
    assert any(isinstance(effect, Trouble) for effect in scene.take())


# --- diagnosis ------------------------------------------------------------------------------------


def test_the_diagnosis_names_who_has_not_opened_and_who_does_not_read() -> None:
    scene = Scene(A, B, C).tell(Opened(A), Opened(B), Reads(B, 4, True))
    assert scene.keeper.diagnosis(160.0) == [
        "worker:0 does not read the feed 'input' yet (last heard of 60 s ago)",
        "worker:2 has not opened the feed 'input' (last heard of 60 s ago)",
    ]


def test_the_diagnosis_names_who_has_the_fewest_rows_for_a_step() -> None:
    scene = reading(100, 2).tell(Arrived(A, 1, 150), Arrived(B, 1, 20))
    assert scene.keeper.diagnosis() == [
        "epoch 1: rows, the fewest first: worker:0 150, worker:1 20; steps released: 1"
    ]


def test_the_diagnosis_names_who_holds_up_the_closing() -> None:
    scene = reading(4, 4).tell(CloseAsked(1), Frozen(A, 1, 16))
    assert "worker:1 has not counted its rows yet" in scene.keeper.diagnosis()[-1]
    scene.tell(Frozen(B, 1, 0))
    assert "worker:0 has not given 8 rows to worker:1 yet" in scene.keeper.diagnosis()[-1]
    scene.tell(Moved(A, 1, 8))
    assert scene.keeper.diagnosis() == ["the train is over: all of it was delivered"]


def test_the_diagnosis_says_who_has_stopped_and_stays_short() -> None:
    names = [f"worker:{index}" for index in range(20)]
    scene = Scene(*names).tell(Stopped(A, "enough"), Arrived(B, 1, 7))
    stopped, *_, rows = scene.keeper.diagnosis()
    assert stopped == "worker:0 has stopped: enough"
    assert rows.endswith("and 12 more")


# --- arithmetic -----------------------------------------------------------------------------------


def test_the_largest_gap_is_filled_from_the_largest_surplus() -> None:
    rows, shares = {A: 90, B: 12, C: 0, "d": 6}, {A: 20, B: 10, C: 20, "d": 10}
    assert plan_moves(rows, shares) == (Move(A, C, 20), Move(A, "d", 4))


def test_too_few_rows_for_the_shares_are_refused() -> None:
    with pytest.raises(ValueError, match="too few rows"):
        plan_moves({A: 3, B: 3}, {A: 4, B: 4})
