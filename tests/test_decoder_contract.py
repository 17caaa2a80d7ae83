"""The contract that every decoder keeps, checked by enumeration of all arrival sets."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fedgc.arrivals import ProgressArrivals
from fedgc.assignment import SUMS, Sums
from fedgc.codes import FractionalRepetition, WorkLists
from fedgc.decoders import (
    DECODERS,
    CalibratedDecoder,
    CappedDecoder,
    Decoder,
    DecodingStatus,
    FixedDecoder,
    OptimalUnbiasedDecoder,
    StreamingSum,
)
from fedgc.gram import GramModel
from tests.enumeration import arrival_sets, assert_unbiased, exact_moments

CODES = {
    "one client": FractionalRepetition([0], [0, 0]),
    "one block": FractionalRepetition([0, 0, 0], [0, 0]),
    "no redundancy": FractionalRepetition([0, 1, 2, 3], [0, 1, 2, 3]),
    "pairs": FractionalRepetition([0, 1, 2, 0, 1, 2], [0, 0, 1, 2, 2, 2]),
    "uneven": FractionalRepetition([0, 1, 0, 2, 0, 1, 3, 3], [0, 1, 1, 2, 3, 3, 3]),
}
UNBIASED = [name for name, decoder in DECODERS.items() if decoder.unbiased]
BIASED = [name for name, decoder in DECODERS.items() if not decoder.unbiased]
GRAMS = ("orthogonal", "mixed", "aligned", "tiny incoherence", "twelve orders")


def make_gram(kind: str, n_shards: int, rng: np.random.Generator) -> GramModel:
    """A Gram model with shards of unequal energy."""
    d, r = rng.uniform(0.5, 2.0, n_shards), rng.uniform(0.5, 2.0, n_shards)
    if kind == "orthogonal":
        r = np.zeros(n_shards)
    elif kind == "aligned":
        d = d * 1e-3
    elif kind == "tiny incoherence":
        d = d * 1e-8
    elif kind == "twelve orders":
        d = d * 10.0 ** rng.uniform(-6, 6, n_shards)
    return GramModel(d, r)


@pytest.fixture(params=[0, 1, 2])
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    return np.random.default_rng([11, request.param])


@pytest.mark.parametrize("name", UNBIASED)
@pytest.mark.parametrize("code", CODES.values(), ids=CODES)
@pytest.mark.parametrize("gram_kind", GRAMS)
def test_unbiased_over_all_arrival_sets(
    name: str, code: FractionalRepetition, gram_kind: str, rng: np.random.Generator
) -> None:
    p = rng.uniform(0.0, 1.0, code.n_clients)
    assert_unbiased(DECODERS[name](), code, p, make_gram(gram_kind, code.n_shards, rng))


@pytest.mark.parametrize("name", UNBIASED)
@pytest.mark.parametrize("p", [0.0, 1e-9, 0.5, 0.99, 0.999])
def test_unbiased_at_extreme_probabilities(name: str, p: float) -> None:
    code = CODES["pairs"]
    assert_unbiased(DECODERS[name](), code, np.full(6, p), GramModel.uniform(6, 0.5))


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("code", CODES.values(), ids=CODES)
@pytest.mark.parametrize("gram_kind", GRAMS)
def test_predicted_residual_error_is_the_enumerated_one(
    name: str, code: FractionalRepetition, gram_kind: str, rng: np.random.Generator
) -> None:
    p, gram = rng.uniform(0.05, 0.95, code.n_clients), make_gram(gram_kind, code.n_shards, rng)
    calibrated = DECODERS[name]().calibrate(code, p, gram)
    if calibrated.residual_error is None:
        assert calibrated.bias is None
        return
    # The prediction is a difference of quadratic forms of order one, so it is exact to rounding in absolute terms.
    moments = exact_moments(calibrated, p, gram)
    assert calibrated.residual_error == pytest.approx(moments.residual_error, rel=1e-10, abs=1e-12)
    if calibrated.bias is not None:
        np.testing.assert_allclose(
            moments.coverage - 1, calibrated.bias, atol=1e-12 * (1 + np.abs(calibrated.bias).max())
        )


@pytest.mark.parametrize("name", DECODERS)
def test_only_arrivals_have_weight_and_the_status_tells(name: str) -> None:
    code = CODES["pairs"]
    calibrated = DECODERS[name]().calibrate(code, np.full(6, 0.3), GramModel.uniform(6, 0.2))
    some = calibrated.decode(np.array([True, False, False, True, True, False]))
    assert (some.decoding_weights[[1, 2, 5]] == 0).all()
    assert some.status is DecodingStatus.PARTIAL
    expected = calibrated.code.encoding_matrix.T @ some.decoding_weights
    np.testing.assert_allclose(some.coverage, expected, atol=1e-14)
    nothing = calibrated.decode(np.zeros(6, dtype=bool))
    assert nothing.status is DecodingStatus.EMPTY
    assert (nothing.decoding_weights == 0).all()
    assert calibrated.decode(np.ones(6, dtype=bool)).status is DecodingStatus.COMPLETE


@pytest.mark.parametrize("name", DECODERS)
def test_nobody_straggles_then_every_shard_counts_once(name: str) -> None:
    code = CODES["uneven"]
    calibrated = DECODERS[name]().calibrate(code, np.zeros(8), GramModel.uniform(7, 0.5))
    if name == "sum":  # counts every copy
        return
    coverage = calibrated.decode(np.ones(8, dtype=bool)).coverage
    mean = coverage.mean() if name in ("normalised-sum", "scaled-mean", "partial-mean") else coverage
    np.testing.assert_allclose(mean, 1.0, atol=1e-12)
    if DECODERS[name].unbiased:
        assert calibrated.residual_error == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize(
    ("p", "message"),
    [
        ([0.5, 1.0], r"straggle_prob must lie in \[0, 1\); got 1 for client 1"),
        ([-0.1, 0.5], r"straggle_prob must lie in \[0, 1\); got -0.1 for client 0"),
        ([0.5, np.nan], r"straggle_prob must lie in \[0, 1\); got nan for client 1"),
        ([0.5], r"straggle_prob must have shape \(2,\); got shape \(1,\)"),
    ],
)
def test_bad_probabilities_are_refused(name: str, p: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DECODERS[name]().calibrate(FractionalRepetition([0, 0], [0]), p, GramModel.uniform(1, 0.5))


@pytest.mark.parametrize("name", DECODERS)
def test_bad_sizes_and_arrivals_are_refused(name: str) -> None:
    code = FractionalRepetition([0, 0], [0])
    with pytest.raises(ValueError, match=r"gram must be of size n_shards = 1; got 3"):
        DECODERS[name]().calibrate(code, [0.5, 0.5], GramModel.uniform(3, 0.5))
    calibrated = DECODERS[name]().calibrate(code, [0.5, 0.5], GramModel.uniform(1, 0.5))
    with pytest.raises(ValueError, match=r"arrived must be a boolean vector of shape \(2,\); got int64"):
        calibrated.decode(np.array([1, 0]))


@pytest.mark.parametrize("name", BIASED)
def test_decoders_that_say_they_are_biased_are(name: str) -> None:
    with pytest.raises(AssertionError, match="bias"):
        assert_unbiased(DECODERS[name](), CODES["uneven"], np.full(8, 0.4), GramModel.uniform(7, 0.3))


class _Biased(Decoder):
    """Scales another decoder's weights by a factor close to one."""

    name = "biased"

    def __init__(self, inner: Decoder, factor: float) -> None:
        self._inner, self._factor = inner, factor

    def _calibrate(self, code, straggle_prob, gram) -> CalibratedDecoder:  # type: ignore[no-untyped-def]
        calibrated = self._inner.calibrate(code, straggle_prob, gram)
        decode, factor = calibrated.decode, self._factor

        def scaled(arrived):  # type: ignore[no-untyped-def]
            decoding = decode(arrived)
            return replace(decoding, decoding_weights=factor * decoding.decoding_weights)

        calibrated.decode = scaled  # type: ignore[method-assign]
        return calibrated


@pytest.mark.parametrize(
    "decoder",
    [_Biased(FixedDecoder(), 1 + 1e-9), _Biased(OptimalUnbiasedDecoder(), 1 + 1e-9)],
    ids=["fixed, off by 1e-9", "optimal, off by 1e-9"],
)
def test_a_biased_decoder_fails_the_contract(decoder: Decoder) -> None:
    with pytest.raises(AssertionError, match="bias"):
        assert_unbiased(decoder, CODES["pairs"], np.full(6, 0.4), GramModel.uniform(6, 0.3))


@pytest.mark.parametrize("decoder", [kind() for kind in DECODERS.values()], ids=lambda decoder: decoder.name)
def test_settled_means_that_more_arrivals_change_nothing(decoder: Decoder) -> None:
    p = np.array([0.2, 0.5, 0.3, 0.6, 0.1])
    gram = GramModel([1.0, 0.5, 2.0, 1.5], [0.4, 1.0, 0.2, 0.8])
    code = FractionalRepetition([0, 1, 0, 1, 2], [0, 1, 1, 2])
    calibrated = decoder.calibrate(code, p, gram)
    everything = calibrated.decode(np.ones(5, dtype=bool)).coverage
    for arrived, _ in arrival_sets(p):
        if not calibrated.settled(arrived):
            continue
        for more, _ in arrival_sets(p):
            np.testing.assert_allclose(calibrated.decode(arrived | more).coverage, everything, atol=1e-12)


def test_the_optimal_decoder_is_settled_as_soon_as_every_block_is_there() -> None:
    code = FractionalRepetition([0, 1, 0, 1, 2], [0, 1, 1, 2])
    calibrated = OptimalUnbiasedDecoder().calibrate(code, [0.2] * 5, GramModel.uniform(4, 0.5))
    assert calibrated.settled([True, True, False, False, True])
    assert not calibrated.settled([True, False, True, False, True])
    lists = WorkLists([[[0], [1], [2]], [[2], [1], [0]]], 3)
    progress = ProgressArrivals(lists, [[0.1, 0.2, 0.3, 0.4]] * 2)
    listed = OptimalUnbiasedDecoder().calibrate(lists, progress, GramModel.uniform(3, 0.5))

    def after(first: int, second: int) -> np.ndarray:
        arrived = np.zeros(6, dtype=bool)
        for client, done in ((0, first), (1, second)):
            arrived[lists.rows_of(client)] = lists.progress_outcomes(client)[done]
        return arrived

    assert listed.settled(after(3, 0))
    assert listed.settled(after(1, 2))
    assert not listed.settled(after(1, 1))
    assert not listed.settled(after(0, 2))


def test_sums_that_could_still_be_told_apart_are_not_settled() -> None:
    """Client 0 has sent all its sums, but a prefix from client 1 would split the second one."""
    lists = WorkLists([[[0], [1, 2]], [[2, 1], [0]]], 3)
    listed = OptimalUnbiasedDecoder().calibrate(
        lists, ProgressArrivals(lists, [[0.1, 0.2, 0.3, 0.4]] * 2), GramModel.uniform(3, 0.5)
    )
    arrived = np.zeros(6, dtype=bool)
    arrived[lists.rows_of(0)] = lists.progress_outcomes(0)[3]
    assert not listed.settled(arrived)
    arrived[lists.rows_of(1)] = lists.progress_outcomes(1)[1]
    assert listed.settled(arrived)


@pytest.mark.parametrize("name", DECODERS)
def test_weights_are_settled_where_a_decoder_says_so_and_nowhere_else(name: str, rng: np.random.Generator) -> None:
    code, p = CODES["uneven"], rng.uniform(0.05, 0.9, 8)
    for decoder in (DECODERS[name](), CappedDecoder(DECODERS[name](), 1.5)):
        calibrated = decoder.calibrate(code, p, make_gram("mixed", code.n_shards, rng))
        early = [calibrated.early_weights(row) for row in range(8)]
        alone = np.array([np.nan if weight is None else weight.alone for weight in early])
        same = [
            np.allclose(calibrated.decode(arrived).decoding_weights, np.where(arrived, alone, 0.0), rtol=1e-14)
            for arrived, _ in arrival_sets(p)
        ]
        assert all(same) == decoder.weights_settled


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("sums", SUMS)
def test_partial_work_can_be_decoded_where_a_decoder_says_so_and_nowhere_else(name: str, sums: Sums) -> None:
    shares = {"whole": [[0, 1, 2]], "share": [[0, 1], [2]], "shard": [[0], [1], [2]]}[sums]
    code = WorkLists([shares, [segment[::-1] for segment in reversed(shares)]], 3)
    arrivals = ProgressArrivals(code, [[0.1, 0.2, 0.3, 0.4]] * 2)
    gram = GramModel.uniform(3, 0.5)
    for decoder in (DECODERS[name](), CappedDecoder(DECODERS[name](), 1.5)):
        if sums in decoder.partial_work:
            assert decoder.calibrate(code, arrivals, gram).decode(np.zeros(code.n_rows, dtype=bool)).coverage.size == 3
        else:
            with pytest.raises(ValueError, match="must be"):
                decoder.calibrate(code, arrivals, gram)


@pytest.mark.parametrize("name", DECODERS)
def test_a_stream_decodes_to_the_weighted_sum(name: str, rng: np.random.Generator) -> None:
    """In any order of arrival; what is known early is not kept."""
    code, p = CODES["uneven"], rng.uniform(0.05, 0.9, 8)
    calibrated = DECODERS[name]().calibrate(code, p, make_gram("mixed", code.n_shards, rng))
    coded = calibrated.code.encoding_matrix @ rng.standard_normal((code.n_shards, 4))
    for arrived, _ in arrival_sets(p):
        stream = StreamingSum(calibrated, {"w": np.zeros(4)})
        for row in rng.permutation(np.flatnonzero(arrived)):
            stream.add(int(row), {"w": coded[row]})
        assert stream.held == 0
        expected = calibrated.decode(arrived).decoding_weights @ coded
        np.testing.assert_allclose(stream.finish()["w"], expected, atol=1e-11 * (1 + np.abs(expected).max()))
