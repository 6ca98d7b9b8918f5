"""What errors say of what opens a store: nothing."""

from __future__ import annotations

import traceback
from typing import Any

import pytest

from executor_agent.ingest.errors import FetchError, FetchStopped
from executor_agent.ingest.fetching import Wanted
from executor_agent.ingest.secrets import discreet
from executor_agent.ingest.store import Remote, Source
from tests.ingest.conftest import MakeMember

OPTIONS: dict[str, Any] = {
    "key": "an access key",
    "secret": "a secret key",
    "endpoint_url": "http://minio:9000",
    "client_kwargs": {"headers": {"Authorization": "Bearer abcd"}},
    "anon": False,
}


def caused(error: Exception, cause: Exception) -> Exception:
    try:
        raise error from cause
    except Exception as raised:
        return raised


@pytest.mark.parametrize(
    "error, told",
    [
        (FetchStopped("with a secret key"), "with ***"),
        (
            ValueError("Bearer abcd is no token of http://minio:9000"),
            "*** is no token of http://mi",
        ),
        (KeyError("a secret key"), "KeyError: '***'"),
        (OSError("https://host/x?sig=1 is away"), "OSError: https://host/x is away"),
        (caused(FetchError("x"), OSError("with a secret key")), "x"),
    ],
)
def test_what_has_a_secret_is_said_without_it(error: Exception, told: str) -> None:
    said = discreet(error, OPTIONS)
    assert str(said).startswith(told)
    assert type(said) is (type(error) if type(error) in (FetchStopped, ValueError) else FetchError)
    text = "".join(traceback.format_exception(said))
    assert "secret key" not in text
    assert "sig=" not in text


def test_what_has_none_is_left_as_it_is() -> None:
    error = caused(FetchError("http://minio:9000 is away"), OSError("no route"))
    assert discreet(error, OPTIONS) is error


def test_no_picture_of_a_value_shows_one() -> None:
    source = Source("https://host/x?sig=secret", object(), "https://host/x?sig=secret")
    assert "secret" not in repr(Remote(source, 1, None, None))
    assert "secret" not in repr(Wanted("?secret", None, 1, None, None, OPTIONS))  # type: ignore[arg-type]


def test_the_whole_traceback_of_a_fetch_is_free_of_secrets(member: MakeMember) -> None:
    """Its lines of code show no values."""
    words = ["".join(each) for each in (("swor", "dfish"), ("open", "sesame"), ("joshua", "1983"))]
    url = f"http://me:{words[0]}@127.0.0.1:9/x?signature={words[1]}"  # nobody listens there
    options = {"headers": {"X-Token": words[2]}}
    with pytest.raises(FetchError, match="could not be read") as caught:
        member().ctx.fetch(url, retries=0, storage_options=options)
    text = "".join(traceback.format_exception(caught.value))
    assert not [word for word in words if word in text]
    assert "me:***@127.0.0.1:9/x" in text
