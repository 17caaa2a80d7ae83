"""Estimates of the second moment, held against the mean over all arrival sets."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from fedgc.arrivals import ArrivalModel, IndependentArrivals, JointArrivals, ProgressArrivals
from fedgc.codes import Code, FractionalRepetition, MatrixCode, Uncoded, WorkLists
from fedgc.decoders import (
    BoundedMassDecoder,
    CalibratedDecoder,
    Decoder,
    FixedDecoder,
    InverseProbabilityDecoder,
    LeastSquaresDecoder,
    OptimalUnbiasedDecoder,
    variance_weights,
)
from fedgc.gram import GramModel
from fedgc.moments import ScaledSquare, SecondMoment, SecondTrack, SubtractedVariance, build_second_moment
from tests.enumeration import joint_sets

N_ENTRIES = 3
BLOCKS = FractionalRepetition([0, 1, 0, 2, 0, 1, 3], [0, 1, 1, 2, 3, 3, 3])
SGC = MatrixCode([[0.5, 0.5, 0, 0], [0, 0.5, 0.5, 0], [0, 0, 0.5, 0.5], [0.5, 0, 0, 0.5]])


@pytest.fixture(params=[0, 1, 2])
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    return np.random.default_rng([29, request.param])


def moments(
    rule: SecondMoment,
    calibrated: CalibratedDecoder,
    arrivals: ArrivalModel,
    gram: GramModel,
    shards: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return the mean of the estimate and of the decoded update, and its variance, over all arrival sets."""
    rows, scale = calibrated.code.encoding_matrix @ shards, 0.25
    arrays = {"w": np.zeros(N_ENTRIES)}
    square, first, second = (np.zeros(N_ENTRIES) for _ in range(3))
    for arrived, probability in joint_sets(arrivals):
        known = rule.begin(calibrated, arrivals, gram, arrays)
        for row in np.flatnonzero(arrived):
            known.add(int(row), {"w": rows[row]})
        decoded = scale * calibrated.decode(arrived).decoding_weights @ rows
        square += probability * known.square({"w": decoded}, scale)["w"]
        first += probability * decoded
        second += probability * decoded**2
    return square / scale**2, first / scale, (second - first**2) / scale**2


def updates(code: Code, rng: np.random.Generator) -> NDArray[np.float64]:
    return rng.normal(0.3, 1.0, (code.n_shards, N_ENTRIES))


@pytest.mark.parametrize("coherence", [0.0, 0.4])
@pytest.mark.parametrize("code", [BLOCKS, Uncoded(4, 4), Uncoded(3, 6)], ids=["blocks", "uncoded", "runs of shards"])
def test_the_subtracted_variance_leaves_the_exact_square_in_every_entry(
    code: Code, coherence: float, rng: np.random.Generator
) -> None:
    """Of blocks that are taken to point the same way too, for whatever updates."""
    arrivals = IndependentArrivals(rng.uniform(0.05, 0.8, code.n_rows))
    gram, shards = GramModel.uniform(code.n_shards, coherence), updates(code, rng)
    calibrated = OptimalUnbiasedDecoder().calibrate(code, arrivals, gram)
    square, mean, variance = moments(SubtractedVariance(), calibrated, arrivals, gram, shards)
    exact = shards.sum(axis=0)
    np.testing.assert_allclose(mean, exact, atol=1e-12 * np.abs(exact).max())
    np.testing.assert_allclose(square, exact**2, atol=1e-12 * (exact**2 + variance).max())
    assert (variance > 0.05).all()  # what is subtracted is not nothing


@pytest.mark.parametrize(
    ("rule", "code"),
    [
        (InverseProbabilityDecoder(), SGC),
        (FixedDecoder(), SGC),
        (LeastSquaresDecoder(), BLOCKS),
        (BoundedMassDecoder(), SGC),
    ],
    ids=lambda one: getattr(one, "name", None),
)
def test_of_settled_weights_the_square_of_the_mean_is_left(rule: Decoder, code: Code, rng: np.random.Generator) -> None:
    arrivals = IndependentArrivals(rng.uniform(0.05, 0.8, code.n_rows))
    gram, shards = GramModel.uniform(code.n_shards, 0.2), updates(code, rng)
    square, mean, variance = moments(SubtractedVariance(), rule.calibrate(code, arrivals, gram), arrivals, gram, shards)
    np.testing.assert_allclose(square, mean**2, atol=1e-12 * (mean**2 + variance).max())


def test_copies_that_fail_together_are_still_one_unit(rng: np.random.Generator) -> None:
    """Clients 0 and 1 hold the same block: that they depend on each other changes only how likely it comes."""
    code = FractionalRepetition([0, 0, 1], [0, 1])
    arrivals = JointArrivals(
        3,
        [
            ([0, 1], [[False, False], [True, True], [True, False]], [0.5, 0.3, 0.2]),
            ([2], [[False], [True]], [0.4, 0.6]),
        ],
    )
    weights = variance_weights(LeastSquaresDecoder().calibrate(code, arrivals, GramModel.uniform(2, 0.0)), arrivals)
    np.testing.assert_allclose(weights, [0.5, 0.5, 0.4], atol=1e-15)


@pytest.mark.parametrize("coherence", [0.0, 0.4])
@pytest.mark.parametrize(
    "decoder", [OptimalUnbiasedDecoder(), FixedDecoder(), BoundedMassDecoder()], ids=lambda one: one.name
)
def test_the_scaled_square_is_right_in_the_sum_over_entries(
    decoder: Decoder, coherence: float, rng: np.random.Generator
) -> None:
    """With updates whose Gram matrix is the model's, for biased weights too, but in no single entry."""
    code, gram = (
        Uncoded(N_ENTRIES, N_ENTRIES),
        GramModel(rng.uniform(0.5, 2.0, N_ENTRIES), np.full(N_ENTRIES, coherence)),
    )
    shards = np.linalg.cholesky(gram.matrix)
    arrivals = IndependentArrivals(rng.uniform(0.1, 0.8, N_ENTRIES))
    square, _, _ = moments(ScaledSquare(), decoder.calibrate(code, arrivals, gram), arrivals, gram, shards)
    exact = shards.sum(axis=0) ** 2
    assert square.sum() == pytest.approx(exact.sum(), rel=1e-12)
    assert np.abs(square - exact).max() > 0.01


def test_the_scaled_square_serves_work_lists(rng: np.random.Generator) -> None:
    code, arrivals, gram = work_lists()
    shards = np.linalg.cholesky(gram.matrix)
    calibrated = OptimalUnbiasedDecoder().calibrate(code, arrivals, gram)
    square, _, _ = moments(ScaledSquare(), calibrated, arrivals, gram, shards)
    assert square.sum() == pytest.approx(gram.matrix.sum(), rel=1e-12)


def work_lists() -> tuple[WorkLists, ProgressArrivals, GramModel]:
    """Two clients with three shards, of which each does some first ones."""
    code = WorkLists([[[0], [1]], [[2], [1]]], n_shards=3)
    return code, ProgressArrivals(code, [[0.3, 0.3, 0.4], [0.2, 0.5, 0.3]]), GramModel.uniform(3, 0.3)


def test_what_cannot_be_had_is_refused() -> None:
    code, arrivals, gram = work_lists()
    calibrated = OptimalUnbiasedDecoder().calibrate(code, arrivals, gram)
    with pytest.raises(ValueError, match=r"second_moment 'subtract' needs whole blocks, or settled weights"):
        SubtractedVariance().begin(calibrated, arrivals, gram, {})
    independent, alike = IndependentArrivals([0.5, 0.5]), GramModel.uniform(2, 0.5)
    least = LeastSquaresDecoder().calibrate(Uncoded(2, 2), independent, alike)
    with pytest.raises(ValueError, match=r"'scale' needs a decoder whose residual error is predicted; got _Calib"):
        ScaledSquare().begin(least, independent, alike, {})
    copies = FractionalRepetition([0, 0], [0, 0])  # these would be halves
    twice = OptimalUnbiasedDecoder().calibrate(copies, independent, alike)
    with pytest.raises(ValueError, match=r"second_decoder must decode the code as it is; got 'inverse-probability'"):
        SecondTrack(InverseProbabilityDecoder()).begin(twice, independent, alike, {})
    with pytest.raises(ValueError, match=r"second_decoder must be left out unless second_moment is 'second-track'"):
        build_second_moment("scale", "least-squares")
    with pytest.raises(ValueError, match=r"second_decoder must be one of .*, did you mean least-squares\?"):
        build_second_moment("second-track", "least-square")
    with pytest.raises(ValueError, match=r"trade must be"):
        BoundedMassDecoder(trade=0.0)


def test_the_bounded_mass_is_the_least_of_its_trade(rng: np.random.Generator) -> None:
    """The weights are the minimiser of squared bias of the whole sum and variance, found by solving for it."""
    p, trade = rng.uniform(0.05, 0.9, 4), 1.7
    row_sum, d = SGC.encoding_matrix.sum(axis=1), p / (1 - p)
    mass = np.linalg.solve(trade**2 * np.ones((4, 4)) + np.diag(d), np.full(4, trade**2 * 4.0))
    calibrated = BoundedMassDecoder(trade).calibrate(SGC, p, GramModel.uniform(4, 0.0))
    weights = calibrated.decode(np.ones(4, dtype=bool)).decoding_weights
    np.testing.assert_allclose(weights, mass / ((1 - p) * row_sum), rtol=1e-12)


def test_the_second_track_is_the_other_decoders_square(rng: np.random.Generator) -> None:
    arrivals, gram, shards = IndependentArrivals([0.5] * 7), GramModel.uniform(7, 0.3), updates(BLOCKS, rng)
    calibrated = OptimalUnbiasedDecoder().calibrate(BLOCKS, arrivals, gram)
    arrived = np.array([True, False, True, False, False, True, False])
    known = SecondTrack(LeastSquaresDecoder()).begin(calibrated, arrivals, gram, {"w": np.zeros(N_ENTRIES)})
    rows = BLOCKS.encoding_matrix @ shards
    for row in np.flatnonzero(arrived):
        known.add(int(row), {"w": rows[row]})
    came = shards[[0, 1, 2]].sum(axis=0)  # blocks 0 and 1, each once
    np.testing.assert_allclose(known.square({}, 0.5)["w"], (0.5 * came) ** 2, rtol=1e-12)
