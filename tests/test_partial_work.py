"""Blocks with any number of states: work lists, several messages, members that fail together."""

from __future__ import annotations

import itertools

import cvxpy as cp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedgc.arrivals import ArrivalModel, IndependentArrivals, JointArrivals, ProgressArrivals
from fedgc.codes import Code, MatrixCode, WorkLists
from fedgc.decoders import (
    CalibrationStatus,
    FixedAlignedDecoder,
    FixedDecoder,
    LeastSquaresDecoder,
    OptimalUnbiasedDecoder,
    StreamingSum,
    SumDecoder,
)
from fedgc.decoders.linear import CalibratedLinear
from fedgc.decoders.optimal_base import predicted_residual_error
from fedgc.errors import NoUnbiasedDecoderError
from fedgc.gram import GramModel
from tests.enumeration import exact_moments, joint_sets

MOST_SETS = 300


@st.composite
def block_codes(
    draw: st.DrawFn, *, extreme: bool, most_sets: int = MOST_SETS
) -> tuple[WorkLists, ProgressArrivals, GramModel]:
    """Up to ten clients in blocks of up to four shards; every client has its own order, segments and chances."""
    least, low, high = (1e-9, 1e-6, 1e6) if extreme else (0.05, 0.1, 10.0)
    lists: list[list[list[int]]] = []
    chances: list[NDArray[np.float64]] = []
    n_shards, n_sets = 0, 1
    for _ in range(draw(st.integers(1, 3))):
        size = draw(st.integers(1, 4))
        shards = list(range(n_shards, n_shards + size))
        n_shards += size
        for member in range(draw(st.integers(1, 4))):
            if len(lists) == 10 or (member > 0 and n_sets * 2 > most_sets):
                break
            order = draw(st.permutations(shards))
            cuts = sorted(draw(st.sets(st.integers(1, size - 1)))) if size > 1 else []
            ends = [0, *cuts, size]
            segments = [list(order[start:end]) for start, end in itertools.pairwise(ends)]
            p = draw(st.sampled_from([0.0, 1e-12, 0.3, 0.9, 0.99]) | st.floats(0.0, 0.99))
            some = draw(st.lists(st.just(0.0) | st.floats(least, 1.0), min_size=size, max_size=size))
            if n_sets * (size + 1) > most_sets:  # all or nothing
                some = [0.0] * (size - 1) + [1.0]
            progress = np.array(some)
            progress[-1] += least  # the whole list is always possible
            progress = progress / progress.sum() * (1.0 - p)
            lists.append(segments)
            chances.append(np.append(p, progress))
            n_sets *= int((chances[-1] > 0).sum())
    code = WorkLists(lists, n_shards)
    energies = st.lists(st.floats(low, high), min_size=n_shards, max_size=n_shards)
    lengths = st.lists(st.floats(0.0, high), min_size=n_shards, max_size=n_shards)
    return code, ProgressArrivals(code, chances), GramModel(draw(energies), draw(lengths))


@given(block_codes(extreme=False))
@settings(max_examples=300, deadline=None)
def test_no_bias_and_the_predicted_error_over_all_arrival_sets(
    case: tuple[WorkLists, ProgressArrivals, GramModel],
) -> None:
    code, arrivals, gram = case
    calibrated = OptimalUnbiasedDecoder().calibrate(code, arrivals, gram)
    moments = exact_moments(calibrated, arrivals, gram)
    assert moments.bias < 1e-10
    # Probabilities that sum to one to 1e-16 leave an error of that size, times the weights, where nothing straggles.
    assert calibrated.residual_error == pytest.approx(moments.residual_error, rel=1e-9, abs=1e-14)


@given(block_codes(extreme=True))
@settings(max_examples=200, deadline=None)
def test_extreme_energies_and_chances_keep_the_accuracy_or_say_so(
    case: tuple[WorkLists, ProgressArrivals, GramModel],
) -> None:
    code, arrivals, gram = case
    calibrated = OptimalUnbiasedDecoder().calibrate(code, arrivals, gram)
    moments = exact_moments(calibrated, arrivals, gram)
    assert moments.bias < max(1e-10, 2 * calibrated.rounding)
    if calibrated.status is CalibrationStatus.EXACT:
        assert moments.bias < 1e-10
        assert calibrated.residual_error == pytest.approx(moments.residual_error, rel=2e-9, abs=2e-14)


def least_unbiased_error(code: Code, arrivals: ArrivalModel, gram: GramModel) -> float:
    """The least residual error over all weights that may depend on what arrived, as one convex program."""
    G, A = gram.matrix, code.encoding_matrix
    root, m = np.linalg.cholesky(G), code.n_shards
    cost, mean = 0.0, 0.0
    for arrived, probability in joint_sets(arrivals):
        v = A[arrived].T @ cp.Variable(int(arrived.sum())) if arrived.any() else np.zeros(m)
        cost = cost + probability * cp.sum_squares(root.T @ (v - np.ones(m)))
        mean = mean + probability * v
    least = cp.Problem(cp.Minimize(cost), [mean == 1]).solve(solver=cp.CLARABEL)
    return float(least) / gram.inner(np.ones(m), np.ones(m))


@pytest.mark.parametrize("seed", range(6))
def test_no_unbiased_rule_does_better(seed: int) -> None:
    rng = np.random.default_rng([21, seed])
    lists = [
        [[0, 1, 2], [2, 1, 0], [3, 4]],
        [[[0], [2, 1]], [2, 0, 1], [[3], [4]]],
        [[1, 0], [0, 1], [[2, 3]], [[4]]],
    ][seed % 3]
    code = WorkLists(lists, 5)
    arrivals = ProgressArrivals(code, [rng.dirichlet(np.ones(code.rows_of(i).size + 1)) for i in range(code.n_clients)])
    gram = GramModel(rng.uniform(0.2, 2, 5), rng.uniform(0, 1.5, 5))
    calibrated = OptimalUnbiasedDecoder().calibrate(code, arrivals, gram)
    # The interior-point solver stops at a relative gap of about 1e-8.
    assert calibrated.residual_error == pytest.approx(least_unbiased_error(code, arrivals, gram), rel=1e-6)


def test_members_that_fail_together_and_private_shards() -> None:
    """Two clients behind one router; each also holds a shard of its own, sent apart or summed with the rest."""
    code = MatrixCode([[1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0, 1], [0, 0, 1, 0]])
    joint = JointArrivals(
        4,
        [
            ([0, 1], [[0 > 1, 0 > 1], [True, False], [True, True]], [0.3, 0.2, 0.5]),
            ([2, 3], [[True, True], [False, True]], [0.6, 0.4]),
        ],
    )
    gram = GramModel([1.0, 0.5, 2.0, 1.0], [0.5, 1.0, 0.2, 1.0])
    calibrated = OptimalUnbiasedDecoder().calibrate(code, joint, gram)
    moments = exact_moments(calibrated, joint, gram)
    assert moments.bias < 1e-12
    assert calibrated.residual_error == pytest.approx(moments.residual_error, rel=1e-10)
    assert calibrated.residual_error == pytest.approx(least_unbiased_error(code, joint, gram), rel=1e-6)


def test_shards_that_only_come_summed_are_one() -> None:
    """Each client stops only between pairs of shards, so that no state tells the shards of a pair apart."""
    code = WorkLists([[0, 1, 2, 3], [2, 3, 0, 1]], 4)
    arrivals = ProgressArrivals(code, [[0.2, 0, 0.3, 0, 0.5], [0.4, 0, 0.1, 0, 0.5]])
    gram = GramModel([1.0, 2.0, 0.5, 0.1], [1.0, 0.0, 0.5, 0.3])
    calibrated = OptimalUnbiasedDecoder().calibrate(code, arrivals, gram)
    moments = exact_moments(calibrated, arrivals, gram)
    assert moments.bias < 1e-12
    assert calibrated.residual_error == pytest.approx(moments.residual_error, rel=1e-10)


def test_directions_that_nothing_reaches_drop_out() -> None:
    """Rows 1100, 1010 and 1111 leave a direction of four shards unreached, though no two shards are always together."""
    code = MatrixCode([[1, 1, 0, 0], [1, 0, 1, 0], [1, 1, 1, 1]])
    p, gram = np.array([0.3, 0.6, 0.2]), GramModel([1.0, 2.0, 0.5, 0.1], [1.0, 0.0, 0.5, 0.3])
    calibrated = OptimalUnbiasedDecoder().calibrate(code, p, gram)
    moments = exact_moments(calibrated, p, gram)
    assert moments.bias < 1e-12
    assert calibrated.residual_error == pytest.approx(moments.residual_error, rel=1e-10)
    assert calibrated.residual_error == pytest.approx(
        least_unbiased_error(code, IndependentArrivals(p), gram), rel=1e-6
    )


@pytest.mark.parametrize("matrix", [[[1, 2]], [[1, 1, 0], [0, 1, 1]], [[1, -1]]], ids=str)
def test_codes_without_an_unbiased_decoder_are_refused(matrix: list[list[float]]) -> None:
    code = MatrixCode(matrix)
    # All ones is not in the span of all rows together, so that no weights whatever have a mean coverage of one.
    assert np.linalg.matrix_rank(np.vstack([matrix, np.ones(code.n_shards)])) > np.linalg.matrix_rank(matrix)
    with pytest.raises(
        NoUnbiasedDecoderError, match="every shard must be recoverable from some arrivals; got none for"
    ):
        OptimalUnbiasedDecoder().calibrate(code, np.full(code.n_clients, 0.5), GramModel.uniform(code.n_shards, 0.5))


def test_a_shard_that_no_client_ever_finishes_is_named() -> None:
    code = WorkLists([[0, 1], [0, 1]], 2)
    never = ProgressArrivals(code, [[0.5, 0.5, 0.0], [0.2, 0.8, 0.0]])
    with pytest.raises(NoUnbiasedDecoderError, match="got none for shard 1"):
        OptimalUnbiasedDecoder().calibrate(code, never, GramModel.uniform(2, 0.3))
    with pytest.raises(NoUnbiasedDecoderError, match="got 1 for all that hold shard 1, which cannot be served"):
        OptimalUnbiasedDecoder().calibrate(MatrixCode([[1, 0], [0, 1]]), [0.5, 1.0], GramModel.uniform(2, 0.3))


def test_a_block_with_too_many_states_is_drawn() -> None:
    rng = np.random.default_rng(2)
    code = WorkLists([rng.permutation(8).tolist() for _ in range(6)], 8)  # 9^6 states
    arrivals = ProgressArrivals(code, [rng.dirichlet(np.ones(9)) for _ in range(6)])
    calibrated = OptimalUnbiasedDecoder(draws=2000, seed=1).calibrate(code, arrivals, GramModel.uniform(8, 0.3))
    assert calibrated.status is CalibrationStatus.ESTIMATED
    coverage = np.array([calibrated.decode(one).coverage for one in arrivals.draw(2000, rng)])
    # Calibration and check have independent errors of equal size; z = 5 over 8 shards.
    assert np.abs(coverage.mean(axis=0) - 1).max() < 5 * np.sqrt(2) * calibrated.bias_standard_error


@pytest.mark.parametrize("decoder", [SumDecoder(), LeastSquaresDecoder()], ids=lambda decoder: decoder.name)
def test_rules_that_need_no_calibration_take_partial_work(decoder: SumDecoder) -> None:
    rng = np.random.default_rng(8)
    code = WorkLists([[0, 1, 2], [[2], [1, 0]]], 3)
    arrivals = ProgressArrivals(code, [rng.dirichlet(np.ones(4)) for _ in range(2)])
    gram = GramModel(rng.uniform(0.2, 2, 3), rng.uniform(0, 1.5, 3))
    calibrated = decoder.calibrate(code, arrivals, gram)
    moments = exact_moments(calibrated, arrivals, gram)
    if calibrated.residual_error is not None:
        assert calibrated.residual_error == pytest.approx(moments.residual_error, rel=1e-12)
        np.testing.assert_allclose(calibrated.bias, moments.coverage - 1, atol=1e-13)
    best = OptimalUnbiasedDecoder().calibrate(code, arrivals, gram)
    assert np.abs(best.bias).max() < 1e-12 < moments.bias


@pytest.mark.parametrize("coherent", [0.0, 1.5])
@pytest.mark.parametrize("redrawn", [False, True])
def test_fixed_weights_of_single_shards_are_unbiased_and_for_orthogonal_updates_the_best(
    coherent: float, redrawn: bool
) -> None:
    rng = np.random.default_rng(9)
    lists = [[[0], [1], [2]], [[2], [1], [0]], [[1], [0], [2]]]
    code = WorkLists(lists, 3, interchangeable=[0, 0, 0] if redrawn else None)
    arrivals = ProgressArrivals(code, [rng.dirichlet(np.ones(4)) for _ in range(3)])
    gram = GramModel(np.ones(3) if redrawn else rng.uniform(0.2, 2, 3), np.full(3, coherent))
    calibrated = FixedDecoder().calibrate(code, arrivals, gram)
    moments = exact_moments(calibrated, arrivals, gram)
    assert moments.bias < 1e-12
    assert calibrated.residual_error == pytest.approx(moments.residual_error, rel=1e-12)
    if coherent:
        return
    # Any other unbiased fixed weights are this and a shift between two holders of a shard: none is better.
    come, weights = arrivals.row_probability, calibrated.decode(np.ones(9, dtype=bool)).decoding_weights
    for shard, (one, other) in itertools.product(range(3), itertools.combinations(range(3), 2)):
        rows = [next(r for r in code.rows_of(c) if code.encoding_matrix[r, shard]) for c in (one, other)]
        for step in (1e-3, -1e-3):
            shifted = weights.copy()
            shifted[rows] += np.array([step, -step]) / come[rows]
            assert CalibratedLinear(code, shifted, arrivals, gram).error > calibrated.residual_error


def test_fixed_weights_need_shards_that_can_arrive_by_themselves() -> None:
    code, gram = WorkLists([[0, 1]], 2), GramModel.uniform(2, 0.5)
    with pytest.raises(ValueError, match=r"rows of the code must be of one shard \(sums='shard'\) .*; got one of 2"):
        FixedDecoder().calibrate(code, ProgressArrivals(code, [[0.2, 0.3, 0.5]]), gram)
    code = WorkLists([[[0], [1]]], 2)
    with pytest.raises(NoUnbiasedDecoderError, match="every shard must be able to arrive; got shard 1, which cannot"):
        FixedDecoder().calibrate(code, ProgressArrivals(code, [[0.2, 0.8, 0.0]]), gram)


def test_rules_for_whole_updates_say_so() -> None:
    code = WorkLists([[0, 1]], 2)
    with pytest.raises(
        ValueError, match="arrivals must be IndependentArrivals for decoder 'fixed-aligned'; got ProgressArrivals"
    ):
        FixedAlignedDecoder().calibrate(code, ProgressArrivals(code, [[0.2, 0.3, 0.5]]), GramModel.uniform(2, 0.5))


@pytest.mark.parametrize("segments", [[[0, 1, 2, 3]], [[0], [1], [2], [3]], [[0, 1], [2, 3]]], ids=str)
def test_streaming_gives_the_same_sum(segments: list[list[int]]) -> None:
    rng = np.random.default_rng(6)
    code = WorkLists([segments, [segment[::-1] for segment in segments[::-1]], [4]], 5)
    arrivals = ProgressArrivals(code, [rng.dirichlet(np.ones(code.rows_of(i).size + 1)) for i in range(3)])
    gram = GramModel(rng.uniform(0.2, 2, 5), rng.uniform(0, 1.5, 5))
    calibrated = OptimalUnbiasedDecoder().calibrate(code, arrivals, gram)
    updates = rng.standard_normal((5, 7))
    coded = code.encoding_matrix @ updates
    for arrived in arrivals.draw(40, rng):
        stream = StreamingSum(calibrated, {"w": np.zeros(7)})
        for row in rng.permutation(np.flatnonzero(arrived)):
            stream.add(int(row), {"w": coded[row]})
            if len(segments) == 4:
                assert stream.held == 0
        expected = calibrated.decode(arrived).coverage @ updates
        np.testing.assert_allclose(stream.finish()["w"], expected, atol=1e-12)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda c: WorkLists([], 2), "number of lists must be an integer of at least 1; got 0"),
        (lambda c: WorkLists([[0, 0]], 1), "list of client 0 must name distinct shards from 0 to 0; got \\[0, 0\\]"),
        (lambda c: WorkLists([[0], [2]], 2), "list of client 1 must name distinct shards from 0 to 1; got \\[2\\]"),
        (lambda c: WorkLists([[]], 1), "list of client 0 must have at least one shard in every segment; got none"),
        (lambda c: WorkLists([[0]], 2), "every shard must be held by a client; got none for shard 1"),
        (lambda c: ProgressArrivals(c, [[1.0, 0.0, 0.0]]), "progress_prob must have one entry per client, 2; got 1"),
        (
            lambda c: ProgressArrivals(c, [[1.0, 0.0]] * 2),
            r"progress_prob of client 0 must have shape \(3,\); got shape",
        ),
        (lambda c: ProgressArrivals(c, [[0.5, 0.6, 0.0]] * 2), "progress_prob of client 0 must sum to 1; got 1.1"),
        (
            lambda c: ProgressArrivals(c, [[1.5, -0.5, 0.0]] * 2),
            r"progress_prob of client 0 must lie in \[0, 1\]; got 1.5",
        ),
        (lambda c: JointArrivals(2, [([0], [[True]], [1.0])]), r"parts must name every row 0 .. 1 once; got \[0\]"),
        (lambda c: JointArrivals(1, [([0], [[1]], [1.0])]), "outcomes of part 0 must be boolean of shape"),
        (lambda c: IndependentArrivals([1.0]), r"straggle_prob must lie in \[0, 1\); got 1 for client 0"),
        (
            lambda c: OptimalUnbiasedDecoder().calibrate(c, IndependentArrivals([0.5]), GramModel.uniform(2, 0.5)),
            "arrivals must be about n_rows = 4 coded updates; got 1",
        ),
    ],
)
def test_impossible_lists_and_models_are_refused(make, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        make(WorkLists([[0, 1], [1, 0]], 2))


@pytest.mark.parametrize("seed", range(4))
def test_shards_recovered_singly_are_decoded_without_elimination_and_just_as_exactly(seed: int) -> None:
    """One shard per segment: merged states must give what listing every combination of progress gives."""
    rng = np.random.default_rng([22, seed])
    orders = [[0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2], [4, 5], [5, 4], [6]]
    code = WorkLists([[[shard] for shard in order] for order in orders], 7)
    arrivals = ProgressArrivals(code, [rng.dirichlet(np.ones(len(order) + 1)) for order in orders])
    gram = GramModel(rng.uniform(0.2, 2, 7), rng.uniform(0, 1.5, 7))
    calibrated = OptimalUnbiasedDecoder().calibrate(code, arrivals, gram)
    moments = exact_moments(calibrated, arrivals, gram)
    assert moments.bias < 1e-12
    assert calibrated.residual_error == pytest.approx(moments.residual_error, rel=1e-11)
    if seed < 2:
        small = WorkLists([[[0], [1]], [[1], [0]]], 2)
        chances = ProgressArrivals(small, [rng.dirichlet(np.ones(3)), rng.dirichlet(np.ones(3))])
        energies = GramModel(rng.uniform(0.2, 2, 2), rng.uniform(0, 1.5, 2))
        least = least_unbiased_error(small, chances, energies)
        assert OptimalUnbiasedDecoder().calibrate(small, chances, energies).residual_error == pytest.approx(
            least, rel=1e-6
        )


@pytest.mark.parametrize("seed", range(3))
def test_incoherent_shards_are_exact_however_many_states_they_have(seed: int) -> None:
    """Nothing is listed or drawn: a shard's weight is one over its probability to arrive, rare as it may be."""
    rng = np.random.default_rng([23, seed])
    lists, chances = [rng.permutation(9) for _ in range(5)], [rng.dirichlet(np.full(10, 0.3)) for _ in range(5)]
    code = WorkLists([[[int(shard)] for shard in order] for order in lists], 9)
    arrivals = ProgressArrivals(code, chances)
    gram = GramModel(rng.uniform(0.2, 2, 9), np.zeros(9))
    calibrated = OptimalUnbiasedDecoder(most_states=10).calibrate(code, arrivals, gram)
    assert calibrated.status is CalibrationStatus.EXACT
    missed = np.ones(9)
    for order, chance in zip(lists, chances, strict=True):
        missed[order] *= np.cumsum(chance)[:-1]
    error = float(gram.incoherent @ (missed / (1.0 - missed))) / gram.incoherent.sum()
    assert calibrated.residual_error == pytest.approx(error, rel=1e-12)
    everything = np.ones(code.n_rows, dtype=bool)
    np.testing.assert_allclose(calibrated.decode(everything).coverage, 1.0 / (1.0 - missed), rtol=1e-12)


def test_a_shard_too_rare_to_be_drawn_is_still_weighed() -> None:
    """One in a hundred thousand rounds brings shard 5; no draw shows it, and its probability is known all the same."""
    orders = [[0, 1, 2, 3, 4, 5], [4, 3, 2, 1, 0, 5]]
    code = WorkLists([[[shard] for shard in order] for order in orders], 6)
    chance = np.array([0.3, 0.1, 0.1, 0.1, 0.2, 0.2 - 5e-6, 5e-6])
    arrivals = ProgressArrivals(code, [chance, chance])
    gram = GramModel(np.ones(6), np.full(6, 0.05))
    exact = OptimalUnbiasedDecoder().calibrate(code, arrivals, gram)
    drawn = OptimalUnbiasedDecoder(most_states=2, draws=4000).calibrate(code, arrivals, gram)
    assert exact.status is CalibrationStatus.EXACT
    assert drawn.status is CalibrationStatus.ESTIMATED
    assert drawn.residual_error == pytest.approx(exact.residual_error, rel=0.02)


def test_what_cannot_be_solved_for_is_not_said_to_be_without_error() -> None:
    gram = GramModel([1.0, 2.0], [0.0, 0.5])
    assert predicted_residual_error(gram, np.zeros(2), np.inf) == (np.inf, np.inf)
    assert predicted_residual_error(gram, np.zeros(2), 1e-16)[0] == 0.0
