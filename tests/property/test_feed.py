"""Feeds through dead attempts, slow consumers, full queues and early stops: each row once (F2), the
same steps for everybody (F4), and no history that does not end.

TFLEASE_HISTORIES=10000 looks at so many histories, other ones each time.
"""

from __future__ import annotations

import os
from collections import Counter

import pytest
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st

from executor_agent.core.feed_ledger import Begun, Closed, Ledger, Stale, merged
from executor_agent.core.feed_shares import common_steps, most_steps, plan_moves
from executor_agent.core.feed_spread import Target, choose
from tests.property.feed_world import Standstill, World

HISTORIES = int(os.environ.get("TFLEASE_HISTORIES", "0"))

# A history is its seed: shrinking the number tells nothing.
histories = settings(
    max_examples=HISTORIES or 150,
    derandomize=not HISTORIES,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=[HealthCheck.too_slow],
)
seeds = st.integers(0, 2**62)


def run(seed: int, *, equal: bool, deterministic: bool) -> World:
    world = World(seed, equal=equal, deterministic=deterministic)
    note(f"{ {name: one.batch_size for name, one in world.workers.items()} } {world.partitions}")
    world.run()
    return world


def read_in(world: World, epoch: int) -> list[int]:
    return [row for worker in world.workers.values() for row in worker.rows(epoch).read]


@pytest.mark.slow
@pytest.mark.parametrize("deterministic", [True, False])
@histories
@given(seed=seeds)
def test_all_workers_take_the_same_steps_and_as_many_as_the_rows_suffice_for(
    seed: int, deterministic: bool
) -> None:
    """F4."""
    world = run(seed, equal=True, deterministic=deterministic)
    together = sum(worker.batch_size for worker in world.workers.values())
    for epoch, answer in world.closed.items():
        count = sum(answer.rows.values())
        assert count == world.row_count if deterministic else count >= world.row_count
        assert answer.steps == count // together
        assert answer.left_out == count - answer.steps * together < together
        for worker in world.workers.values():
            rows = worker.rows(epoch)
            assert len(rows.ids) == answer.steps * worker.batch_size
            assert rows.read == rows.ids or worker.stopped
        if deterministic:
            assert max(Counter(read_in(world, epoch)).values(), default=1) == 1
    released = {(worker.rows(world.epoch).released) for worker in world.workers.values()}
    assert len(released) == 1, "one may take a step that another may not"
    assert_ended(world)


@pytest.mark.slow
@pytest.mark.parametrize("deterministic", [True, False])
@histories
@given(seed=seeds)
def test_without_equal_steps_every_row_is_read(seed: int, deterministic: bool) -> None:
    """F2."""
    world = run(seed, equal=False, deterministic=deterministic)
    for epoch, answer in world.closed.items():
        assert answer.steps is None
        assert answer.left_out == 0
        here = Counter(row for one in world.workers.values() for row in one.rows(epoch).ids)
        assert sorted(here) == list(range(world.row_count))
        assert sum(answer.rows.values()) == sum(here.values())
        if deterministic:
            assert max(here.values(), default=1) == 1
        if not any(worker.stopped for worker in world.workers.values()):
            assert Counter(read_in(world, epoch)) == here
    assert_ended(world)


def assert_ended(world: World) -> None:
    (reason,) = world.ended
    assert (reason == "") == (len(world.closed) == world.epochs)
    assert all(worker.ended == reason for worker in world.workers.values())


def test_without_a_last_word_of_feeders_some_histories_stand_still() -> None:
    """Their last batches wait at a worker that is full of rows, which wait for another worker's."""

    def stands_still(seed: int) -> bool:
        try:
            World(seed, equal=True, deterministic=True, flushes=False).run()
        except Standstill:
            return True
        return False

    assert any(stands_still(seed) for seed in range(100))


# --- the parts ------------------------------------------------------------------------------------

quick = settings(max_examples=100, derandomize=not HISTORIES)
sizes = st.lists(st.tuples(st.integers(0, 300), st.integers(1, 40)), min_size=1, max_size=8)


@quick
@given(sizes)
def test_moves_give_everybody_its_share_and_move_no_row_that_could_stay(
    workers: list[tuple[int, int]],
) -> None:
    rows = {f"w{index}": count for index, (count, _) in enumerate(workers)}
    batch_sizes = {f"w{index}": size for index, (_, size) in enumerate(workers)}
    steps = most_steps(rows, batch_sizes)
    assert steps >= common_steps(rows, batch_sizes)
    shares = {name: steps * size for name, size in batch_sizes.items()}
    moves = plan_moves(rows, shares)
    missing = sum(max(0, shares[name] - rows[name]) for name in rows)
    assert sum(move.rows for move in moves) == missing
    assert len(moves) < len(rows)
    after = Counter(rows)
    for move in moves:
        assert move.rows > 0
        after[move.giver] -= move.rows
        after[move.taker] += move.rows
    assert all(after[name] >= shares[name] for name in rows)
    assert all(after[name] >= min(rows[name], shares[name]) for name in rows)


@quick
@given(
    st.lists(st.tuples(st.integers(0, 200), st.integers(0, 2), st.booleans()), max_size=6),
    st.integers(1, 20),
)
def test_somebody_with_credit_is_chosen_and_never_one_far_ahead(
    workers: list[tuple[int, int, bool]], batch_rows: int
) -> None:
    targets = [Target(f"w{at}", *one) for at, one in enumerate(workers)]
    able = {target.member: target for target in targets if target.credit}
    chosen = choose(targets, batch_rows)
    assert (chosen is None) == (not able)
    if chosen is not None:
        fewest = min(target.rows for target in able.values())
        allowed = 4 * batch_rows if able[chosen].is_local else 0
        assert able[chosen].rows - fewest <= allowed


asks = st.tuples(st.integers(1, 4), st.integers(0, 40), st.integers(0, 12))


@quick
@given(st.lists(asks, max_size=40), st.booleans())
def test_the_ledger_is_a_set_of_rows(
    words: list[tuple[int, int, int]], deterministic: bool
) -> None:
    """Against the plainest model: a set of rows, an attempt, and a count."""
    ledger, rows, youngest, count = Ledger(), set[int](), 1, 0
    assert ledger.begin(1, 0, 1, deterministic) == Begun((), ())
    for attempt, start, length in words:
        begun = ledger.begin(1, 0, attempt, deterministic)
        if attempt < youngest:
            assert begun == Stale(youngest)
        else:
            known = merged((row, row + 1) for row in rows)
            assert begun == Begun(known, (youngest,) if attempt > youngest else ())
            if attempt > youngest and not deterministic:
                rows = set()
            youngest = attempt
        new = set(range(start, start + length))
        if attempt == youngest and new & rows and new - rows:
            with pytest.raises(ValueError, match="overlap"):
                ledger.took(1, 0, attempt, start, length)
            continue
        takes = attempt == youngest and not (new and new <= rows)
        assert ledger.took(1, 0, attempt, start, length) == takes
        if takes:
            rows |= new
            count += length
        assert ledger.rows(1) == count
    ledger.close(1)
    assert ledger.begin(1, 0, 9, deterministic) == Closed(1)
    assert not ledger.took(1, 0, youngest, 1000, 1)
