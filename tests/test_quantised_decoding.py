"""The optimal decoder of quantised messages against enumeration of all arrival sets and a convex programme."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest

from fedgc.arrivals import ProgressArrivals
from fedgc.codes import Chain, FractionalRepetition, WorkLists
from fedgc.decoders import CalibratedDecoder, OptimalUnbiasedDecoder, StreamingSum
from fedgc.errors import NoUnbiasedDecoderError
from fedgc.gram import GramModel
from fedgc.quantisers import BucketedNorm
from tests.enumeration import arrival_sets, exact_moments

CODE = FractionalRepetition([0, 1, 2, 0, 1, 0], [0, 1, 2, 2])


def energies(code: FractionalRepetition, gram: GramModel) -> np.ndarray:
    """Squared norm of what each row carries, straight from G."""
    return np.einsum("ij,jk,ik->i", code.encoding_matrix, gram.matrix, code.encoding_matrix)


def make_gram(kind: str, rng: np.random.Generator) -> GramModel:
    d, r = rng.uniform(0.2, 2, 4), rng.uniform(0.2, 1.5, 4)
    return GramModel(d * (1e-3 if kind == "aligned" else 1), np.zeros(4) if kind == "orthogonal" else r)


def enumerated(calibrated: CalibratedDecoder, p: np.ndarray, gram: GramModel, noise: np.ndarray) -> float:
    """The mean over all arrival sets of (v - 1)' G (v - 1) + sum_i w_i^2 noise_i, over 1' G 1."""
    ones = np.ones(gram.incoherent.size)
    left = sum(
        chance * float(calibrated.decode(arrived).decoding_weights ** 2 @ noise) for arrived, chance in arrival_sets(p)
    )
    return exact_moments(calibrated, p, gram).residual_error + left / gram.inner(ones, ones)


@pytest.mark.parametrize("kind", ["orthogonal", "mixed", "aligned"])
@pytest.mark.parametrize("seed", range(3))
def test_no_unbiased_rule_has_less_error_with_the_noise_of_rounding(kind: str, seed: int) -> None:
    rng = np.random.default_rng([3, seed])
    p, gram, omega = rng.uniform(0.05, 0.9, 6), make_gram(kind, rng), rng.exponential(0.5, 6)
    noise = omega * energies(CODE, gram)
    calibrated = OptimalUnbiasedDecoder(variance_factor=omega).calibrate(CODE, p, gram)
    assert exact_moments(calibrated, p, gram).bias < 1e-12
    assert enumerated(calibrated, p, gram, noise) == pytest.approx(calibrated.residual_error, rel=1e-9)

    root, A = np.linalg.cholesky(gram.matrix), CODE.encoding_matrix
    cost, mean = 0.0, 0.0
    for arrived, chance in arrival_sets(p):
        w = cp.Variable(6)
        kept = cp.multiply(w, arrived.astype(float))
        v = A.T @ kept
        cost += chance * (cp.sum_squares(root.T @ (v - 1.0)) + cp.sum_squares(cp.multiply(np.sqrt(noise), kept)))
        mean += chance * v
    least = cp.Problem(cp.Minimize(cost), [mean == 1.0]).solve(
        solver=cp.CLARABEL, tol_gap_rel=1e-10, tol_gap_abs=1e-10, tol_feas=1e-10
    )
    assert calibrated.residual_error == pytest.approx(least / gram.inner(np.ones(4), np.ones(4)), rel=1e-6)


@pytest.mark.parametrize("kind", ["orthogonal", "mixed", "aligned"])
def test_without_noise_it_is_the_decoder_without(kind: str) -> None:
    rng = np.random.default_rng(8)
    p, gram = rng.uniform(0.05, 0.9, 6), make_gram(kind, rng)
    without = OptimalUnbiasedDecoder().calibrate(CODE, p, gram)
    for shared in (False, True):
        tiny = OptimalUnbiasedDecoder(variance_factor=1e-12, shared_rounding=shared).calibrate(CODE, p, gram)
        assert tiny.residual_error == pytest.approx(without.residual_error, rel=1e-7)
        for arrived, _ in arrival_sets(p):
            np.testing.assert_allclose(tiny.decode(arrived).coverage, without.decode(arrived).coverage, atol=1e-7)


def test_copies_are_weighed_by_inverse_variance_and_more_of_them_count_more() -> None:
    code, p, omega = FractionalRepetition([0, 0], [0]), np.array([0.4, 0.3]), np.array([0.5, 2.0])
    calibrated = OptimalUnbiasedDecoder(variance_factor=omega).calibrate(code, p, GramModel([1.0], [0.0]))
    both, first, second = (
        calibrated.decode(one).decoding_weights for one in ([True] * 2, [True, False], [False, True])
    )
    assert both[0] / both[1] == pytest.approx(4.0)
    assert both.sum() > first.sum() > second.sum()
    # W = mu / (d + N) with N = 0.4 of both together.
    mu = 1 / (0.42 / 1.4 + 0.18 / 1.5 + 0.28 / 3.0)
    np.testing.assert_allclose([both.sum(), first.sum(), second.sum()], mu / np.array([1.4, 1.5, 3.0]), rtol=1e-12)


@pytest.mark.parametrize("kind", ["orthogonal", "mixed", "aligned"])
def test_rounding_that_copies_share_is_incoherent_energy(kind: str) -> None:
    rng = np.random.default_rng(9)
    p, gram, omega = rng.uniform(0.05, 0.9, 6), make_gram(kind, rng), 0.7
    calibrated = OptimalUnbiasedDecoder(variance_factor=omega, shared_rounding=True).calibrate(CODE, p, gram)
    assert exact_moments(calibrated, p, gram).bias < 1e-12
    energy = energies(CODE, gram)[:3]
    left = sum(
        chance * float((calibrated.decode(arrived).coverage[[0, 1, 2]] ** 2) @ (omega * energy))
        for arrived, chance in arrival_sets(p)
    )
    error = exact_moments(calibrated, p, gram).residual_error + left / gram.inner(np.ones(4), np.ones(4))
    assert error == pytest.approx(calibrated.residual_error, rel=1e-9)
    # The noise of copies on their own averages out; and whoever leaves noise out of the weights has more of it.
    alone = OptimalUnbiasedDecoder(variance_factor=omega).calibrate(CODE, p, gram)
    assert alone.residual_error < calibrated.residual_error
    ignorant = OptimalUnbiasedDecoder().calibrate(CODE, p, gram)
    assert enumerated(ignorant, p, gram, omega * energies(CODE, gram)) > alone.residual_error * (1 - 1e-12)


def test_shared_rounding_of_work_lists_by_shard() -> None:
    code = WorkLists([[[0], [1]], [[1], [0]]], n_shards=2)
    arrivals = ProgressArrivals(code, [[0.1, 0.4, 0.5], [0.2, 0.5, 0.3]])
    gram = GramModel([1.0, 2.0], [1.0, 0.5])
    calibrated = OptimalUnbiasedDecoder(variance_factor=0.3, shared_rounding=True).calibrate(code, arrivals, gram)
    noisy = GramModel([1.0 + 0.3 * 2.0, 2.0 + 0.3 * 2.25], [1.0, 0.5])
    plain = OptimalUnbiasedDecoder().calibrate(code, arrivals, noisy)
    for arrived in ([True, False, True, False], [True, True, False, False]):
        np.testing.assert_allclose(calibrated.decode(arrived).decoding_weights, plain.decode(arrived).decoding_weights)


def test_decoded_as_they_come_and_really_rounded() -> None:
    """The mean square over arrivals and roundings, drawn with real quantisers, is the predicted one."""
    rng, size = np.random.default_rng(10), 64
    updates = rng.standard_normal((4, size)) + rng.standard_normal(size)
    sums = CODE.encoding_matrix @ updates
    p, bits = rng.uniform(0.1, 0.6, 6), (3, 3, 4, 2, 3, 4)
    quantisers = [BucketedNorm(b, bucket=32) for b in bits]
    omega = np.array([q.variance_factor(row) for q, row in zip(quantisers, sums, strict=True)])
    # Any Gram matrix will do for the weights; the error is that of the updates themselves.
    gram = GramModel(np.full(4, 64.0), np.full(4, 8.0))
    calibrated = OptimalUnbiasedDecoder(variance_factor=omega).calibrate(CODE, p, gram)
    whole, exact = updates.sum(axis=0), 0.0
    for arrived, chance in arrival_sets(p):
        w = calibrated.decode(arrived).decoding_weights
        exact += chance * (np.sum((w @ sums - whole) ** 2) + w**2 @ (omega * (sums**2).sum(axis=1)))
    drawn = []
    for _ in range(4000):
        arrived = rng.random(6) >= p
        stream = StreamingSum(calibrated, {"w": np.zeros(size)})
        for row in np.flatnonzero(arrived):
            data = quantisers[row].quantise(sums[row], rng)
            stream.add(int(row), {"w": quantisers[row].dequantise(data, size)})
        drawn.append(np.sum((stream.finish()["w"] - whole) ** 2))
    assert np.mean(drawn) == pytest.approx(exact, abs=4 * np.std(drawn) / np.sqrt(len(drawn)))


def test_many_equal_clients_have_few_states() -> None:
    code = FractionalRepetition(np.arange(200) % 4, np.arange(4))
    calibrated = OptimalUnbiasedDecoder(variance_factor=0.5).calibrate(
        code, np.full(200, 0.5), GramModel.uniform(4, 0.3)
    )
    assert calibrated.rounding < 1e-12
    assert 0.0 < calibrated.residual_error < 0.02


def test_a_client_that_sends_nothing_is_not_waited_for() -> None:
    code, gram = FractionalRepetition([0, 0, 1], [0, 1]), GramModel([1.0, 1.0], [0.5, 0.5])
    calibrated = OptimalUnbiasedDecoder(variance_factor=[0.1, np.inf, 0.2]).calibrate(code, [0.1, 0.0, 0.3], gram)
    assert exact_moments(calibrated, np.array([0.1, 0.0, 0.3]), gram).bias < 1e-12
    assert calibrated.decode([True, True, True]).decoding_weights[1] == 0.0
    with pytest.raises(NoUnbiasedDecoderError, match="got none for shard 1"):
        OptimalUnbiasedDecoder(variance_factor=[0.1, 0.1, np.inf]).calibrate(code, [0.1, 0.0, 0.3], gram)


def test_what_cannot_be_calibrated_is_an_error() -> None:
    with pytest.raises(ValueError, match="variance_factor must be one finite number for shared rounding"):
        OptimalUnbiasedDecoder(variance_factor=[0.1, 0.2], shared_rounding=True)
    with pytest.raises(ValueError, match="variance_factor needs whole blocks"):
        OptimalUnbiasedDecoder(variance_factor=0.1).calibrate(Chain([0.1, 0.2]), [0.1, 0.2], GramModel.uniform(2, 0.0))
    with pytest.raises(ValueError, match="rows of the code must be equal or have no shard in common"):
        OptimalUnbiasedDecoder(variance_factor=0.1, shared_rounding=True).calibrate(
            Chain([0.1, 0.2]), [0.1, 0.2], GramModel.uniform(2, 0.0)
        )
    with pytest.raises(ValueError, match=r"variance_factor must have shape \(3,\)"):
        code = FractionalRepetition([0, 0, 1], [0, 1])
        OptimalUnbiasedDecoder(variance_factor=[0.1, 0.2]).calibrate(code, [0.1] * 3, GramModel.uniform(2, 0.0))
    code = FractionalRepetition(np.zeros(30, dtype=int), [0])
    with pytest.raises(ValueError, match="at most 65536 states"):
        OptimalUnbiasedDecoder(variance_factor=np.random.default_rng(1).exponential(1, 30)).calibrate(
            code, [0.5] * 30, GramModel([1.0], [0.0])
        )
