"""What is recorded of a run, its members and their GPUs, and that the words are the ones that
alerts and filters know."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest

from coordinator import event_kinds as kinds
from coordinator.chronicle import Chronicle
from coordinator.core import events
from coordinator.core.effects import Effect
from coordinator.core.gpu import GpuSight
from coordinator.core.lease_book import LeaseBook
from coordinator.core.lease_news import Told
from coordinator.core.model import Cause, Roles, RunId, RunView
from coordinator.event_log import EventLog, EventRecord
from coordinator.gpu_chronicle import kind_of
from tests.coordinator.core.gpu_scene import GpuScene, busy, free, request
from tests.coordinator.core.scene import RUN, Scene


class Recording(Scene):
    """A run that is written about."""

    log: EventLog | None = None
    looks = 0  # full pictures of the run that were taken

    def handle(self, event: events.Event) -> tuple[Effect, ...]:
        if self.log is None:
            self.log = EventLog(lambda: self.now)
            self.chronicle = Chronicle(self.log, self.machine, self._look)
        done = super().handle(event)
        self.chronicle.observe(event, done)
        return done

    def _look(self, run_id: RunId) -> RunView:
        self.looks += 1
        return self.machine.view(run_id, self.now)

    @property
    def recorded(self) -> list[EventRecord]:
        assert self.log is not None
        return list(self.log.kept)

    def words(self, *beginnings: str) -> list[str]:
        """The kinds, of members with their names."""
        return [
            f"{event.kind} {event.subject}".rstrip()
            for event in self.recorded
            if event.kind.startswith(beginnings or ("",))
        ]

    def said(self, kind: str) -> str:
        [text] = [event.text for event in self.recorded if event.kind == kind]
        return text


class RecordingGpus(Recording, GpuScene):
    """The same with GPUs."""


# --- runs -----------------------------------------------------------------------------------------


def test_the_life_of_a_good_run() -> None:
    scene = Recording(Roles(worker=2), name="mnist")
    scene.form()
    scene.end("worker:0")
    scene.end("worker:1")
    assert scene.words() == [
        "run.created",
        "member.reserved worker:0",
        "member.reserved worker:1",
        "run.formed",
        "member.completed worker:0",
        "member.completed worker:1",
        "run.succeeded",
    ]
    assert {event.run_id for event in scene.recorded} == {RUN}
    assert scene.said("run.created") == "created: 'mnist', 2 members"
    assert scene.said("run.succeeded") == "succeeded: training is complete"


def test_a_failure_names_its_member_before_the_run() -> None:
    """E2"""
    scene = Recording(Roles(worker=2))
    scene.form()
    scene.end("worker:1", Cause.USER_EXCEPTION, message="ValueError: no\nsecond line")
    scene.end("worker:0", Cause.STOPPED, reason="told to")
    assert scene.words()[-4:] == [
        "member.failed worker:1",
        "run.stopping",
        "member.stopped worker:0",
        "run.failed",
    ]
    assert scene.said("member.failed") == "has failed, user exception: ValueError: no"
    assert "worker:1" in scene.said("run.failed")


def test_a_run_that_somebody_stops_says_why() -> None:
    scene = Recording(Roles(worker=1))
    scene.form()
    scene.stop(reason="wrong data")
    scene.end("worker:0", Cause.STOPPED)
    assert scene.words("run.")[-2:] == ["run.stopping", "run.cancelled"]
    assert scene.said("run.cancelled") == "cancelled: wrong data"


def test_who_stops_by_itself_in_a_run_at_work_has_failed() -> None:
    """As the machine counts it."""
    scene = Recording(Roles(worker=2))
    scene.form()
    scene.end("worker:1", Cause.STOPPED, reason="fenced")
    assert "not by the coordinator" in scene.said("member.failed")
    report = scene.member("worker:1").exit
    assert report is not None
    assert report.cause is Cause.LOST_CONTACT


# --- members --------------------------------------------------------------------------------------


def test_silence_is_told_once_and_so_is_the_fence() -> None:
    scene = Recording(Roles(worker=2))
    scene.form()
    scene.wait(20.0, beating=["worker:0"])
    scene.end("worker:0", Cause.STOPPED)
    scene.wait(200.0, beating=[])
    assert scene.words("member.lost", "member.fenced") == [
        "member.lost worker:1",
        "member.fenced worker:1",
    ]
    assert "on host" in scene.said("member.lost")


def test_who_is_heard_of_again_while_the_run_forms_has_returned() -> None:
    scene = Recording(Roles(worker=2))
    scene.take_slots()
    scene.ready("worker:0")
    scene.wait(20.0, beating=["worker:1"])
    scene.beat("worker:0")
    scene.beat("worker:0")
    scene.ready("worker:1")
    assert scene.words("member.lost", "member.returned", "run.formed") == [
        "member.lost worker:0",
        "member.returned worker:0",
        "run.formed",
    ]
    scene.enter("worker:0")
    scene.enter("worker:1")
    scene.wait(20.0, beating=["worker:1"])
    assert scene.words("member.lost")[1:] == ["member.lost worker:0"], "again"


def test_a_gang_that_returns_costs_no_picture_of_the_run_for_each_member() -> None:
    """Of a thousand members that had lost the network these would be a million."""
    scene = Recording(Roles(worker=12))
    present = [str(member) for member in scene.slots[1:]]
    scene.take_slots(*present)
    scene.wait(20.0, beating=[])
    assert scene.words("member.lost") == [f"member.lost {member}" for member in present]
    before = scene.looks
    scene.beat(*present)
    assert scene.words("member.returned") == [f"member.returned {member}" for member in present]
    assert scene.looks == before


def test_a_run_that_forms_with_a_beat_is_recorded() -> None:
    """The last one was lost and ready: its beat is what the gang had waited for."""
    scene = Recording(Roles(worker=2))
    scene.take_slots()
    scene.ready("worker:0")
    scene.wait(20.0, beating=["worker:1"])
    scene.ready("worker:1")
    assert "run.formed" not in scene.words()
    scene.beat("worker:0")
    assert scene.words()[-1] == "run.formed"


def test_a_task_that_spark_took_while_the_run_forms_has_left_its_place() -> None:
    scene = Recording(Roles(worker=2))
    scene.take_slots()
    scene.end("worker:0", Cause.PREEMPTED, reason="executor died")
    scene.reserve("worker:0", "another")
    assert scene.words("member.")[2:] == ["member.vacated worker:0", "member.reserved worker:0"]


def test_what_comes_again_is_not_recorded_again() -> None:
    scene = Recording(Roles(worker=1))
    scene.form()
    before = scene.words()
    scene.reserve("worker:0")
    scene.beat("worker:0")
    scene.say(events.SessionOpened, "worker:0")
    scene.say(events.ProgressMade, "worker:0", 1, 5, {})
    assert scene.words() == before


# --- GPUs -----------------------------------------------------------------------------------------


def gpu_words(scene: Recording) -> list[str]:
    return scene.words("gpu.")


def test_a_gpu_is_granted_and_given_back() -> None:
    scene = RecordingGpus({"worker:0": "a"})
    scene.start()
    scene.say(events.SessionOpened, "worker:0")  # it is told of its lease again
    scene.end("worker:0", gpus=(free("a"),))
    assert gpu_words(scene) == ["gpu.granted a", "gpu.released a"]
    assert scene.said("gpu.granted").startswith("GPU a on host is granted to worker:0 of run run-1")


def test_a_gpu_that_is_not_proven_free_is_quarantined_in_the_end() -> None:
    """O10"""
    scene = RecordingGpus({"worker:0": "a"})
    scene.start()
    scene.end("worker:0", gpus=(busy("a", "a process that is left", 4711),))
    scene.wait(100.0)
    assert gpu_words(scene) == ["gpu.granted a", "gpu.unproven a", "gpu.quarantined a"]


def every_sentence(act: Callable[[LeaseBook], None]) -> list[str]:
    book = LeaseBook("book")
    book.see("host", "boot", [free("a")], 0.0)
    act(book)
    return [news.text for news in book.take_effects() if isinstance(news, Told)]


def hold(book: LeaseBook) -> None:
    book.acquire(request("r"), 0.0)


def unproven(book: LeaseBook) -> None:
    hold(book)
    book.lose("r", "worker:0", "its host is quarantined: GPU b was found free", 0.0)


def occupied(book: LeaseBook) -> None:
    book.see("host", "boot", [busy("a")], 0.0)


def proven(book: LeaseBook) -> None:
    unproven(book)
    book.inspected("host", "boot", book.look(["a"]), [free("a")], 1.0)


def restarted(book: LeaseBook) -> None:
    unproven(book)
    book.inspected("host", "another boot", book.look(["a"]), [free("a")], 1.0)


def quarantined(book: LeaseBook) -> None:
    unproven(book)
    book.pass_time(1_000.0)


def put_aside(book: LeaseBook) -> None:
    book.quarantine("a", "it was cleared by an operator of yours", 0.0)


def cleared(book: LeaseBook) -> None:
    put_aside(book)
    book.clear("a", "it is in use by nobody", 0.0)


@pytest.mark.parametrize(
    "act, kind",
    [
        (unproven, kinds.GPU_UNPROVEN),
        (occupied, kinds.GPU_OCCUPIED),
        (proven, kinds.GPU_PROVEN),
        (restarted, kinds.GPU_PROVEN),
        (quarantined, kinds.GPU_QUARANTINED),
        (put_aside, kinds.GPU_QUARANTINED),
        (cleared, kinds.GPU_CLEARED),
    ],
)
def test_the_words_of_the_book_have_their_kinds(
    act: Callable[[LeaseBook], None], kind: str
) -> None:
    """Whatever its author has put into a reason."""
    assert kind_of(every_sentence(act)[-1]) == (kind, "a")


def test_a_lease_that_lapses_is_told_in_its_run() -> None:
    scene = RecordingGpus({"worker:0": "a", "worker:1": "b"}, fence_timeout=30.0)
    scene.start()
    scene.wait(31.0, beating=["worker:1"])
    lapsed = [each for each in scene.recorded if each.kind == kinds.GPU_LAPSED]
    assert [(each.subject, each.run_id) for each in lapsed] == [("a", RUN), ("b", RUN)]


def test_what_others_than_runs_do_with_gpus_is_recorded() -> None:
    """As the engine tells it, without an event."""
    scene = Recording(Roles(worker=1))
    book = scene.machine.book

    def settle() -> None:
        scene.chronicle.observe(None, scene.machine.settle_gpus(0.0))

    book.see("host", "boot", [free("a")], 0.0)
    book.acquire(request("somebody"), 0.0)
    settle()
    book.release("somebody", "worker:0", [GpuSight("a", is_free=True)], 1.0)
    settle()
    settle()
    assert gpu_words(scene) == ["gpu.granted a", "gpu.released a"]


# --- the coordinator ------------------------------------------------------------------------------


def test_what_was_there_before_is_no_news() -> None:
    """After a restart."""
    scene = Scene(Roles(worker=1))
    scene.form()
    log = EventLog(lambda: 0.0, first_id=100)
    chronicle = Chronicle(log, scene.machine, lambda run: scene.machine.view(run, 0.0))
    chronicle.begin(has_past=True)
    beat = events.Heard(RUN, scene.slots[0], scene.attempt("worker:0"))
    chronicle.observe(beat, scene.handle(beat))
    [event] = log.kept
    assert (event.id, event.kind) == (100, kinds.COORDINATOR_RESTARTED)
    assert "1 runs that go on" in event.text


def test_a_pause_of_the_coordinator_is_recorded_and_is_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    scene = Recording(Roles(worker=1))
    with caplog.at_level(logging.WARNING):
        scene.chronicle.observe(events.CoordinatorPaused(12.5), ())
    assert "did not run for 12.5 s" in scene.said(kinds.COORDINATOR_PAUSED)
    assert "did not run for 12.5 s" in caplog.text


def test_what_is_recorded_is_logged_with_its_fields(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, logger="tflease.coordinator"):
        scene = Recording(Roles(worker=1))
        scene.reserve("worker:0")
    lines = [record.getMessage() for record in caplog.records]
    assert lines[1] == f"run {RUN}: worker:0 has a place on host as worker:0/1"
    assert caplog.records[1].__dict__["run_id"] == RUN
    assert caplog.records[1].__dict__["subject"] == "worker:0"
    levels = [record.levelname for record in caplog.records]
    assert levels == ["INFO", "DEBUG"], "the routine of thousands is for those who look for it"


def test_every_word_that_is_used_is_in_the_vocabulary() -> None:
    named = {value for name, value in vars(kinds).items() if name.isupper() and name != "KINDS"}
    assert named == set(kinds.KINDS)
