"""Work lists for the worst case: the measure against every adversary, the orders against all orders and a MILP."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace

import numpy as np
import pytest
from fedgc.strategies import GradientCoding
from numpy.typing import NDArray

from fedgc.assignment import (
    assign,
    in_worst_case_order,
    work_while_missing,
    worst_case_bound,
    worst_case_lists,
    worst_case_lists_exactly,
)
from fedgc.codes import CyclicRepetition, WorkLists
from fedgc.deadline import AutomaticDeadline, DeadlineRule, FixedDeadline
from fedgc.decoders import OptimalUnbiasedDecoder
from fedgc.fleets import build_fleet
from fedgc.gram import GramModel
from fedgc.round import Planning, RoundState, finish_round, plan_round
from tests.enumeration import assert_unbiased

Ints = NDArray[np.intp]


def some_lists(seed: int, most: int = 4) -> tuple[list[Ints], int]:
    """Return random lists of which one client has none in some, and the number of shards."""
    rng = np.random.default_rng(seed)
    n_shards, n_clients = int(rng.integers(1, most + 2)), int(rng.integers(1, most + 1))
    lists = [rng.permutation(n_shards)[: rng.integers(0, min(most, n_shards) + 1)] for _ in range(n_clients)]
    nobodys = np.setdiff1d(np.arange(n_shards), np.concatenate(lists))
    return ([*lists, rng.permutation(nobodys)] if nobodys.size else lists), n_shards


def most_work(lists: list[Ints], shard: int) -> int:
    """Return the most work, over all that clients may have done, with no copy of the shard."""
    return max(
        sum(done)
        for done in itertools.product(*(range(own.size + 1) for own in lists))
        if all(shard not in own[:n] for own, n in zip(lists, done, strict=True))
    )


@pytest.mark.parametrize("seed", range(30))
def test_the_measure_is_that_of_every_way_to_be_slow(seed: int) -> None:
    lists, n_shards = some_lists(seed)
    expected = [most_work(lists, shard) for shard in range(n_shards)]
    assert work_while_missing(lists, n_shards).tolist() == expected


@pytest.mark.parametrize("seed", range(25))
def test_the_order_is_the_best_of_all_orders(seed: int) -> None:
    holdings, n_shards = some_lists(seed, most=3)
    least = min(
        int(work_while_missing([np.array(own, dtype=np.intp) for own in orders], n_shards).max())
        for orders in itertools.product(*(itertools.permutations(own.tolist()) for own in holdings))
    )
    lists = worst_case_lists(holdings, n_shards, rng=np.random.default_rng(seed))
    assert [sorted(own) for own in lists] == [sorted(own) for own in holdings]
    assert int(work_while_missing(lists, n_shards).max()) == least
    exact, value = worst_case_lists_exactly(holdings, n_shards)
    assert value == least == int(work_while_missing(exact, n_shards).max())
    assert [sorted(own) for own in exact] == [sorted(own) for own in holdings]
    assert worst_case_bound(holdings, n_shards) <= least


@pytest.mark.parametrize("seed", range(100, 120))
def test_the_search_finds_what_the_integer_programme_does(seed: int) -> None:
    holdings, n_shards = some_lists(seed, most=7)
    lists = worst_case_lists(holdings, n_shards, rng=np.random.default_rng(seed))
    assert int(work_while_missing(lists, n_shards).max()) == worst_case_lists_exactly(holdings, n_shards)[1]


@pytest.mark.parametrize(("n", "copies"), [(1, 1), (5, 1), (5, 2), (8, 3), (20, 4), (12, 12)])
def test_with_as_many_places_as_copies_every_shard_stands_once_in_every_place(n: int, copies: int) -> None:
    """Cyclic repetition, and holdings of the same kind with clients and shards renamed."""
    rng = np.random.default_rng(n)
    code = CyclicRepetition(n, copies - 1, rng=rng)
    rename = rng.permutation(n)
    for shard_of in (np.arange(n), rename):
        lists = worst_case_lists([shard_of[code.shards_of(client)] for client in range(n)], n, rng=rng)
        assert (np.sort(np.array(lists), axis=0) == np.arange(n)[:, None]).all()
        # copies - 1 + ... + 0 of the holders, all of the others: the paper's optimum.
        expected = copies * (copies - 1) // 2 + (n - copies) * copies
        assert (work_while_missing(lists, n) == expected).all()
        assert worst_case_bound(lists, n) == expected


@pytest.mark.parametrize(("clients", "shards", "length"), [(20, 40, 6), (30, 20, 3), (9, 12, 5)])
def test_other_cyclic_holdings_reach_the_bound(clients: int, shards: int, length: int) -> None:
    holdings = [(np.arange(length) + client * shards // clients) % shards for client in range(clients)]
    lists = worst_case_lists(holdings, shards, rng=np.random.default_rng(0))
    assert int(work_while_missing(lists, shards).max()) == worst_case_bound(holdings, shards)


def test_limits() -> None:
    rng = np.random.default_rng(0)
    # One client: the last of its list is missing until all others are done.
    assert int(work_while_missing(worst_case_lists([np.arange(5)], 5, rng=rng), 5).max()) == 4
    # No shard shared: whoever is slow, the first of its list is missing.
    assert int(work_while_missing(worst_case_lists([[0], [1], [2]], 3, rng=rng), 3).max()) == 2
    # All on everyone, as many clients as shards: a Latin square, one copy of each after less than all have done half.
    assert int(work_while_missing(worst_case_lists([np.arange(6)] * 6, 6, rng=rng), 6).max()) == 15


def reach_of(n_clients: int, most: int, seed: int) -> NDArray[np.float64]:
    falling = np.random.default_rng(seed).uniform(0.55, 0.98, n_clients)[:, None] ** np.arange(most + 1)
    return np.asarray(falling)


@pytest.mark.parametrize("seed", range(5))
def test_blocks_in_worst_case_order_keep_what_clients_hold(seed: int) -> None:
    reach = reach_of(6, 12, seed)
    given = assign(reach, 12, holders=3, schedule="work-list", rng=seed)
    changed = in_worst_case_order(given, reach, rng=np.random.default_rng(seed))
    assert [sorted(own) for own in changed.lists] == [sorted(own) for own in given.lists]
    assert work_while_missing(changed.lists, 12).max() <= work_while_missing(given.lists, 12).max()
    assert worst_case_bound(given.lists, 12) == work_while_missing(changed.lists, 12).max()
    # What the assignment says of itself is what its lists miss: m P / (1 - P) with P the mean over the block.
    missed = np.ones(12)
    for client, own in enumerate(changed.lists):
        missed[own] *= 1.0 - reach[client, 1 : own.size + 1]
    blocks = [missed[list(block.shards)] for block in changed.blocks]
    expected = sum(own.size * own.mean() / (1.0 - own.mean()) for own in blocks) / 12
    assert changed.residual_error == pytest.approx(expected)
    for segments, rows in (("shard", 1), ("share", 1), ("whole", None)):
        code, _ = changed.code(segments=segments)
        assert isinstance(code, WorkLists)
        lengths = {segment.size for client in range(code.n_clients) for segment in code.segments_of(client)}
        assert lengths == {rows} if rows else max(lengths) > 1


def test_the_full_schedule_has_no_order() -> None:
    reach = reach_of(4, 4, 0)
    full = assign(reach, 4, holders=2, schedule="full")
    assert in_worst_case_order(full, reach, rng=np.random.default_rng(0)) is full


def test_lists_in_worst_case_order_are_decoded_without_bias() -> None:
    holdings = [[0, 1], [1, 2], [2, 0]]
    lists = worst_case_lists(holdings, 3, rng=np.random.default_rng(0))
    code = WorkLists([[[int(shard)] for shard in own] for own in lists], 3)
    assert_unbiased(OptimalUnbiasedDecoder(), code, np.array([0.2, 0.5, 0.3, 0.6, 0.1, 0.9]), GramModel.uniform(3, 0.0))


@pytest.mark.parametrize("redraw", [True, False])
@pytest.mark.parametrize("deadline", [FixedDeadline(6.0), AutomaticDeadline(initial=6.0)])
def test_a_run_keeps_to_the_worst_case_order(deadline: DeadlineRule, redraw: bool) -> None:
    fleet = build_fleet({"model": "log-normal", "clients": 6, "dropout": 0.1, "sigma": 0.4}, seed=2)
    planning = Planning(
        load=4,
        decoder=OptimalUnbiasedDecoder(),
        schedule="work-list",
        deadline=deadline,
        redraw=redraw,
        timing=fleet,
        nodes=tuple(range(6)),
    )
    arrays = {"w": np.zeros(2)}
    worst = dict[str, list[int]]()
    for order in ("least-error", "worst-case"):
        state = RoundState(np.ones(12))
        for nodes in (range(6), range(6), range(5), range(6)):
            plan = plan_round(state, nodes, replace(planning, order=order))
            assert plan.assignment is not None
            lists = plan.assignment.lists
            worst.setdefault(order, []).append(int(work_while_missing(lists, 12).max()))
            assert worst["worst-case"][-1] == worst_case_bound(lists, 12) if order == "worst-case" else True
            state, _ = finish_round(state, plan, {}, arrays=arrays, waited=plan.deadline or 0.0)
    # The other order has another aim: somewhere it leaves a shard longer without a copy.
    assert sum(worst["worst-case"]) < sum(worst["least-error"])


def test_an_order_that_has_been_found_is_kept() -> None:
    reach = reach_of(6, 12, 0)
    once = in_worst_case_order(assign(reach, 12, holders=3, schedule="work-list"), reach, rng=np.random.default_rng(0))
    again = in_worst_case_order(once, reach, rng=np.random.default_rng(0))
    assert (once.list_shards == again.list_shards).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"order": "worst"}, "order must be one of least-error, worst-case; got 'worst', did you mean worst-case?"),
        ({"schedule": "full"}, "order must be 'least-error' for schedule 'full', where order does not matter; got"),
        ({"sums": "share"}, "order must be 'least-error' for sums 'share', which are of own shares; got 'worst-case'"),
        ({"code": "uncoded"}, "order must be 'least-error' for a code that says itself who holds what; got"),
    ],
)
def test_the_order_belongs_to_lists_of_single_shards(options: dict[str, str], message: str) -> None:
    given = {"schedule": "work-list", "order": "worst-case", **options}
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        GradientCoding(num_shards=4, deadline=1.0, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("lists", "n_shards", "message"),
    [
        ([[0, 0]], 1, "list of client 0 must name distinct shards from 0 to 0; got [0, 0]"),
        ([[0], [2]], 2, "list of client 1 must name distinct shards from 0 to 1; got [2]"),
        ([[0], []], 2, "every shard must be held by a client; got none for shard 1"),
        ([], 2, "every shard must be held by a client; got none for shard 0"),
        ([[0.5]], 1, "list of client 0 must be integers of at least 0, in one dimension; got [0.5]"),
        ([[0]], 0, "n_shards must be an integer of at least 1; got 0"),
    ],
)
def test_bad_input_gives_one_line(lists: list[list[int]], n_shards: int, message: str) -> None:
    for call in (
        lambda: work_while_missing(lists, n_shards),
        lambda: worst_case_bound(lists, n_shards),
        lambda: worst_case_lists(lists, n_shards, rng=np.random.default_rng(0)),
        lambda: worst_case_lists_exactly(lists, n_shards),
    ):
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            call()


def test_a_programme_without_time_says_so() -> None:
    with pytest.raises(ValueError, match=r"^seconds must be a finite number above 0; got 0$"):
        worst_case_lists_exactly([[0]], 1, seconds=0)
    holdings = [np.random.default_rng(seed).permutation(60)[:30] for seed in range(20)]
    with pytest.raises(RuntimeError, match=r"^the best order must be found within 0\.001 seconds; got none that is"):
        worst_case_lists_exactly(holdings, 60, seconds=0.001)
