"""Which errors another try may cure, and what users are told."""

from __future__ import annotations

import pytest

from executor_agent.ingest.errors import advice, is_missing, is_refusal, may_pass


class Answered(Exception):
    """As libraries have them: with the status of the answer."""

    def __init__(self, status: int) -> None:
        super().__init__("")
        self.status = status


class NoCredentialsError(Exception):
    """botocore's, by its name."""


def not_found(cause: Exception | None) -> FileNotFoundError:
    error = FileNotFoundError("http://host/x")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "error",
    [
        TimeoutError(),
        ConnectionResetError(),
        OSError(16, "slow down"),
        Answered(503),
        Answered(429),
        not_found(ConnectionRefusedError()),
        not_found(Answered(500)),
        Exception("unknown"),
    ],
)
def test_what_may_pass_is_tried_again(error: Exception) -> None:
    assert may_pass(error)
    assert "however often it was tried" in advice(error, "s3://b/x")


@pytest.mark.parametrize(
    "error", [PermissionError(), Answered(403), NoCredentialsError(), not_found(Answered(401))]
)
def test_a_refusal_is_final_and_sends_to_the_credentials(error: Exception) -> None:
    assert is_refusal(error)
    assert not may_pass(error)
    assert "credentials" in advice(error, "s3://b/x")


@pytest.mark.parametrize("error", [not_found(None), not_found(Answered(404)), Answered(404)])
def test_what_is_missing_is_final_and_sends_to_the_names(error: Exception) -> None:
    assert is_missing(error)
    assert not may_pass(error)
    assert "does not exist" in advice(error, "s3://b/x")


@pytest.mark.parametrize("error", [ValueError("x"), TypeError("x"), IsADirectoryError("x")])
def test_a_mistake_is_final(error: Exception) -> None:
    assert not may_pass(error)
    assert advice(error, "s3://b/x") == f"s3://b/x cannot be read: {type(error).__name__}: x"
