"""What runs may be like, and what may happen to them: the strategies of the property tests."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from coordinator.core.durable import COME_BACK
from coordinator.core.liveness import STOP_BOUND
from coordinator.core.model import Cause, Role, Roles, RunSpec
from coordinator.core.policy import NO_RESTARTS, Action, RestartPolicy

LIVENESS_TTL, FENCE_TIMEOUT, RESERVATION_TIMEOUT, MAX_GRACE = 4.0, 12.0, 60.0, 8.0
TIME_TO_END = COME_BACK + 3 * (MAX_GRACE + STOP_BOUND) + FENCE_TIMEOUT + STOP_BOUND
"""The search for the culprit, or else what a restart adds to it; three stages, and a fence."""
TIME_TO_RESTART = TIME_TO_END + COME_BACK + 2 * RESERVATION_TIMEOUT
"""The same once more before the last generation, for which nobody comes; perhaps a member was
awaited alone first."""

NEVER = float("inf")
REPORTED = [  # the others are Spark's word, and the coordinator's own
    cause for cause in Cause if cause not in (Cause.TASK_FAILED, Cause.GANG_INCOMPLETE)
]

roles = st.builds(
    Roles,
    chief=st.integers(0, 1),
    worker=st.integers(0, 2),
    ps=st.integers(0, 1),
    evaluator=st.integers(0, 1),
).filter(lambda asked: asked.chief + asked.worker > 0)
pick = st.integers(0, 1000)
"""An index into what there is at that moment."""
attempts = st.integers(0, 3)
"""0: whoever holds the slot."""
seconds = st.sampled_from([0.0, 0.5, 1.0, 1.0, 2.5, 2.5, 4.0, 10.0, 30.0, 200.0])
graces = st.sampled_from([0.0, 5.0])
_ANSWERABLE = [each for each in Cause if each.is_failure and each is not Cause.GANG_INCOMPLETE]

policies = st.one_of(
    st.just(NO_RESTARTS),
    st.builds(
        RestartPolicy,
        max_restarts=st.integers(1, 3),
        on=st.dictionaries(st.sampled_from(_ANSWERABLE), st.sampled_from(list(Action)), max_size=3),
        backoff=st.sampled_from([0.0, 1.0, COME_BACK]),
        max_backoff=st.just(COME_BACK),
        progress_refills=st.booleans(),
        alone=st.booleans(),
    ),
)


def spec_of(asked: Roles, grace: float, counting: Role | None, restart: RestartPolicy) -> RunSpec:
    return RunSpec(
        roles=asked,
        reservation_timeout=RESERVATION_TIMEOUT,
        liveness_ttl=LIVENESS_TTL,
        fence_timeout=FENCE_TIMEOUT,
        beat_interval=1.0,
        grace={Role.CHIEF: MAX_GRACE, Role.WORKER: grace, Role.EVALUATOR: 1.0, Role.PS: 0.0},
        completion=frozenset({counting}) if counting and asked.count(counting) else frozenset(),
        restart=restart,
    )


specs = st.builds(
    spec_of, roles, graces, st.sampled_from([None, None, Role.CHIEF, Role.WORKER]), policies
)

IS_THOROUGH = os.environ.get("HYPOTHESIS_PROFILE") == "thorough"

SETTINGS = settings(
    deadline=None,
    derandomize=not IS_THOROUGH,
    database=None,
    max_examples=4000 if IS_THOROUGH else 350,
    stateful_step_count=60 if IS_THOROUGH else 40,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    report_multiple_bugs=False,
    print_blob=IS_THOROUGH,
)
