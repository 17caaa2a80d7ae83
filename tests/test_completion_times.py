"""Completion times: closed forms of the predictions, and what is learnt of clients."""

from __future__ import annotations

import numpy as np
import pytest

from fedgc.completion_times import FAMILIES, CompletionTimes, TimeObservation
from tests.observed_times import observed


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
