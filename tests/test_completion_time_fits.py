"""Fits of completion times, against scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from scipy.integrate import quad

from fedgc.completion_times import (
    FAMILIES,
    CompletionTimes,
    FleetPrior,
    LogNormalTimes,
    ShiftedExponentialTimes,
    TimeObservation,
    WeibullTimes,
)
from fedgc.completion_times.sample import Sample

VAGUE = FleetPrior(mean=(0.0, -1.0), spread=(1e4, 1e4), present=1e9, absent=1e-3)


def sample_of(log_time, censored, weight=None):
    times = np.atleast_2d(np.asarray(log_time, dtype=float))
    weights = np.ones(times.shape) if weight is None else np.atleast_2d(weight)
    cut = np.atleast_2d(np.asarray(censored, dtype=bool))
    return Sample.build(times, weights, cut, ~cut)


def censored_draw(seed):
    """60 times of which a third is cut off."""
    rng = np.random.default_rng(seed)
    times, bound = np.exp(0.7 + 0.4 * rng.standard_normal(60)), 2.4
    return np.minimum(times, bound), times > bound


@pytest.mark.parametrize("name", FAMILIES)
def test_density_survival_and_quantile_belong_together(name):
    family, pair = FAMILIES[name], (0.4, 0.3)
    for x in (0.5, 1.3, 2.0):
        integral = quad(lambda t: float(np.exp(family.log_density(t, *pair))), 0.0, x, points=[0.4])[0]
        assert family.cdf(x, *pair) == pytest.approx(integral, abs=1e-8)
        assert family.survival(x, *pair) == pytest.approx(1.0 - integral, abs=1e-8)
        if 0.0 < integral < 1.0 - 1e-9:
            assert family.quantile(integral, *pair) == pytest.approx(x, rel=1e-5)
    assert family.cdf(0.0, *pair) == 0.0


@pytest.mark.parametrize(
    ("family", "frozen"),
    [
        (LogNormalTimes(), stats.lognorm(0.3, scale=np.exp(0.4))),
        (WeibullTimes(), stats.weibull_min(1 / 0.3, scale=np.exp(0.4))),
        (ShiftedExponentialTimes(), stats.expon(0.4, 0.3)),
    ],
)
def test_families_are_those_of_scipy(family, frozen):
    x = np.array([0.3, 0.5, 1.0, 1.5, 2.5])
    np.testing.assert_allclose(family.log_density(x, 0.4, 0.3), frozen.logpdf(x), rtol=1e-12)
    np.testing.assert_allclose(family.log_survival(x, 0.4, 0.3), frozen.logsf(x), rtol=1e-9, atol=1e-14)
    np.testing.assert_allclose(family.quantile([0.1, 0.9], 0.4, 0.3), frozen.ppf([0.1, 0.9]), rtol=1e-12)


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize(
    ("family", "oracle"), [(LogNormalTimes(marginal=False), stats.norm), (WeibullTimes(marginal=False), stats.gumbel_l)]
)
def test_location_scale_fit_is_scipys(family, oracle, seed):
    times, censored = censored_draw(seed)
    data = stats.CensoredData(uncensored=np.log(times[~censored]), right=np.log(times[censored]))
    estimate = family.estimate(sample_of(np.log(times), censored), VAGUE, max_steps=100, tolerance=1e-20)
    location, scale = (float(value[0]) for value in family.natural(estimate.coordinates))
    # scipy minimises by Nelder-Mead to about 1e-5; ours may not be worse, and must be as close as that allows.
    assert (location, scale) == pytest.approx(oracle.fit(data), rel=2e-4)

    def loss(m, s):
        return -oracle.logpdf(np.log(times[~censored]), m, s).sum() - oracle.logsf(np.log(times[censored]), m, s).sum()

    assert loss(location, scale) <= loss(*oracle.fit(data)) + 1e-9


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_covariance_is_the_inverse_of_the_numerical_hessian(seed):
    times, censored = censored_draw(seed)
    prior = FleetPrior((0.2, -1.0), (0.5, 0.4), present=8.0, absent=2.0, slow_prob=0.1, slow_factor=4.0)
    for family in (LogNormalTimes(marginal=False), WeibullTimes(marginal=False)):
        sample = sample_of(np.log(times), censored)
        found = family.estimate(sample, prior, max_steps=200, tolerance=1e-18)
        at, presence, h = found.coordinates, found.presence, 1e-4

        def value(i, j, family=family, sample=sample, at=at, presence=presence, h=h):
            return family._sums(sample, prior, at + np.array([[i * h, j * h]]), presence).value[0]

        j11 = -(value(1, 0) - 2 * value(0, 0) + value(-1, 0)) / h**2
        j22 = -(value(0, 1) - 2 * value(0, 0) + value(0, -1)) / h**2
        j12 = -(value(1, 1) - value(1, -1) - value(-1, 1) + value(-1, -1)) / (4 * h**2)
        inverse = np.linalg.inv([[j11, j12], [j12, j22]])
        np.testing.assert_allclose(found.covariance[0], [inverse[0, 0], inverse[0, 1], inverse[1, 1]], rtol=2e-3)


@pytest.mark.parametrize("cut", [np.inf, 1.6])
def test_shifted_exponential_fit_is_scipys_with_the_minimum_corrected(cut):
    times = 0.8 + 0.5 * np.random.default_rng(4).standard_exponential(400)
    censored = times > cut
    kept = np.minimum(times, cut)
    vague = FleetPrior(mean=(0.0, -1.0), spread=(1e4, 1.0), present=1e9, absent=1e-3)
    found = ShiftedExponentialTimes().estimate(sample_of(np.log(kept), censored), vague, tolerance=1e-20, max_steps=200)
    first, second = (float(value[0]) for value in ShiftedExponentialTimes().natural(found.coordinates))
    least = kept.min()
    # scipy has no censored fit of it in closed form: with the minimum as location the rest is total time over deaths.
    maximum = (kept - least).sum() / (~censored).sum()
    if np.isinf(cut):
        assert (least, maximum) == pytest.approx(stats.expon.fit(times))
    # One pseudo-round of the prior, and grid points for the least time: 1 % of the delay.
    assert second == pytest.approx(maximum, rel=0.01)
    assert first == pytest.approx(least - second / 400, abs=0.1 * second / 400)


def test_weights_count_like_repetitions():
    twice = sample_of(np.log([[1.0, 2.0, 2.0, 3.0]]), [[False, False, False, True]])
    weighted = sample_of(np.log([[1.0, 2.0, 3.0]]), [[False, False, True]], [[1.0, 2.0, 1.0]])
    prior = FleetPrior((0.2, -1.0), (0.5, 0.4), slow_prob=0.1)
    for family in FAMILIES.values():
        one, other = (family.estimate(s, prior, tolerance=1e-16, max_steps=200) for s in (twice, weighted))
        np.testing.assert_allclose(one.coordinates, other.coordinates, rtol=1e-6)


def test_clients_are_fitted_independently_of_their_neighbours():
    rng = np.random.default_rng(5)
    log_time, censored = rng.standard_normal((40, 6)), rng.random((40, 6)) < 0.3
    prior = FleetPrior((0.0, -0.5), (0.7, 0.4), slow_prob=0.05)
    for family in FAMILIES.values():
        together = family.estimate(sample_of(log_time, censored), prior, tolerance=1e-16, max_steps=300)
        alone = family.estimate(sample_of(log_time[7:8], censored[7:8]), prior, tolerance=1e-16, max_steps=300)
        np.testing.assert_allclose(together.coordinates[7], alone.coordinates[0], atol=2e-4)


def test_scale_without_a_prior_is_the_unbiased_one():
    x = np.random.default_rng(4).standard_normal((1, 6))
    found = LogNormalTimes().estimate(sample_of(x, np.zeros((1, 6))), VAGUE, max_steps=200, tolerance=1e-20)
    assert np.exp(found.coordinates[0, 1]) == pytest.approx(np.std(x, ddof=1), rel=1e-6)


def test_clients_seen_once_do_not_look_as_if_they_never_varied():
    rng = np.random.default_rng(13)
    seen = [TimeObservation(i, 1, float(np.exp(0.6 * rng.standard_normal()))) for i in range(300)]
    for family in FAMILIES:
        times = CompletionTimes(family=family).update(seen)
        # Nothing says how much of the spread is between rounds: what is assumed then is a relative spread of 0.4.
        assert np.exp(times.prior.mean[1]) == pytest.approx(0.4, rel=0.25)
