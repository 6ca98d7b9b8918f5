"""What becomes of a failure, by its cause."""

from __future__ import annotations

import math
import pickle
from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest

from coordinator.core.causes import Cause
from coordinator.core.errors import InvalidRun
from coordinator.core.policy import NO_RESTARTS, Action, RestartPolicy


@pytest.mark.parametrize("cause", list(Cause))
def test_without_a_policy_nothing_is_restarted(cause: Cause) -> None:
    assert NO_RESTARTS.action(cause) is Action.FAIL


def test_what_comes_from_outside_is_restarted_and_the_programs_own_errors_are_not() -> None:
    restarted = {cause for cause in Cause if RestartPolicy().action(cause) is not Action.FAIL}
    assert restarted == {
        Cause.KILLED_BY_SIGNAL,
        Cause.OUT_OF_MEMORY,
        Cause.LOST_CONTACT,
        Cause.PREEMPTED,
        Cause.AGENT_LOST,
        Cause.PEER_LOST,
        Cause.STALLED,
        Cause.GPU_LOST,
    }


def test_causes_and_actions_are_also_known_by_their_names() -> None:
    policy = RestartPolicy(on={"user exception": "restart gang"})
    assert policy.action(Cause.USER_EXCEPTION) is Action.RESTART_GANG
    assert policy.action(Cause.KILLED_BY_SIGNAL) is Action.RESTART


@pytest.mark.parametrize("action", list(Action))
@pytest.mark.parametrize("cause", [Cause.COMPLETED, Cause.STOPPED, Cause.GANG_INCOMPLETE])
def test_what_is_no_failure_of_a_gang_cannot_be_named(cause: Cause, action: Action) -> None:
    with pytest.raises(InvalidRun) as caught:
        RestartPolicy(on={cause: action})
    assert f"nothing is ever restarted after {cause.value!r}; causes are '" in str(caught.value)
    assert f"'{cause.value}'" not in str(caught.value).partition("causes are")[2]
    assert RestartPolicy().action(cause) is Action.FAIL


def test_a_policy_can_be_changed_and_compared_like_any_value() -> None:
    """Its ``__init__`` is made by hand."""
    rest: dict[str, Any] = {"backoff": 3.0, "max_backoff": 4.0, "progress_refills": False}
    policy = RestartPolicy(2, on={"stalled": "fail"}, alone=False, **rest)
    assert replace(policy, alone=True) == RestartPolicy(2, on={Cause.STALLED: Action.FAIL}, **rest)
    assert pickle.loads(pickle.dumps(policy)) == policy
    defaults: dict[str, Any] = {"on": {}, "backoff": 1.0, "max_backoff": 60.0, "alone": True}
    assert RestartPolicy() == RestartPolicy(3, progress_refills=True, **defaults)
    with pytest.raises(FrozenInstanceError):
        policy.alone = True  # type: ignore[misc]


def test_only_the_number_of_restarts_may_go_without_its_name() -> None:
    with pytest.raises(TypeError, match="positional"):
        RestartPolicy(3, {})  # type: ignore[misc]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"max_restarts": -1}, "max_restarts=-1"),
        ({"max_restarts": True}, "max_restarts=True"),
        ({"max_restarts": 1.5}, "max_restarts=1.5"),
        ({"backoff": -1.0}, "backoff=-1.0"),
        ({"backoff": math.nan}, "backoff=nan"),
        ({"max_backoff": math.inf}, "max_backoff=inf"),
        ({"on": {"user error": "restart"}}, "causes are 'user exception'"),
        ({"on": {"killed by signal": "again"}}, "actions are 'fail', 'restart', 'restart gang'"),
        ({"on": ["killed by signal"]}, "must be a mapping"),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused_with_what_would(changes: dict, said: str) -> None:
    with pytest.raises(InvalidRun, match=said):
        RestartPolicy(**changes)


def test_the_first_restart_waits_for_nothing_and_the_others_twice_as_long_each() -> None:
    policy = RestartPolicy(backoff=1.5, max_backoff=10.0)
    assert [policy.delay(count) for count in range(6)] == [0.0, 1.5, 3.0, 6.0, 10.0, 10.0]
    assert policy.delay(10_000) == 10.0
