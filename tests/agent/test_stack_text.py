"""How the stacks of a process are put, whoever told them."""

from __future__ import annotations

import json

import pytest

from coordinator.core.stalls import is_waiting_for_others
from executor_agent.core.stacks import (
    END,
    LIMIT,
    Answering,
    has_thread,
    limited,
    of_faulthandler,
    of_py_spy,
    of_python,
    put,
)

STEP = ("/app/train.py", 12, "step")
MAIN_FUN = ("/app/train.py", 30, "main_fun")
READ = ("/app/read.py", 5, "read")

PUT = """\
Main thread (most recent call first):
  File "/app/train.py", line 12 in step
  File "/app/train.py", line 30 in main_fun

Thread "reader" (most recent call first):
  File "/app/read.py", line 5 in read

Thread "native" (most recent call first):
  <no Python frame>
"""

FAULTHANDLER = """\
Current thread 0x00007f10b8d5e6c0 (most recent call first):
  File "/app/read.py", line 5 in read

Thread 0x00007f10c8d5e740 (most recent call first):
  File "/app/train.py", line 12 in step
  File "/app/train.py", line 30 in main_fun
"""
MAIN_THREAD = 0x7F10C8D5E740


def test_the_main_thread_comes_first_and_the_innermost_frame_of_each() -> None:
    assert put([STEP, MAIN_FUN], [("reader", [READ]), ("native", [])]) == PUT


def test_an_answer_that_is_not_whole_is_none() -> None:
    assert of_python(PUT) is None
    assert of_python("") is None
    assert of_python(PUT + END) == PUT
    assert of_python(FAULTHANDLER + PUT + END) == PUT, "it came after all"


def test_what_faulthandler_writes_is_put_in_order() -> None:
    assert has_thread(FAULTHANDLER, MAIN_THREAD)
    assert not has_thread(FAULTHANDLER[:100], MAIN_THREAD)
    assert of_faulthandler(FAULTHANDLER, MAIN_THREAD) == (
        "Main thread (most recent call first):\n"
        '  File "/app/train.py", line 12 in step\n'
        '  File "/app/train.py", line 30 in main_fun\n'
        "\n"
        "Thread 0x00007f10b8d5e6c0 (most recent call first):\n"
        '  File "/app/read.py", line 5 in read\n'
    )


def test_after_a_hundred_threads_faulthandler_has_given_up() -> None:
    text = FAULTHANDLER + "...\n"
    assert has_thread(text, 1)
    assert of_faulthandler(text, 1).startswith("Thread 0x00007f10b8d5e6c0")


def test_what_py_spy_says_is_put_the_same_way() -> None:
    def frames(*them: tuple[str, int, str]) -> list[dict[str, object]]:
        return [
            {"name": name, "filename": path, "short_filename": None, "line": line}
            for path, line, name in them
        ]

    threads = [
        {"thread_id": 1, "thread_name": "reader", "frames": frames(READ)},
        {"thread_id": 2, "thread_name": "MainThread", "frames": frames(STEP, MAIN_FUN)},
        {"thread_id": 3, "thread_name": "native", "frames": []},
    ]
    assert of_py_spy(json.dumps(threads).encode()) == PUT


@pytest.mark.parametrize("output", [b"", b"Error: no", b"[]", b"{}", b"[1]", b'[{"frames": [{}]}]'])
def test_what_py_spy_does_not_say_is_an_error(output: bytes) -> None:
    with pytest.raises(ValueError):
        of_py_spy(output)


def test_who_stands_in_user_code_can_be_told_from_who_waits() -> None:
    """The verdict on a stall reads these texts."""
    waits = ("/lib/tensorflow/python/eager/execute.py", 53, "quick_execute")
    assert is_waiting_for_others(put([waits, STEP], [("reader", [READ])]))
    assert not is_waiting_for_others(put([STEP], [("waiter", [waits])]))


def test_the_answer_is_bounded_in_whole_lines() -> None:
    text = limited(put([("/app/ä.py", 1, "recursive")] * 1000, []))
    assert len(text.encode()) <= LIMIT
    assert text.endswith(" in recursive\n  ... (more is left out)\n")
    assert limited(PUT) == PUT


@pytest.mark.parametrize("line", [b"", b"{}", b"[]", b"no json", b'{"pid": 1}'])
def test_a_first_line_that_is_not_ours_is_refused(line: bytes) -> None:
    with pytest.raises(ValueError, match="not the first line of 'stacks'"):
        Answering.from_json(line)
