"""Outcomes survive the disk; innocents are told from culprits."""

import asyncio
import concurrent.futures
import json

import pytest

from executor_agent.core import outcome as outcomes
from executor_agent.core.outcome import (
    Outcome,
    Status,
    describe,
    is_peer_lost,
    payload_message,
    preload_message,
)

ERRORS_MODULE = "tensorflow.python.framework.errors_impl"


def tensorflow_error(name: str, message: str = "", base: type[Exception] = Exception) -> Exception:
    """An exception whose class looks like TensorFlow's, without TensorFlow."""
    return type(name, (base,), {"__module__": ERRORS_MODULE})(message)


def raised(error: BaseException, *, cause: object = ..., context: BaseException | None = None):  # type: ignore[no-untyped-def]
    """`error` as it looks after `raise error from cause`, while handling `context`."""
    error.__context__ = context
    if cause is not ...:
        error.__cause__ = cause  # type: ignore[assignment]  # this sets __suppress_context__ too
    return error


def test_an_outcome_survives_the_disk() -> None:
    outcome = Outcome(Status.RAISED, "ValueError", "no", "Traceback ...", True, 1, False, 2.5)
    assert Outcome.loads(outcome.dumps()) == outcome
    assert json.loads(outcome.dumps())["status"] == "raised"


def test_fields_of_a_newer_version_are_ignored() -> None:
    assert Outcome.from_json({"status": "returned", "colour": "red"}) == Outcome(Status.RETURNED)


@pytest.mark.parametrize("value", [None, [], {}, {"status": "vanished"}])
def test_what_is_no_outcome_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="outcome"):
        Outcome.from_json(value)


def test_a_text_of_megabytes_loses_its_middle() -> None:
    text = "first line\n" + "x" * 10_000_000 + "\nlast line"
    written = Outcome(Status.RAISED, message=text, traceback=text).to_json()
    for key in ("message", "traceback"):
        assert written[key].startswith("first line")
        assert written[key].endswith("last line")
        assert "characters left out" in written[key]
    assert len(json.dumps(written)) < 2 * outcomes.MAX_TRACEBACK_CHARACTERS


def test_an_exception_whose_text_fails_is_described_all_the_same() -> None:
    class Hostile(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    outcome = describe(Hostile(), "Traceback ...", Status.RAISED, 1)
    assert outcome.message == "(its text could not be made)"
    assert outcome.exception_type is not None
    assert outcome.exception_type.endswith("Hostile")


def test_a_failed_import_says_where_and_what_to_do() -> None:
    error = ModuleNotFoundError("No module named 'tensorflow'")
    outcome = describe(error, "", Status.PRELOAD_FAILED, 3)
    message = preload_message("tensorflow.keras", "host-1", "/opt/bin/python", "3.11.7", outcome)
    for part in (
        "'tensorflow.keras' on host host-1",
        "/opt/bin/python -m pip install tensorflow)",
        "PYSPARK_PYTHON",
        "No module named 'tensorflow'",
    ):
        assert part in message


def test_a_payload_that_cannot_be_read_says_what_to_do() -> None:
    outcome = describe(ModuleNotFoundError("No module named 'mine'"), "", Status.PAYLOAD_FAILED, 4)
    message = payload_message("host-1", "/opt/bin/python", outcome)
    assert "No module named 'mine'" in message
    assert "addPyFile" in message


@pytest.mark.parametrize(
    "error",
    [
        tensorflow_error("UnavailableError"),
        tensorflow_error("AbortedError"),
        tensorflow_error("CancelledError"),
        tensorflow_error("DeadlineExceededError"),
        tensorflow_error("PSUnavailableError", base=type(tensorflow_error("UnavailableError"))),
        tensorflow_error("InternalError", "Collective ops is aborted by: Socket closed"),
        tensorflow_error("UnknownError", "failed to connect to all addresses; last error: ..."),
        ConnectionResetError(),
        BrokenPipeError(),
        ConnectionRefusedError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_these_are_what_a_lost_peer_looks_like(error: Exception) -> None:
    assert is_peer_lost(error)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("bad shape"),
        asyncio.CancelledError(),
        concurrent.futures.CancelledError(),
        KeyboardInterrupt(),
        MemoryError(),
        FileNotFoundError(),
        RuntimeError("Socket closed"),  # only TensorFlow's own text counts
        tensorflow_error("InvalidArgumentError", "shapes"),
        tensorflow_error("ResourceExhaustedError", "OOM when allocating"),
        tensorflow_error("InternalError", "cuDNN"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_these_are_a_members_own(error: BaseException) -> None:
    assert not is_peer_lost(error)


def test_a_wrapped_lost_peer_is_one() -> None:
    assert is_peer_lost(raised(RuntimeError("failed"), cause=tensorflow_error("AbortedError")))


def test_what_fails_while_a_lost_peer_is_handled_is_one() -> None:
    lost = tensorflow_error("UnavailableError")
    assert is_peer_lost(raised(FileNotFoundError("last checkpoint"), context=lost))


def test_a_lost_peer_hidden_by_from_none_does_not_count() -> None:
    lost = tensorflow_error("UnavailableError")
    assert not is_peer_lost(raised(ValueError("no"), cause=None, context=lost))


def test_the_coordinators_wrapper_is_as_good_as_what_it_wraps() -> None:
    wrapper = tensorflow_error("ClosureInputError", "Input has an error")
    wrapper.original_exception = tensorflow_error("UnavailableError")  # type: ignore[attr-defined]
    assert is_peer_lost(wrapper)
    wrapper.original_exception = ValueError("Socket closed")  # type: ignore[attr-defined]
    assert not is_peer_lost(wrapper)


def test_of_a_group_every_member_has_to_be_one() -> None:
    lost = [ConnectionResetError(), tensorflow_error("AbortedError")]
    assert is_peer_lost(ExceptionGroup("all", lost))
    assert not is_peer_lost(ExceptionGroup("one is not", [*lost, ValueError()]))


def test_a_chain_that_bites_its_tail_ends() -> None:
    first, second = ValueError(), ValueError()
    first.__context__, second.__context__ = second, first
    assert not is_peer_lost(first)
