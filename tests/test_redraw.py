"""Shards that change places in the work lists of their block: unbiased over places and arrivals, at least variance."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from typing import Any

import cvxpy as cp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedgc.analysis import analyse
from fedgc.arrivals import ProgressArrivals
from fedgc.assignment import (
    Assignment,
    AssignmentConstraints,
    InfeasibleAssignmentError,
    assign,
    exchange,
    reassign,
)
from fedgc.codes import WorkLists, redraw_places
from fedgc.decoders import CalibrationStatus, LeastSquaresDecoder, NormalisedSumDecoder, OptimalUnbiasedDecoder
from fedgc.errors import NoUnbiasedDecoderError
from fedgc.gram import GramModel
from tests.assignment_cases import random_instance
from tests.enumeration import exact_moments, joint_sets

LISTS = {
    "one sum per shard": [[[0], [1], [2]], [[2], [1], [0]], [[3], [4]]],
    "one sum per share": [[[0, 1], [2]], [[2], [1, 0]], [[3, 4]]],
    "one sum in all": [[0, 1, 2], [2, 1, 0], [3, 4]],
}
LABELS = [0, 0, 0, 1, 1]


def places(labels: list[int]) -> Iterator[NDArray[np.intp]]:
    """Yield every permutation of shards among those with the same label."""
    groups = [[j for j, label in enumerate(labels) if label == own] for own in sorted(set(labels))]
    for orders in itertools.product(*(itertools.permutations(group) for group in groups)):
        shard_at = np.arange(len(labels))
        for group, order in zip(groups, orders, strict=True):
            shard_at[group] = order
        yield shard_at


def arrivals_of(code: WorkLists, rng: np.random.Generator) -> ProgressArrivals:
    return ProgressArrivals(code, [rng.dirichlet(np.ones(code.shards_of(c).size + 1)) for c in range(code.n_clients)])


@pytest.mark.parametrize("sums", LISTS)
@pytest.mark.parametrize("coherence", [0.0, 0.4, 0.95])
def test_unbiased_over_all_places_and_arrival_sets(sums: str, coherence: float) -> None:
    rng = np.random.default_rng(5)
    code = WorkLists(LISTS[sums], 5, interchangeable=LABELS)
    arrivals = arrivals_of(code, rng)
    d, r = rng.uniform(0.5, 2.0, 5), rng.uniform(0.5, 2.0, 5)
    gram = GramModel((1.0 - coherence) * d, np.sqrt(coherence) * r)
    calibrated = OptimalUnbiasedDecoder().calibrate(code, arrivals, gram)
    coverages = [exact_moments(calibrated.with_places(p), arrivals, gram).coverage for p in places(LABELS)]
    np.testing.assert_allclose(np.mean(coverages, axis=0), 1.0, atol=1e-12)
    # Given the places it is not: a shard that comes last in a round is seldom done in it.
    assert np.abs(np.array(coverages) - 1.0).max() > 0.01
    assert calibrated.bias is not None and np.abs(calibrated.bias).max() <= 1e-12


@pytest.mark.parametrize("sums", LISTS)
@pytest.mark.parametrize("coherence", [0.0, 0.6])
def test_predicted_residual_error_is_the_enumerated_one(sums: str, coherence: float) -> None:
    code = WorkLists(LISTS[sums], 5, interchangeable=LABELS)
    arrivals, gram = arrivals_of(code, np.random.default_rng(6)), GramModel.uniform(5, coherence)
    calibrated = OptimalUnbiasedDecoder().calibrate(code, arrivals, gram)
    errors = [exact_moments(calibrated.with_places(p), arrivals, gram).residual_error for p in places(LABELS)]
    assert calibrated.residual_error == pytest.approx(np.mean(errors), rel=1e-12)


@pytest.mark.parametrize("sums", LISTS)
@pytest.mark.parametrize("sizes", [[1, 2, 3, 4, 5], [1, 1, 30, 2, 2], [1, 1, 1, 5, 5]])
def test_where_shards_differ_the_prediction_is_a_bound_and_the_analysis_exact(sums: str, sizes: list[int]) -> None:
    code = WorkLists(LISTS[sums], 5, interchangeable=LABELS)
    arrivals = arrivals_of(code, np.random.default_rng(9))
    gram = GramModel(0.2 * np.square(sizes), 0.9 * np.array(sizes))
    calibrated = OptimalUnbiasedDecoder().calibrate(code, arrivals, gram)
    rounds = [calibrated.with_places(p) for p in places(LABELS)]
    exact = float(np.mean([exact_moments(one, arrivals, gram).residual_error for one in rounds]))
    slack = calibrated.residual_error_rounding
    assert exact <= calibrated.residual_error + 1e-12
    assert calibrated.residual_error - slack <= exact + 1e-12
    alike = sizes == [1, 1, 1, 5, 5]
    assert (calibrated.status is CalibrationStatus.EXACT) == alike
    if alike:
        assert calibrated.residual_error == pytest.approx(exact, rel=1e-12)
    # Least squares has no closed form: its error is found set by set, over places at once.
    plain = LeastSquaresDecoder().calibrate(code, arrivals, gram)
    expected = np.mean([exact_moments(plain.with_places(p), arrivals, gram).residual_error for p in places(LABELS)])
    found = analyse(plain, arrivals, gram, rng=np.random.default_rng(0))
    assert found.residual_error == pytest.approx(expected, rel=1e-12)


def test_places_do_not_follow_the_fleets_draws() -> None:
    """Words of a seed that are missing count as zeros, so another number of words alone would not set them apart."""
    code = WorkLists([[[j] for j in range(50)]], 50, interchangeable=np.zeros(50, dtype=int))
    for server_round in (1, 4):
        drawn = redraw_places(code, seed=7, server_round=server_round)
        for words in itertools.product(range(6), repeat=3):
            luck = np.random.default_rng([7, *words]).random(50)
            assert drawn.tolist() != np.argsort(luck, kind="stable").tolist()


@pytest.mark.parametrize("sums", LISTS)
@pytest.mark.parametrize("coherence", [0.0, 0.6])
def test_no_weights_with_the_same_mean_have_less_variance(sums: str, coherence: float) -> None:
    code = WorkLists(LISTS[sums], 5, interchangeable=LABELS)
    arrivals, gram = arrivals_of(code, np.random.default_rng(7)), GramModel.uniform(5, coherence)
    root = np.linalg.cholesky(gram.matrix).T
    mean, cost = 0, 0
    for arrived, probability in joint_sets(arrivals):
        v = code.encoding_matrix[arrived].T @ cp.Variable(int(arrived.sum())) if arrived.any() else np.zeros(5)
        mean, cost = mean + probability * v, cost + probability * cp.sum_squares(root @ (v - 1.0))
    labels = np.array(LABELS)
    unbiased = [cp.sum(mean[labels == own]) == (labels == own).sum() for own in (0, 1)]
    least = cp.Problem(cp.Minimize(cost), unbiased).solve(solver=cp.CLARABEL)
    predicted = OptimalUnbiasedDecoder().calibrate(code, arrivals, gram).residual_error
    assert predicted == pytest.approx(least / gram.matrix.sum(), rel=1e-6)


@given(
    shards=st.integers(1, 5),
    holders=st.integers(1, 3),
    seed=st.integers(0, 10**6),
)
def test_never_more_residual_error_than_with_fixed_places_where_nothing_is_coherent(
    shards: int, holders: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    lists = [[[int(shard)] for shard in rng.permutation(shards)] for _ in range(holders)]
    fixed, moving = WorkLists(lists, shards), WorkLists(lists, shards, interchangeable=np.zeros(shards, dtype=int))
    progress = [rng.dirichlet(np.ones(shards + 1)) for _ in lists]
    gram = GramModel.uniform(shards, 0.0)
    errors = [
        OptimalUnbiasedDecoder().calibrate(code, ProgressArrivals(code, progress), gram).residual_error
        for code in (fixed, moving)
    ]
    assert errors[1] <= errors[0] * (1.0 + 1e-12)
    done = 1.0 - np.prod(
        [
            [1.0 - sum(p[places.index([j]) + 1 :]) for j in range(shards)]
            for p, places in zip(progress, lists, strict=True)
        ],
        axis=0,
    )
    assert errors[1] == pytest.approx(shards / done.sum() - 1.0, rel=1e-9, abs=1e-12)


def test_a_place_that_nobody_reaches_costs_variance_and_a_block_that_nobody_reaches_is_named() -> None:
    code = WorkLists([[[0], [1], [2], [3]], [[4], [5]]], 6, interchangeable=[0, 0, 0, 0, 1, 1])
    gram = GramModel.uniform(6, 0.0)
    calibrated = OptimalUnbiasedDecoder().calibrate(
        code, ProgressArrivals(code, [[0, 0.5, 0.5, 0, 0], [0, 0, 1]]), gram
    )
    assert calibrated.residual_error == pytest.approx((4 / 1.5 - 1.0) * 4 / 6, rel=1e-12)
    with pytest.raises(NoUnbiasedDecoderError, match="got none for shard 4, 5"):
        OptimalUnbiasedDecoder().calibrate(code, ProgressArrivals(code, [[0, 0, 0, 0, 1], [1, 0, 0]]), gram)


@pytest.mark.parametrize("decoder", [LeastSquaresDecoder(), NormalisedSumDecoder()])
def test_the_bias_of_biased_rules_is_that_over_all_places(decoder: LeastSquaresDecoder | NormalisedSumDecoder) -> None:
    code = WorkLists(LISTS["one sum per shard"], 5, interchangeable=LABELS)
    arrivals, gram = arrivals_of(code, np.random.default_rng(8)), GramModel.uniform(5, 0.3)
    calibrated = decoder.calibrate(code, arrivals, gram)
    found = analyse(calibrated, arrivals, gram, rng=np.random.default_rng(0))
    rounds = [exact_moments(calibrated.with_places(p), arrivals, gram) for p in places(LABELS)]
    np.testing.assert_allclose(found.bias, np.mean([m.coverage for m in rounds], axis=0) - 1.0, atol=1e-12)
    assert np.abs(found.bias).max() > 0.01
    assert found.residual_error == pytest.approx(np.mean([m.residual_error for m in rounds]), rel=1e-12)


def test_places_are_drawn_evenly_within_blocks_and_by_seed_and_round_alone() -> None:
    code = WorkLists(LISTS["one sum per shard"], 5, interchangeable=LABELS)
    rounds = 6000
    drawn = np.array([redraw_places(code, seed=3, server_round=t) for t in range(rounds)])
    kinds, counts = np.unique(drawn, axis=0, return_counts=True)
    assert {tuple(kind) for kind in kinds.tolist()} == {tuple(p.tolist()) for p in places(LABELS)}
    # Five standard deviations of a binomial count, twelve of them.
    expected = rounds / 12
    assert np.abs(counts - expected).max() < 5 * np.sqrt(expected * 11 / 12)
    assert (redraw_places(code, seed=3, server_round=17) == drawn[17]).all()
    assert (redraw_places(WorkLists(LISTS["one sum in all"], 5), seed=3, server_round=17) == np.arange(5)).all()


def test_only_interchangeable_shards_change_places() -> None:
    code = WorkLists(LISTS["one sum in all"], 5, interchangeable=LABELS)
    with pytest.raises(ValueError, match="shard_at must permute interchangeable shards; got"):
        code.with_places(np.array([3, 1, 2, 0, 4]))
    with pytest.raises(ValueError, match="shard_at must permute interchangeable shards; got"):
        code.with_places(np.array([1, 1, 2, 3, 4]))
    with pytest.raises(ValueError, match="shards of WorkLists have fixed places"):
        WorkLists(LISTS["one sum in all"], 5).with_places(np.arange(5))
    with pytest.raises(ValueError, match=r"interchangeable must have shape \(5,\); got shape \(4,\)"):
        WorkLists(LISTS["one sum in all"], 5, interchangeable=LABELS[1:])


ALIKE = "interchangeable must label alike only shards that every client with one in its list holds all of; got "
UNHELD: dict[str, tuple[dict[str, Any], str]] = {
    "a list that ends sooner": (
        {"interchangeable": [4, 4, 4, 9]}, ALIKE + "4 for shards of which client 1 lists 1 but does not hold 0"
    ),
    "holdings that end sooner": (
        {"interchangeable": [4, 4, 4, 9], "held": [[0, 1, 2], [2, 1], [3]]},
        ALIKE + "4 for shards of which client 1 lists 1 but does not hold 0",
    ),
    "holdings without the list": (
        {"interchangeable": [0, 1, 2, 3], "held": [[0, 1, 2], [2], [3]]},
        ALIKE + "1 for shards of which client 1 lists 1 but does not hold 1",
    ),
    "one label for all": (
        {"interchangeable": [0, 0, 0, 0], "held": [[0, 1, 2, 3], [0, 1, 2, 3], [3]]},
        ALIKE + "0 for shards of which client 2 lists 3 but does not hold 0",
    ),
    "holdings of fewer clients": (
        {"interchangeable": [0, 1, 2, 3], "held": [[0, 1, 2], [2, 1]]},
        "held must have one entry per client, 3; got 2",
    ),
    "a shard that is not there": (
        {"interchangeable": [0, 1, 2, 3], "held": [[0, 1, 2], [2, 1, 4], [3]]},
        "held must name shards from 0 to 3; got 4",
    ),
    "holdings that are no shards": (
        {"interchangeable": [0, 1, 2, 3], "held": [[0, 1, 2], [2, -1], [3]]},
        "held of client 1 must be integers of at least 0, in one dimension; got [2, -1]",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("options", "message"), UNHELD.values(), ids=UNHELD)
def test_labels_by_which_a_list_would_name_a_shard_that_is_not_held_are_refused(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        WorkLists([[0, 1, 2], [2, 1], [3]], 4, **options)


def test_labels_are_accepted_just_where_no_draw_of_places_asks_for_what_is_not_held() -> None:
    """Every labelling of three shards, with every holding of the second client, against every draw of places."""
    lists = [[0, 1, 2], [2]]
    for labels in itertools.product(range(3), repeat=3):
        for size in range(4):
            for own in itertools.combinations(range(3), size):
                held = [[0, 1, 2], list(own)]
                fits = all(set(shard_at[[2]].tolist()) <= set(own) for shard_at in places(list(labels)))
                if fits:
                    assert WorkLists(lists, 3, interchangeable=labels, held=held).interchangeable is not None
                else:
                    with pytest.raises(ValueError, match=r"^interchangeable must label alike"):
                        WorkLists(lists, 3, interchangeable=labels, held=held)


def check_asked(found: Assignment, constraints: AssignmentConstraints, segments: str) -> int:
    """Check what clients are asked for in some rounds; return how many copies are asked for that were not at first."""
    code, active = found.code(segments=segments)
    assert isinstance(code, WorkLists)
    others = 0
    for server_round in range(12):
        asked = code.with_places(redraw_places(code, seed=5, server_round=server_round))
        for row, client in enumerate(active.tolist()):
            shards = set(asked.shards_of(row).tolist())
            assert shards <= set(found.shards_of(client).tolist())
            assert len(shards) == found.lists[client].size
            others += len(shards - set(found.lists[client].tolist()))
            for named, allowed in constraints.residency or []:  # type: ignore[union-attr]
                assert client in allowed or not shards & set(named)
    return others


def test_no_client_is_asked_for_a_shard_that_its_holdings_or_residency_do_not_allow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(exchange, "_RUINS", 5)  # any valid assignment will do
    rng = np.random.default_rng(12)
    after, others = 0, 0
    for case in range(40):
        reach, n_shards, options = random_instance(rng)
        options["schedule"] = "work-list"
        segments = ("shard", "share", "whole")[case % 3]
        try:
            old = assign(reach, n_shards, **options)
        except InfeasibleAssignmentError:
            continue
        others += check_asked(old, options["constraints"], segments)
        alive = rng.random(reach.shape[0]) < 0.8
        alive[0] = True
        options["holders"] = (1, options["holders"][1])
        prices = {"round_seconds": 1.0, "rounds_left": 100, "seconds_per_shard": 0.1}
        try:
            new = reassign(
                old,
                rng.permutation(reach),
                holders=options["holders"],
                constraints=options["constraints"],
                alive=alive,
                **prices,
            )
        except InfeasibleAssignmentError:
            continue
        others += check_asked(new, options["constraints"], segments)
        after += new.shards_moved(old) > 0
    # Clients died and shards moved, and lists ended before the last shard that is held.
    assert after > 10
    assert others > 100
