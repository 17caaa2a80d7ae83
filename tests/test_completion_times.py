"""Completion times: fits against scipy, closed forms of the predictions, degenerate input, state in and out."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
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


# Families


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


# Predictions


def observed(rng, n_clients=30, n_rounds=12, *, fixed=0.0, absent=0.1, deadline=6.0, report=False):
    median = np.exp(0.5 * rng.standard_normal(n_clients))
    rounds = []
    for server_round in range(n_rounds):
        for node in range(n_clients):
            load = 1 + (node + server_round) % 3
            seconds = fixed + load * median[node] * float(np.exp(0.3 * rng.standard_normal()))
            if rng.random() < absent or seconds > deadline:
                rounds.append(TimeObservation(node, load, deadline, censored=True))
            else:
                rounds.append(TimeObservation(node, load, seconds, fixed_seconds=fixed if report else None))
    return rounds


@pytest.fixture(scope="module")
def times():
    return CompletionTimes().update(observed(np.random.default_rng(1), fixed=0.5, report=True))


def test_progress_agrees_with_reach_and_in_time(times):
    nodes = [3, 0, 999]
    reach = times.reach(nodes, 4, 3.0)
    assert (reach[:, 0] == 1.0).all()
    assert (np.diff(reach, axis=1) <= 0.0).all()
    for k in range(1, 5):
        np.testing.assert_allclose(reach[:, k], times.in_time_prob(nodes, k, 3.0), rtol=1e-12)
    for length, own, row in zip([0, 2, 4], times.progress_prob(nodes, [0, 2, 4], 3.0), reach, strict=True):
        assert own.shape == (length + 1,)
        assert own.sum() == pytest.approx(1.0, abs=1e-14)
        np.testing.assert_allclose(np.cumsum(own[::-1])[::-1], row[: length + 1], atol=1e-14)


def test_limits_in_time(times):
    nodes = np.arange(30)
    presence = times.presence(nodes)
    assert (times.in_time_prob(nodes, 1, 0.4) == 0.0).all()  # less than the fixed part
    np.testing.assert_allclose(times.in_time_prob(nodes, 5, np.inf), presence, rtol=1e-14)
    np.testing.assert_allclose(times.in_time_prob(nodes, 0, 1.0), presence, rtol=1e-14)
    np.testing.assert_allclose(
        times.in_time_prob(nodes, 2, 3.0), presence * times.in_time_prob(nodes, 2, 3.0, given_present=True), rtol=1e-14
    )
    np.testing.assert_array_equal(times.fixed_seconds(nodes), np.full(30, 0.5))
    loads = np.linspace(1, 3, 30)
    one_by_one = [times.in_time_prob([i], loads[i], 3.0)[0] for i in range(30)]
    np.testing.assert_allclose(times.in_time_prob(nodes, loads, 3.0), one_by_one, rtol=1e-14)


def test_silence_is_conditioned_on(times):
    nodes, load, deadline = np.arange(30), 2, 4.0
    missed = 1.0 - times.in_time_prob(nodes, load, deadline)
    np.testing.assert_allclose(times.miss_prob_given_silent_until(nodes, load, 0.0, deadline), missed, rtol=1e-12)
    for seconds in (1.0, 3.0, 3.9):
        silent = 1.0 - times.in_time_prob(nodes, load, seconds)
        found = times.miss_prob_given_silent_until(nodes, load, seconds, deadline)
        np.testing.assert_allclose(found, missed / silent, rtol=1e-12)
        assert (found >= missed - 1e-15).all()
    assert (times.miss_prob_given_silent_until(nodes, load, 4.0, deadline) == 1.0).all()
    assert (times.miss_prob_given_silent_until(nodes, load, 9.0, deadline) == 1.0).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_new_client_is_like_the_fleet(family):
    """Its distribution is wider than any single client's, and its median that of the fleet."""
    times = CompletionTimes(family=family, slow_rounds=False).update(
        observed(np.random.default_rng(2), n_clients=100, absent=0.0, deadline=50.0)
    )
    one, all_of_them = times.in_time_prob([-1], 1, 1.5)[0], times.in_time_prob(range(100), 1, 1.5).mean()
    # 100 clients: the mean of their probabilities has a standard error of at most 0.5 / 10; z = 2, and the fleet's
    # law over clients is fitted to them.
    assert one == pytest.approx(all_of_them, abs=0.1)
    narrow = times.in_time_prob([0], 1, 8.0)[0] - times.in_time_prob([0], 1, 0.1)[0]
    assert narrow > times.in_time_prob([-1], 1, 8.0)[0] - times.in_time_prob([-1], 1, 0.1)[0]


def test_absence_is_not_slowness():
    """20 % absence with a deadline that everyone else keeps leaves speeds alone; slow clients are not absent."""
    rng = np.random.default_rng(6)
    rounds = [
        TimeObservation(node, 1, 20.0, censored=True)
        if rng.random() < 0.2
        else TimeObservation(node, 1, float(np.exp(0.3 * rng.standard_normal())))
        for _ in range(30)
        for node in range(50)
    ]
    times = CompletionTimes().update(rounds)
    # 1500 rounds: standard error 0.0103 of presence, z = 3; 1200 times: 0.3 / sqrt(1200) = 0.0087 of the log median.
    assert times.presence(range(50)).mean() == pytest.approx(0.8, abs=0.031)
    assert np.log(times.seconds_per_shard(range(50))).mean() == pytest.approx(0.0, abs=0.026)
    np.testing.assert_allclose(times.in_time_prob(range(50), 1, 20.0, given_present=True), 1.0, atol=1e-3)


def test_slow_rounds_are_found_with_their_factor():
    rng = np.random.default_rng(7)
    slow = rng.random((30, 50)) < 0.1
    seconds = np.exp(0.3 * rng.standard_normal((30, 50))) * np.where(slow, 8.0, 1.0)
    times = CompletionTimes().update(
        [TimeObservation(node, 1, float(seconds[k, node])) for k in range(30) for node in range(50)]
    )
    # 1500 rounds: standard error 0.0077 of the share and 0.3 / sqrt(150) = 0.025 of the log factor; z = 3, widened by
    # a half for the shrinkage of the former and the forgetting of old rounds.
    assert times.prior.slow_prob == pytest.approx(slow.mean(), abs=0.035)
    assert np.log(times.prior.slow_factor) == pytest.approx(np.log(8.0), abs=0.11)


def test_fixed_part_from_loads_that_differ():
    rng = np.random.default_rng(8)
    times = CompletionTimes().update(observed(rng, 60, 20, fixed=2.0, absent=0.0, deadline=60.0))
    # 60 clients of 20 rounds: the pooled line's standard error is about sigma * median * sqrt(1 / (1200 var(1 / k)))
    # = 0.3 * 1.1 / sqrt(1200 * 0.08) = 0.034; z = 3.
    assert np.median(times.fixed_seconds(range(60))) == pytest.approx(2.0, abs=0.1)
    assert times.fixed_seconds([-5])[0] == pytest.approx(2.0, abs=0.1)


def test_a_fixed_part_that_varies_makes_chances_vary() -> None:
    """Each shard takes a second, and waking up one on average, by an exponential law of which all rounds tell."""
    rng = np.random.default_rng(14)
    fixed = 0.2 + 0.8 * rng.standard_exponential((25, 40))
    rounds = [
        TimeObservation(i, 2, f + 2.0 * float(np.exp(0.02 * rng.standard_normal())), fixed_seconds=f)
        for row in fixed.tolist()
        for i, f in enumerate(row)
    ]
    times = CompletionTimes().update(rounds)
    for load, deadline in ((2, 2.6), (2, 3.0), (2, 4.0), (1, 2.0), (4, 5.0)):
        truth = 1.0 - np.exp(-(deadline - load - 0.2) / 0.8)
        # Eight values of the law leave steps of an eighth, and a client's spread is known to 1 / sqrt(2 x 29).
        assert times.in_time_prob(range(40), load, deadline).mean() == pytest.approx(truth, abs=1 / 16 + 0.03)
    assert times.in_time_prob([0], 2, 2.0)[0] < 0.01
    steady = CompletionTimes().update(
        [TimeObservation(i, 2, 3.0, fixed_seconds=1.0) for i in range(9) for _ in range(9)]
    )
    assert steady.in_time_prob([0], 2, 3.1)[0] > 0.95 > 0.05 > steady.in_time_prob([0], 2, 2.9)[0]


def test_partial_work_says_nothing_about_the_fixed_part():
    """By a deadline of 10 s everyone has done what takes about 10 s: a line through that would find the deadline."""
    rng = np.random.default_rng(9)
    rounds = []
    for node in range(40):
        for pace in np.exp(0.5 * rng.standard_normal(10)):
            done = int(10.0 / pace)
            if done:
                rounds.append(TimeObservation(node, done, float(done * pace), complete=False))
    assert (CompletionTimes().update(rounds).fixed_seconds(range(40)) == 0.0).all()


def test_old_observations_fade_and_leave_the_window():
    slow, fast = [TimeObservation(1, 1, 10.0)] * 20, [TimeObservation(1, 1, 1.0)] * 20
    window = CompletionTimes(window=20, slow_rounds=False).update(slow).update(fast)
    fresh = CompletionTimes(window=20, slow_rounds=False).update(fast)
    assert window.seconds_per_shard([1])[0] == pytest.approx(fresh.seconds_per_shard([1])[0], rel=0.02)
    faded = CompletionTimes(window=40, forgetting=0.7, slow_rounds=False).update(slow + fast)
    kept = CompletionTimes(window=40, forgetting=1.0, slow_rounds=False).update(slow + fast)
    assert faded.seconds_per_shard([1])[0] < 1.3 < 2.0 < kept.seconds_per_shard([1])[0]


def test_the_family_is_found():
    rng = np.random.default_rng(10)
    median = np.exp(0.5 * rng.standard_normal(100))
    draws = {
        "log-normal": np.exp(0.4 * rng.standard_normal((20, 100))),
        "shifted-exponential": 0.5 + 0.5 * rng.standard_exponential((20, 100)),
        "weibull": rng.weibull(3.0, (20, 100)),
    }
    for name, x in draws.items():
        seen = [TimeObservation(i, 1, float(median[i] * x[k, i])) for k in range(20) for i in range(100)]
        times = CompletionTimes().update(seen)
        assert times.chosen_family == name
        fits = {fit.family: fit for fit in times.goodness_of_fit()}
        assert set(fits) == set(FAMILIES)
        assert fits[name].n_observations == 2000
        assert fits[name].mean_log_likelihood == max(fit.mean_log_likelihood for fit in fits.values())
        # Kolmogorov's 1 % point is 1.63 / sqrt(n); a distribution averaged over what 20 rounds leave uncertain is
        # wider than the law that drew them, by about 1 / (2 * 20).
        assert fits[name].ks_distance < 1.63 / np.sqrt(2000) + 1 / 40


def test_a_misfit_shows_in_the_distance():
    rng = np.random.default_rng(11)
    x = np.where(rng.random((20, 60)) < 0.5, 1.0, 6.0) * np.exp(0.05 * rng.standard_normal((20, 60)))
    seen = [TimeObservation(i, 1, float(x[k, i])) for k in range(20) for i in range(60)]
    (fit,) = CompletionTimes(family="log-normal", slow_rounds=False).update(seen).goodness_of_fit()
    assert fit.ks_distance > 3 * 1.63 / np.sqrt(1200)


# Input that is hardly any


def spread_out(rng):
    return [TimeObservation(i, 1, float(10 ** rng.uniform(-6, 6))) for i in range(20) for _ in range(6)]


DEGENERATE = {
    "nothing": [],
    "one": [TimeObservation(0, 1, 1.0)],
    "one silence": [TimeObservation(0, 1, 1.0, censored=True)],
    "all silent": [TimeObservation(i, 1, 5.0, censored=True) for i in range(9) for _ in range(9)],
    "identical": [TimeObservation(i, 2, 3.0) for i in range(9) for _ in range(40)],
    "twelve orders": spread_out(np.random.default_rng(0)),
    "twelve orders in one client": [TimeObservation(0, 1, 1e-6), TimeObservation(0, 1, 1e6)],
    "nothing but fixed": [TimeObservation(i, 1, 2.0, fixed_seconds=2.0 - 1e-12) for i in range(3)],
    "no fixed part": [TimeObservation(i, 1, 2.0, fixed_seconds=0) for i in range(3)],
    "a perfect line": [TimeObservation(0, k, 1.0 + k) for k in range(1, 6)],
    "extreme": [TimeObservation(0, 1e-6, 1e-300), TimeObservation(1, 1e6, 1e300)],
    "wide ids": [TimeObservation(2**64 - 1, 1, 1.0), TimeObservation(0, 1, 2.0)],
}


@pytest.mark.parametrize("family", ["auto", *FAMILIES])
@pytest.mark.parametrize("name", DEGENERATE)
def test_degenerate_input_gives_probabilities(name, family):
    seen = DEGENERATE[name]
    times = CompletionTimes(family=family).update(seen).update(seen[:1])
    nodes = [0, 1, 99]
    for deadline in (0.0, 1e-9, 2.0, 1e9, np.inf):
        for load in (0, 1, 3.5):
            p = times.in_time_prob(nodes, load, deadline)
            assert ((p >= 0.0) & (p <= 1.0)).all()
        for own in times.progress_prob(nodes, [0, 1, 3], deadline):
            assert own.sum() == pytest.approx(1.0, abs=1e-12)
            assert (own >= 0.0).all()
    missed = times.miss_prob_given_silent_until(nodes, 1, 1.0, 5.0)
    assert ((missed >= 0.0) & (missed <= 1.0)).all()
    for values in (times.seconds_per_shard(nodes), times.fixed_seconds(nodes), times.presence(nodes)):
        assert np.isfinite(values).all()
        assert (values >= 0.0).all()
    for fit in times.goodness_of_fit():
        assert np.isfinite([fit.mean_log_likelihood, fit.ks_distance]).all()
    data = json.loads(json.dumps(times.to_data()))
    again = CompletionTimes.from_data(data)
    assert again.to_data() == times.to_data()
    np.testing.assert_array_equal(again.reach(nodes, 3, 2.0), times.reach(nodes, 3, 2.0))


@given(
    st.lists(
        st.builds(
            TimeObservation,
            st.integers(0, 4),
            st.floats(0.1, 100.0),
            st.floats(1e-6, 1e6),
            censored=st.booleans(),
            complete=st.booleans(),
        ),
        max_size=25,
    )
)
@hypothesis_settings(max_examples=10, deadline=None)
def test_any_observations_give_probabilities_that_grow_with_time(seen):
    times = CompletionTimes().update(seen)
    steps = np.array([times.in_time_prob(range(6), 1.5, d) for d in (0.0, 1e-3, 0.1, 1.0, 10.0, 1e4, 1e9)])
    assert ((steps >= 0.0) & (steps <= 1.0)).all()
    assert (np.diff(steps, axis=0) >= -1e-12).all()


# State


def test_batches_keep_what_single_updates_keep():
    seen = observed(np.random.default_rng(3), n_clients=5, n_rounds=9)
    whole, bit_by_bit = CompletionTimes(window=4).update(seen), CompletionTimes(window=4)
    for start in range(0, len(seen), 7):
        bit_by_bit = bit_by_bit.update(seen[start : start + 7])
    for name in ("node_ids", "count", "shards", "seconds", "fixed_seconds", "censored", "complete"):
        np.testing.assert_array_equal(getattr(whole.history, name), getattr(bit_by_bit.history, name))
    own = [x for x in seen if x.node_id == 2][-4:]
    row, order = 2, np.argsort(-whole.history.age()[2])
    assert whole.history.seconds[row][order].tolist() == [x.seconds for x in own]


def test_update_leaves_the_old_state_as_it_was():
    before = CompletionTimes().update(observed(np.random.default_rng(4), 5, 3))
    data = json.dumps(before.to_data())
    before.update(observed(np.random.default_rng(5), 8, 3))
    with pytest.raises(ValueError, match=r"observations must be TimeObservation; got int"):
        before.update([1])  # type: ignore[list-item]
    assert json.dumps(before.to_data()) == data
    assert before.update([]) is before


def test_a_hundred_thousand_clients():
    rng = np.random.default_rng(12)
    seconds = np.exp(0.6 * rng.standard_normal(100_000)).tolist()
    times = CompletionTimes(window=4).update([TimeObservation(i, 1, x) for i, x in enumerate(seconds)])
    p = times.in_time_prob(np.arange(100_000), 1, 1.0)
    # Most of the spread is either between clients or between rounds, which one round cannot tell: near 1 / 2 on
    # average, standard error 0.5 / sqrt(400) of the fleet's 400 clients = 0.025, z = 3.
    assert p.mean() == pytest.approx(0.5, abs=0.075)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shards": 0}, "shards must be a finite number above 0"),
        ({"seconds": np.nan}, "seconds must be a finite number above 0"),
        ({"fixed_seconds": -1.0}, "fixed_seconds must be a finite number above 0"),
        ({"fixed_seconds": 5.0}, "fixed_seconds must be below seconds = 4; got 5"),
        ({"censored": 1}, "censored must be True or False"),
        ({"node_id": 1.5}, "node_id must be an integer"),
    ],
)
def test_observations_are_checked(change, message):
    with pytest.raises(ValueError, match=message):
        TimeObservation(**{"node_id": 1, "shards": 2.0, "seconds": 4.0, **change})


def test_arguments_are_checked(times):
    for options, message in [
        ({"family": "normal"}, "family must be one of"),
        ({"window": 0}, "window must be an integer"),
        ({"forgetting": 0.0}, "forgetting must lie in"),
        ({"slow_rounds": 1}, "slow_rounds must be True or False"),
    ]:
        with pytest.raises(ValueError, match=message):
            CompletionTimes(**options)
    with pytest.raises(ValueError, match="load must lie in"):
        times.in_time_prob([0], -1, 1.0)
    with pytest.raises(ValueError, match="deadline must be at least 0; got nan"):
        times.in_time_prob([0], 1, np.nan)
    with pytest.raises(ValueError, match="lengths must be integers of at least 0"):
        times.progress_prob([0], [1.5], 1.0)
    with pytest.raises(ValueError, match="node_ids must be integers"):
        times.presence([0.5])


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["version"], 2, "completion times must be in format version 3; got version 2"),
        (["family"], "x", "family must be one of"),
        (["count"], [1], "count must hold 30 integers"),
        (["observations", "seconds", 0, 0], -1.0, "seconds must be finite and above 0"),
        (["observations", "censored", 0, 0], 3.5, "censored must hold true and false"),
        (["observations", "fixed_seconds", 0, 0], 1e9, "fixed_seconds must lie in"),
        (["priors", "weibull", "slow_prob"], 1.5, "slow_prob in"),
        (["priors", "weibull", "spread"], [1.0], "two each of mean and spread"),
        (["scores"], {"weibull": None}, "data must be what to_data returns"),
        (["node_ids"], None, "must be"),
    ],
)
def test_data_are_checked(times, path, value, message):
    data = json.loads(json.dumps(times.to_data()))
    inside = data
    for key in path[:-1]:
        inside = inside[key]
    inside[path[-1]] = value
    with pytest.raises(ValueError, match=message):
        CompletionTimes.from_data(data)
    del data[path[0]]
    with pytest.raises(ValueError, match="data must be what to_data returns; got KeyError"):
        CompletionTimes.from_data(data)


@pytest.mark.parametrize("family", ["log-normal", "shifted-exponential", "auto"])
def test_who_replies_with_nothing_done_is_slow_and_not_absent(family: str) -> None:
    rng = np.random.default_rng(3)
    pace = np.append(1.5 * np.exp(rng.normal(0.0, 0.5, 7)), 40.0)
    times = CompletionTimes(family=family)
    for _ in range(20):
        seen = []
        for node, usual in enumerate(pace):
            x = usual * np.exp(rng.normal(0.0, 0.25))
            done = min(int(9.5 / x), 6)
            if done:
                seen.append(TimeObservation(node, done, 0.5 + done * x, fixed_seconds=0.5, complete=False))
            else:
                seen.append(TimeObservation(node, 1, 10.0, censored=True, complete=False, there=True))
        times = times.update(seen)
    assert times.presence([7])[0] > 0.95
    # The rule of succession gives 1 / 22 after twenty rounds without a shard.
    assert times.reach([7], 1, 10.0)[0, 1] < 0.1
    assert times.reach([0], 1, 10.0)[0, 1] > 0.9


def test_who_is_there_for_longer_than_can_be_is_no_division_by_zero() -> None:
    """Times that never vary, and then one wait of ten times as long by a client that says it is there."""
    seen = [
        TimeObservation(client, 1, seconds=(1.0 + 1e-15 * k) / 6.0, complete=False)
        for k in range(4)
        for client in range(20)
    ]
    late = TimeObservation(7, 1, seconds=1.7, censored=True, there=True, complete=False)
    times = CompletionTimes().update([*seen, late])
    reach = times.reach([7, 8], 3, 0.2)
    assert np.isfinite(reach).all() and 0.0 < reach[0, 1] <= reach[1, 1]


def test_node_ids_of_a_real_superlink_come_back() -> None:
    """They are unsigned 64-bit numbers, and some are farther apart than a signed one can tell."""
    far = [TimeObservation(node, shards=2, seconds=9.0) for node in (2**64 - 5, 2**63 - 1, 2**63 + 7, 3)]
    times = CompletionTimes().update(far)
    again = CompletionTimes.from_data(json.loads(json.dumps(times.to_data())))
    assert again.to_data() == times.to_data()
