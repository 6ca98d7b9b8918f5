"""Tokens: made of the operator's alone, good for one role, and worth nothing when touched."""

from __future__ import annotations

import hmac
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.core.access import CALLS, Principal, Role, may_call
from coordinator.security import Keyring, new_token, role_of

KEYRING = Keyring("the operator's secret")
DERIVED = [role for role in Role if role is not Role.OPERATOR]


def test_the_operator_s_token_is_everything() -> None:
    assert KEYRING.principal_of("the operator's secret") == Principal(Role.OPERATOR)


@pytest.mark.parametrize("role", DERIVED)
def test_a_token_names_its_principal_and_is_the_same_every_time(role: Role) -> None:
    """Stateless: a daemon that was restarted knows it, and so does whoever makes it offline."""
    principal = Principal(role, "run-1_A")
    token = KEYRING.token_for(principal)
    assert Keyring("the operator's secret").token_for(principal) == token
    assert KEYRING.principal_of(token) == principal
    assert role_of(token) is role


@pytest.mark.parametrize("role", DERIVED)
def test_a_new_operator_s_token_ends_all_others(role: Role) -> None:
    token = Keyring(new_token()).token_for(Principal(role, "x"))
    assert Keyring(new_token()).principal_of(token) is None


def test_tokens_differ_by_role_and_name() -> None:
    made = {KEYRING.token_for(Principal(role, name)) for role in DERIVED for name in ("a", "b")}
    assert len(made) == 2 * len(DERIVED)


@pytest.mark.parametrize("name", ["", "a.b", "a b", "a\n", "\N{SNOWMAN}", "a\0b", "x" * 65, "a/b"])
def test_a_name_must_fit_into_a_header_and_into_a_token(name: str) -> None:
    with pytest.raises(ValueError, match="letters, digits"):
        KEYRING.token_for(Principal(Role.READER, name))


def test_nobody_makes_an_operator() -> None:
    with pytest.raises(ValueError, match="secret of its own"):
        KEYRING.token_for(Principal(Role.OPERATOR, "x"))
    mac = KEYRING.token_for(Principal(Role.READER, "x")).rpartition(".")[2]
    assert KEYRING.principal_of(f"operator.x.{mac}") is None
    # Not even with the right mac: what is signed for an operator opens nothing.
    signed = KEYRING._mac(Principal(Role.OPERATOR, "x"))
    assert KEYRING.principal_of(f"operator.x.{signed}") is None


GOOD = KEYRING.token_for(Principal(Role.AGENT, "run"))
MAC = GOOD.rpartition(".")[2]


@pytest.mark.parametrize(
    "token",
    [
        "",
        ".",
        "..",
        "agent",
        "agent.run",
        "agent.run.",
        f"agent..{MAC}",
        f".run.{MAC}",
        f"agent.ru.{MAC}",
        f"agent.run.x.{MAC}",
        f"owner.run.{MAC}",
        f"submitter.run.{MAC}",
        f"AGENT.run.{MAC}",
        f"agent.run.{MAC[:-1]}",
        f"agent.run.{MAC}0",
        f"agent.run.{MAC.upper()}",
        f" {GOOD}",
        f"{GOOD} ",
        f"{GOOD}\0",
        GOOD * 2,
        "x" * 1_000_000,
        "the operator's secre",
        "the operator's secret ",
        "\N{SNOWMAN}.run.\N{SNOWMAN}",
        f"agent.\N{SNOWMAN}.{MAC}",
        "\udcff",
        f"agent.\udcff.{MAC}",
    ],
)
def test_garbage_is_nobody_s(token: str) -> None:
    assert KEYRING.principal_of(token) is None


@given(st.text(max_size=600))
def test_no_text_is_anybody_s_or_an_error(token: str) -> None:
    assert KEYRING.principal_of(token) is None


@given(st.integers(0, len(GOOD) - 1), st.sampled_from(string.ascii_letters + string.digits + "._-"))
def test_a_token_of_which_one_character_is_another_is_nobody_s(at: int, char: str) -> None:
    touched = GOOD[:at] + char + GOOD[at + 1 :]
    assert (KEYRING.principal_of(touched) is not None) == (touched == GOOD)


def test_every_comparison_takes_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """No token is taken but by a comparison that does not end at the first difference."""
    monkeypatch.setattr(hmac, "compare_digest", lambda a, b: False)
    for token in (
        "the operator's secret",
        *(KEYRING.token_for(Principal(r, "x")) for r in DERIVED),
    ):
        assert KEYRING.principal_of(token) is None


def test_what_a_token_says_of_itself_may_be_asked_without_the_secret() -> None:
    assert role_of("reader.alice.forged") is Role.READER
    assert role_of(new_token()) is None
    assert role_of("reader") is None
    assert role_of("boss.alice.mac") is None


# -- the table of calls ----------------------------------------------------------------------------


def calls_of(role: Role) -> set[str]:
    return {name for name in CALLS if may_call(role, name)}


def test_an_operator_may_call_everything_and_nobody_what_is_not_there() -> None:
    assert calls_of(Role.OPERATOR) == set(CALLS)
    assert not any(may_call(role, "RunService/NoSuchMethod") for role in Role)


def test_a_reader_changes_nothing() -> None:
    verbs = {name.partition("/")[2] for name in calls_of(Role.READER)}
    assert verbs
    assert all(verb.startswith(("Get", "List", "Watch", "Read")) for verb in verbs)


def test_an_agent_reserves_attends_and_sends_files_and_no_more() -> None:
    """It cannot stop its run: a member's code could have its token."""
    mine = {"ReservationService/Reserve", "ReservationService/Attend", "FileService/SendFiles"}
    assert calls_of(Role.AGENT) == mine


def test_a_run_s_tokens_see_no_list_of_all() -> None:
    for role in (Role.OWNER, Role.AGENT):
        assert not any("/List" in name or "/Create" in name for name in calls_of(role))


def test_a_submitter_commands_no_run_and_no_host() -> None:
    """What stops a run is the owner's token that came with it."""
    mine = calls_of(Role.SUBMITTER)
    assert "RunService/CreateRun" in mine
    for name in ("StopRun", "OwnRun", "ReportScheduling", "ReportTaskEnd"):
        assert f"RunService/{name}" not in mine
    for name in ("ReportGpus", "InspectGpus", "QuarantineGpu", "ClearGpu"):
        assert f"GpuLeaseService/{name}" not in mine
