"""Clients that go down together: decoders that know are unbiased, and those that take them for independent are not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fedgc.arrivals import DomainArrivals, IndependentArrivals, JointArrivals
from fedgc.codes import Code, FractionalRepetition, MatrixCode
from fedgc.decoders import FixedDecoder, OptimalUnbiasedDecoder
from fedgc.errors import NoUnbiasedDecoderError
from fedgc.gram import GramModel
from tests.enumeration import exact_moments

PROB = np.array([0.1, 0.3, 0.5, 0.2, 0.0, 0.4])
DOMAIN = np.array([0, 0, 1, 1, 2, 2])
MODEL = DomainArrivals(PROB, DOMAIN, [0.2, 0.0, 0.35])
GRAM = GramModel([1.0, 2.0, 0.5], [0.3, 0.8, 0.4])

#: The blocks are the domains, each is in one, they cross.
WITHIN = FractionalRepetition([0, 0, 1, 1, 2, 2], [0, 1, 2])
ACROSS = FractionalRepetition([0, 1, 2, 0, 1, 2], [0, 1, 2])
FREE = MatrixCode([[1, 0.5, 0], [0, 1, 1], [2, 0, 1], [0, -1, 1], [1, 0, 0], [0, 1, 0.3]])


@pytest.mark.parametrize("code", [WITHIN, ACROSS, FREE], ids=["within", "across", "free"])
def test_a_decoder_that_knows_of_domains_is_unbiased_and_knows_its_error(code: Code) -> None:
    calibrated = OptimalUnbiasedDecoder().calibrate(code, MODEL, GRAM)
    moments = exact_moments(calibrated, MODEL, GRAM)
    assert moments.bias < 1e-12
    assert calibrated.residual_error == pytest.approx(moments.residual_error, rel=1e-12)


def test_independent_clients_with_the_same_marginals_are_another_model() -> None:
    """A decoder calibrated for them is biased where blocks lie within domains, and unbiased where they cross them."""
    independent = IndependentArrivals(1.0 - MODEL.row_probability)
    for code, biased in ((WITHIN, True), (ACROSS, False)):
        taken = OptimalUnbiasedDecoder().calibrate(code, independent, GramModel(GRAM.incoherent, np.zeros(3)))
        moments = exact_moments(taken, MODEL, GramModel(GRAM.incoherent, np.zeros(3)))
        assert (moments.bias > 0.01) == biased
        if not biased:
            best = OptimalUnbiasedDecoder().calibrate(code, MODEL, GramModel(GRAM.incoherent, np.zeros(3)))
            assert best.residual_error is not None
            assert moments.residual_error >= best.residual_error - 1e-12


@pytest.mark.parametrize("code", [WITHIN, ACROSS], ids=["within", "across"])
def test_no_unbiased_rule_has_less_error_within_blocks_that_are_domains(code: Code) -> None:
    """Fixed weights are unbiased too, and never better."""
    fixed = FixedDecoder().calibrate(code, MODEL, GRAM)
    best = OptimalUnbiasedDecoder().calibrate(code, MODEL, GRAM)
    assert exact_moments(fixed, MODEL, GRAM).bias < 1e-12
    assert exact_moments(fixed, MODEL, GRAM).residual_error >= exact_moments(best, MODEL, GRAM).residual_error - 1e-12


def test_whole_blocks_and_listed_states_agree() -> None:
    joint = JointArrivals(6, [(part.rows, part.outcomes, part.probability) for part in MODEL.parts()])
    for model in (joint, MODEL):
        silence = model.log_silence(DOMAIN, 3)
        assert silence is not None
        np.testing.assert_allclose(np.exp(silence), [0.2 + 0.8 * 0.03, 0.1, 0.35], rtol=1e-14)
        assert model.log_silence(np.array([0, 1, 2, 0, 1, 2]), 3) is None
    assert sum(weights.sum() for _, weights in MODEL.sets()) == pytest.approx(1.0, abs=1e-14)


def test_a_million_clients_at_a_hundred_thousand_sites() -> None:
    rng = np.random.default_rng(0)
    of_client = np.arange(10**6) % 10**5
    model = DomainArrivals(rng.uniform(0.1, 0.9, 10**6), of_client, rng.uniform(0.0, 0.3, 10**5))
    gram = GramModel.uniform(10**5, 0.3)
    calibrated = OptimalUnbiasedDecoder().calibrate(FractionalRepetition(of_client, np.arange(10**5)), model, gram)
    coverage = np.mean([calibrated.decode(arrived).coverage.mean() for arrived in model.draw(40, rng)])
    # The mean over shards of what is lost has a standard deviation of about sqrt(.15 / .85 / 1e5) a round.
    assert coverage == pytest.approx(1.0, abs=6 * np.sqrt(0.2 / 1e5 / 40))


def test_draws_have_the_stated_frequencies() -> None:
    drawn = MODEL.draw(40_000, np.random.default_rng(3))
    np.testing.assert_allclose(drawn.mean(axis=0), MODEL.row_probability, atol=5 * 0.5 / 200)
    both_silent = (~drawn[:, :2]).all(axis=1).mean()
    assert both_silent == pytest.approx(0.2 + 0.8 * 0.03, abs=5 * 0.5 / 200)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (([0.1, 0.2], [0, 0], [1.0]), r"outage_prob must lie in \[0, 1\); got 1 for domain 0"),
        (([0.1, 1.0], [0, 0], [0.1]), r"straggle_prob must lie in \[0, 1\)"),
        (([0.1, 0.2], [0, 2], [0.1, 0.1, 0.1]), r"domain must name every domain 0 .. 2 of outage_prob; got \[0, 2\]"),
        (([0.1, 0.2], [0, 1], [0.1]), r"domain must name every domain 0 .. 0 of outage_prob; got \[0, 1\]"),
        (([0.1, 0.2], [0], [0.1]), r"domain must have shape \(2,\); got shape \(1,\)"),
        (([0.1, 0.2], [0.0, 1.0], [0.1, 0.1]), "domain must be integers of at least 0"),
    ],
)
def test_bad_domains_are_told(given: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DomainArrivals(*given)


def test_domains_too_large_to_list_are_told_where_blocks_cross_them() -> None:
    model = DomainArrivals(np.full(40, 0.2), np.arange(40) // 20, [0.1, 0.1])
    code = FractionalRepetition(np.arange(40) % 2, [0, 1])
    with pytest.raises(ValueError, match="domain must have at most 16 clients where blocks cross it; got 20"):
        OptimalUnbiasedDecoder().calibrate(code, model, GramModel.uniform(2, 0.0))


def test_a_block_that_never_comes_is_named() -> None:
    never = JointArrivals(2, [([0], [[False]], [1.0]), ([1], [[False], [True]], [0.5, 0.5])])
    with pytest.raises(NoUnbiasedDecoderError, match="0"):
        OptimalUnbiasedDecoder().calibrate(FractionalRepetition([0, 1], [0, 1]), never, GramModel.uniform(2, 0.0))
