"""Shards that change places in the work lists of their block: unbiased over places and arrivals, at least variance."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import cvxpy as cp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedgc.analysis import analyse
from fedgc.arrivals import ProgressArrivals
from fedgc.codes import WorkLists, redraw_places
from fedgc.decoders import CalibrationStatus, LeastSquaresDecoder, NormalisedSumDecoder, OptimalUnbiasedDecoder
from fedgc.errors import NoUnbiasedDecoderError
from fedgc.gram import GramModel
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
