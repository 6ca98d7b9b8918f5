"""Whatever comes on the port: no call fails by a bug, nothing is logged, nobody else notices (R5).

A few hundred fixed examples are part of every test run. ``make fuzz`` looks for others, for
``FUZZ_SECONDS``.
"""

from __future__ import annotations

import itertools
import os
import random
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from coordinator.security import call_metadata
from coordinator.testing import hostile
from coordinator.v1 import reservation_service_pb2 as reservation_pb
from tests.fuzz import absurd
from tests.fuzz.scene import FORBIDDEN, INCARNATION, TOKEN, VICTIM, Scene, known, scene
from tests.integration.grpc import raw

FUZZ_SECONDS = float(os.environ.get("FUZZ_SECONDS", "0"))
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300 + 2 * FUZZ_SECONDS)]

METHODS = [pytest.param(method, id=method.name) for method in absurd.METHODS]
_CHECKS = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
COMMON = {
    "database": None, "deadline": None, "suppress_health_check": _CHECKS,
    "phases": [Phase.generate, Phase.shrink],
}  # fmt: skip


@pytest.fixture(scope="module")
def attacked() -> Iterator[Scene]:
    with scene() as made:
        yield made


# -- well-formed messages --------------------------------------------------------------------------


def hello() -> bytes:
    message = reservation_pb.AttendRequest()
    message.hello.run_id, message.hello.incarnation = VICTIM, INCARNATION
    message.hello.member.role = 2
    return message.SerializeToString()


def bodies_of(method: Any) -> st.SearchStrategy[list[bytes]]:
    one = absurd.messages(method.input_type, known)
    if not method.client_streaming:
        return st.tuples(one).map(list)
    first = st.one_of(st.just(hello()), st.just(hello()), one)
    return st.builds(lambda head, rest: [head, *rest], first, st.lists(one, max_size=4))


def call_and_check(attacked: Scene, method: Any, bodies: list[bytes]) -> None:
    assert attacked.call(method, bodies) not in FORBIDDEN, attacked.told
    attacked.check()


@pytest.mark.parametrize("method", METHODS)
def test_well_formed_nonsense_is_answered_with_a_reason(method: Any, attacked: Scene) -> None:
    @seed(1)
    @settings(max_examples=20, **COMMON)
    @given(bodies_of(method))
    def attack(bodies: list[bytes]) -> None:
        call_and_check(attacked, method, bodies)

    attack()


# -- bytes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_bytes_that_are_no_message_are_answered_with_a_reason(method: Any, attacked: Scene) -> None:
    @seed(1)
    @settings(max_examples=10, **COMMON)
    @given(st.lists(st.binary(max_size=200), min_size=1, max_size=2))
    def attack(bodies: list[bytes]) -> None:
        call_and_check(attacked, method, bodies)

    attack()


_NUMBERS = st.one_of(st.integers(0, 5), st.sampled_from([2**31 - 1, 2**31, 2**32 - 1]))
_FRAMES = st.builds(
    hostile.frame, st.integers(0, 12), st.integers(0, 255), _NUMBERS, st.binary(max_size=100)
)


def _call(method: Any, stream: int, body: bytes, cut: int) -> bytes:
    headers = [
        (":method", "POST"), (":scheme", "http"), (":path", raw.path_of(method)),
        (":authority", "coordinator"), ("content-type", "application/grpc"), ("te", "trailers"),
        *call_metadata(TOKEN),
    ]  # fmt: skip
    head = hostile.frame(hostile.HEADERS, hostile.END_HEADERS, stream, hostile.fields(headers))
    message = hostile.message(body)
    return head + hostile.frame(hostile.DATA, cut % 2, stream, message[: len(message) - cut])


_CALLS = st.builds(
    _call,
    st.sampled_from(absurd.METHODS),
    st.sampled_from([1, 3, 5]),
    st.binary(max_size=50),
    st.integers(0, 5),
)
_PIECES = st.lists(st.one_of(_FRAMES, _CALLS, _CALLS, st.binary(max_size=50)), max_size=8)
CONNECTIONS = st.one_of(
    st.binary(max_size=500),
    _PIECES.map(lambda pieces: hostile.PREFACE + hostile.frame(4, 0, 0) + b"".join(pieces)),
    _PIECES.map(lambda pieces: hostile.PREFACE + b"".join(pieces)),
)


def test_whatever_comes_on_a_connection_is_its_own_business(attacked: Scene) -> None:
    @seed(1)
    @settings(max_examples=50, **COMMON)
    @given(CONNECTIONS)
    def attack(data: bytes) -> None:
        attacked.speak(data)
        attacked.check()

    attack()


# -- make fuzz -------------------------------------------------------------------------------------

EXAMPLES = 40  # of each kind in a row

if FUZZ_SECONDS:

    def test_fuzz_for_as_long_as_was_asked(attacked: Scene) -> None:
        """What fails here prints its seed and the smallest example: make it a test."""
        until = time.monotonic() + FUZZ_SECONDS
        first = random.SystemRandom().randrange(2**32)
        examples = 0
        for number in itertools.count(first):
            print(f"seed {number}, {examples} examples before")
            for attack, strategy in _attacks(attacked):
                if time.monotonic() > until:
                    print(f"{examples} examples")
                    return
                look_for_more(attack, strategy, number)
                examples += EXAMPLES


def look_for_more(attack: Callable[[Any], None], strategy: Any, number: int) -> None:
    @seed(number)
    @settings(max_examples=EXAMPLES, **COMMON)
    @given(strategy)
    def find(example: Any) -> None:
        attack(example)

    find()


def _attacks(attacked: Scene) -> Iterator[tuple[Callable[[Any], None], Any]]:
    for method in absurd.METHODS:
        yield partial(call_and_check, attacked, method), bodies_of(method)

    def speak(data: bytes) -> None:
        attacked.speak(data)
        attacked.check()

    yield speak, CONNECTIONS
