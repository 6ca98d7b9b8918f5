"""Runs and results as HTML: nothing that users or members write gets out of its cell."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser

import pytest

from coordinator.core.model import (
    Cause,
    ExecutorInfo,
    ExitReport,
    Failure,
    MemberId,
    MemberPhase,
    MemberView,
    Restart,
    Role,
    Roles,
    RunId,
    RunPhase,
    RunSpec,
    RunView,
)
from coordinator.spark import views
from coordinator.spark.feed.report import EpochReport, FeedReport
from coordinator.spark.results import RunResult

HOSTILE = '</td></table><script>alert("1")</script><img src=x onerror=alert(1)>&amp;\u202e\x1b[2J'


class Page(HTMLParser):
    """What a browser would see."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.open: list[str] = []
        self.text = ""
        self.feed(content)
        self.close()
        assert not self.open, "every element is closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.open.append(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def page(content: str) -> Page:
    found = Page(content)
    assert set(found.tags) <= {"div", "b", "span", "table", "thead", "tbody", "tr", "th", "td"}
    assert found.attributes == {"style"}
    return found


def a_run(workers: int = 2) -> RunView:
    executor = ExecutorInfo("host-a", "boot", 1)
    members = tuple(
        MemberView(MemberId(Role.WORKER, index), MemberPhase.RUNNING, 0.0, executor=executor)
        for index in range(workers)
    )
    spec = RunSpec(Roles(worker=workers), name="mnist")
    return RunView(RunId("run"), spec, RunPhase.RUNNING, 1, members, 0.0, 1)


def with_member(run: RunView, index: int, member: MemberView) -> RunView:
    return replace(run, members=(*run.members[:index], member, *run.members[index + 1 :]))


def test_a_run_with_its_members() -> None:
    run = a_run()
    member = replace(run.members[1], step=1200, metrics={"loss": 0.12345})
    text = page(views.run(with_member(run, 1, member))).text
    for part in ("mnist", "2 of 2 members running, step 1200", "worker:1", "1,200", "loss 0.1235"):
        assert part in text


def test_steps_of_a_known_number_are_a_bar() -> None:
    run = a_run()
    assert "width:" not in views.run(run), "how far it is is not known"
    metrics = {"loss": 0.5, "total_steps": 1600.0}
    content = views.run(with_member(run, 0, replace(run.members[0], step=1200, metrics=metrics)))
    assert "width:75.0%" in content
    assert "1,200 of 1,600" in page(content).text
    assert "total_steps" not in content


@pytest.mark.parametrize("total", [float("nan"), float("inf"), -1.0, 0.0, 10.0])
def test_a_strange_number_of_steps_spoils_no_page(total: float) -> None:
    member = replace(a_run().members[0], step=1200, metrics={"total_steps": total})
    content = views.run(with_member(a_run(), 0, member))
    page(content)
    assert "width:1200" not in content


def test_forming_and_stopping_have_a_bar_of_members() -> None:
    run = a_run()
    ready = replace(run.members[0], phase=MemberPhase.READY)
    forming = replace(with_member(run, 0, ready), phase=RunPhase.FORMING)
    assert "width:50.0%" in views.run(forming)
    gone = replace(run.members[0], phase=MemberPhase.STOPPED)
    stopping = replace(with_member(run, 0, gone), phase=RunPhase.STOPPING)
    assert "width:50.0%" in views.run(stopping)
    assert "width:" not in views.run(replace(run, phase=RunPhase.SUCCEEDED))


def test_what_a_program_reports_comes_before_what_we_count() -> None:
    fetched = {"fetch/bytes": 3e4, "fetch/total_bytes": 3e4, "fetch/files": 4.0}
    metrics = {**fetched, "checkpoint/saved_at": 1.795e9, "loss": 0.25, "train/accuracy": 0.5}
    member = replace(a_run().members[0], step=7, metrics=metrics)
    text = page(views.run(with_member(a_run(), 0, member))).text
    assert "loss 0.25, train/accuracy 0.5, fetch/bytes 3e+04, fetch/files 4, and 1 more" in text


def test_a_failed_run_says_why() -> None:
    run = a_run()
    report = ExitReport(Cause.USER_EXCEPTION, exception_type="ValueError")
    member = replace(run.members[0], phase=MemberPhase.EXITED, exit=report)
    failure = Failure(Cause.USER_EXCEPTION, "worker:0 raised ValueError: bad labels")
    run = replace(with_member(run, 0, member), phase=RunPhase.FAILED, failure=failure)
    text = page(views.run(run)).text
    assert "failed: worker:0 raised ValueError: bad labels" in text
    assert "user exception, ValueError" in text


def test_hostile_names_and_errors_stay_text() -> None:
    report = ExitReport(Cause.USER_EXCEPTION, exception_type=HOSTILE, reason=HOSTILE)
    run = a_run()
    member = replace(
        run.members[0],
        phase=MemberPhase.EXITED,
        exit=report,
        executor=ExecutorInfo(HOSTILE, HOSTILE, 1),
        metrics={HOSTILE: float("nan")},
        gpus=(HOSTILE,),
    )
    run = replace(
        with_member(run, 0, member),
        spec=RunSpec(Roles(worker=2), name=HOSTILE, gpus=Roles(worker=1)),
        failure=Failure(Cause.USER_EXCEPTION, HOSTILE),
        restarts=(Restart(0.0, 1, Cause.USER_EXCEPTION, HOSTILE),),
        restart_count=1,
        diagnosis=(HOSTILE,),
    )
    for phase in RunPhase:
        found = page(views.run(replace(run, phase=phase, stop_reason=HOSTILE)))
        assert "<script>" in found.text, "shown, as text"
        assert "\u202e" not in found.text
        assert "\x1b" not in found.text


class Unshowable:
    def __repr__(self) -> str:
        raise RuntimeError(HOSTILE)


def test_a_result_shows_what_was_returned_and_what_is_missing() -> None:
    returned = {"chief:0": {"accuracy": 0.9}, "worker:0": HOSTILE, "worker:1": Unshowable()}
    result = RunResult("run", HOSTILE, returned, 12.3, {"ps:0": HOSTILE}, generations=2)
    text = page(result._repr_html_()).text
    assert "{'accuracy': 0.9}" in text
    assert "<Unshowable, which cannot be shown: RuntimeError>" in text
    assert "12.3 s, started together 2 times" in text
    assert "missing" in text


def test_a_feeds_report() -> None:
    epochs = tuple(EpochReport(number, 1000, 1.0) for number in range(1, 201))
    text = page(FeedReport("input", epochs, 200.0, stopped=HOSTILE)._repr_html_()).text
    assert "200,000 rows" in text
    assert "and 150 more epochs" in text
    assert "<script>" in text


@pytest.mark.parametrize("workers", [views.MAX_ROWS, 5000])
def test_very_many_members_fit_on_a_page(workers: int) -> None:
    run = a_run(workers)
    lost = replace(run.members[-1], phase=MemberPhase.LOST)
    content = views.run(with_member(run, workers - 1, lost))
    assert len(content) < 64 * 1024
    assert f"worker:{workers - 1}" in page(content).text, "the one in trouble is shown"
    assert ("4,950 more members" in content) is (workers == 5000)


def test_very_long_texts_are_cut() -> None:
    result = RunResult("run", "x" * 10_000, {"chief:0": "y" * 10**6}, 1.0)
    assert len(result._repr_html_()) < 4000
