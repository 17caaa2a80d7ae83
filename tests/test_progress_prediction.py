"""Are predicted times calibrated, sharper than a client's own past frequency, and right where nothing was tried?

The truth is known here, so predictions are scored against true probabilities and not against a few outcomes of them; on
the preset fleets, one round ahead, against what came of them.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import ndtr

from fedgc.completion_times import CompletionTimes, TimeObservation
from fedgc.fleets import presets
from fedgc.scoring import brier_score, log_score, reliability_diagram

N_CLIENTS = 200
LOADS, DEADLINES = (1, 2, 4), (2.0, 4.0, 8.0)
#: Pairs of load and deadline of which at least one was never used.
NEW = ((3, 6.0), (6, 8.0), (1, 12.0), (3, 3.0))
CASES = ("log-normal", "shifted-exponential", "slow rounds", "absent")


class Truth:
    """A fleet whose clients' medians spread by 0.6: sigma 0.3, or shift 0.6 and mean 0.4, times the median."""

    def __init__(self, case, rng):
        self.case, self.rng = case, rng
        self.median = np.exp(0.6 * rng.standard_normal(N_CLIENTS))
        self.slow = 0.1 if case == "slow rounds" else 0.0
        self.absent = 0.2 if case == "absent" else 0.0

    def per_shard(self, n_rounds):
        rng, shape = self.rng, (n_rounds, N_CLIENTS)
        if self.case == "shifted-exponential":
            x = self.median * (0.6 + 0.4 * rng.standard_exponential(shape))
        else:
            x = self.median * np.exp(0.3 * rng.standard_normal(shape))
        x = np.where(rng.random(shape) < self.slow, 8.0 * x, x)
        return np.where(rng.random(shape) < self.absent, np.inf, x)

    def in_time_prob(self, load, deadline):
        def usual(t):
            if self.case == "shifted-exponential":
                return -np.expm1(-np.maximum(t - 0.6, 0.0) / 0.4)
            return ndtr(np.log(t) / 0.3)

        t = deadline / load / self.median
        return (1.0 - self.absent) * ((1.0 - self.slow) * usual(t) + self.slow * usual(t / 8.0))


def play(truth, n_rounds, rng):
    """Return what the server sees with loads and deadlines drawn anew, and each pair's past frequency, add-one."""
    seen, hits = [], {(load, deadline): np.ones((N_CLIENTS, 2)) * [1, 2] for load in LOADS for deadline in DEADLINES}
    for x in truth.per_shard(n_rounds):
        loads, deadlines = rng.choice(LOADS, N_CLIENTS), rng.choice(DEADLINES, N_CLIENTS)
        for node, (load, deadline, own) in enumerate(zip(loads.tolist(), deadlines.tolist(), x.tolist(), strict=True)):
            came = load * own <= deadline
            hits[load, deadline][node] += (came, 1)
            seen.append(TimeObservation(node, load, load * own if came else deadline, censored=not came))
    return seen, {pair: count[:, 0] / count[:, 1] for pair, count in hits.items()}


def compare(case, n_rounds, seed, **options):
    """Return calibration error, Brier and log score of model, frequency and truth, and of the first and last on NEW."""
    rng = np.random.default_rng([seed, CASES.index(case)])
    truth = Truth(case, rng)
    seen, frequency = play(truth, n_rounds, rng)
    times = CompletionTimes(**options).update(seen)
    model = {p: times.in_time_prob(range(N_CLIENTS), *p) for p in (*frequency, *NEW)}
    real = {p: truth.in_time_prob(*p) for p in (*frequency, *NEW)}

    def score(predicted, pairs):
        p, y = (np.concatenate([source[pair] for pair in pairs]) for source in (predicted, real))
        p = np.clip(p, 1e-6, 1.0 - 1e-6)
        return reliability_diagram(p, y).calibration_error, brier_score(p, y), log_score(p, y)

    return {
        "model": score(model, frequency),
        "frequency": score(frequency, frequency),
        "truth": score(real, frequency),
        "new": score(model, NEW),
        "truth on new": score(real, NEW),
    }


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    ("n_rounds", "calibration", "brier", "new_calibration"),
    # About twice the worst of five seeds and four cases: errors 0.029, 0.017, 0.013, and 0.033, 0.021, 0.017 on new
    # pairs, and Brier scores 0.012, 0.003, 0.002 above that of the truth.
    [(5, 0.05, 0.02, 0.07), (20, 0.025, 0.005, 0.04), (100, 0.025, 0.004, 0.04)],
)
def test_predictions_are_calibrated_and_beat_the_frequency(case, n_rounds, calibration, brier, new_calibration):
    scores = compare(case, n_rounds, seed=1)
    model, frequency, truth, new, best_new = scores.values()
    assert model[0] < calibration
    assert model[0] < frequency[0] / 2
    assert model[1] - truth[1] < min(brier, (frequency[1] - truth[1]) / 2)
    assert truth[2] - model[2] < (truth[2] - frequency[2]) / 2
    # A load and a deadline that were never used: nearly as good, where a frequency has nothing to go by.
    assert new[0] < new_calibration
    assert new[1] - best_new[1] < 1.5 * brier


def test_slow_rounds_need_their_mixture():
    """Where late replies are waited for, a single law stretches over usual and slow rounds and is far off."""
    rng = np.random.default_rng(5)
    truth = Truth("slow rounds", rng)
    seen = [TimeObservation(i, 1, float(x[i])) for x in truth.per_shard(30) for i in range(N_CLIENTS)]
    error = {}
    for slow_rounds in (True, False):
        times = CompletionTimes(slow_rounds=slow_rounds).update(seen)
        p, y = (
            np.concatenate([f(load, deadline) for load in LOADS for deadline in DEADLINES])
            for f in (lambda *pair, t=times: t.in_time_prob(range(N_CLIENTS), *pair), truth.in_time_prob)
        )
        error[slow_rounds] = reliability_diagram(p, y).calibration_error
    assert error[True] < 0.02 < 0.05 < error[False]


@pytest.mark.parametrize("case", CASES)
def test_progress_down_a_work_list_is_calibrated(case):
    """Partial work by one deadline, transfer reported; then progress by another one on longer lists."""
    rng = np.random.default_rng([6, CASES.index(case)])
    truth, fixed, seen = Truth(case, rng), 1.0, []
    for x in truth.per_shard(20):
        for node, own in enumerate(x.tolist()):
            done = min(4, int((8.0 - fixed) / own))
            if done:
                whole = done == 4
                seen.append(TimeObservation(node, done, fixed + done * own, fixed_seconds=fixed, complete=whole))
            else:
                seen.append(TimeObservation(node, 1, 8.0, censored=True))
    times = CompletionTimes().update(seen)
    progress = np.array(times.progress_prob(range(N_CLIENTS), 6, 5.0))
    reached = np.stack([truth.in_time_prob(k, 5.0 - fixed) for k in range(1, 7)], axis=1)
    real = -np.diff(np.column_stack([np.ones(N_CLIENTS), reached, np.zeros(N_CLIENTS)]), axis=1)
    np.testing.assert_allclose(progress.sum(axis=1), 1.0, atol=1e-12)
    assert reliability_diagram(progress.ravel(), real.ravel()).calibration_error < 0.015
    # Total variation distance, mean over clients; whole-list replies bias nothing, since the time of each is known.
    assert (np.abs(progress - real).sum(axis=1) / 2).mean() < 0.09


def test_a_round_that_ended_early_is_no_failure():
    """Silent rounds cut off at random, counted as what they are, leave the probability where it was."""
    rng = np.random.default_rng(7)
    truth, cut, naive = Truth("log-normal", rng), [], []
    for x in truth.per_shard(30):
        for node, own in enumerate(x.tolist()):
            end = float(rng.uniform(0.3, 3.0))
            came = own <= end
            cut.append(TimeObservation(node, 1, own if came else end, censored=not came))
            naive.append(TimeObservation(node, 1, own if came else 3.0, censored=not came))
    real = truth.in_time_prob(1, 1.5)
    error = [
        abs((CompletionTimes().update(seen).in_time_prob(range(N_CLIENTS), 1, 1.5) - real).mean())
        for seen in (cut, naive)
    ]
    assert error[0] < 0.02 < 0.1 < error[1]


@pytest.fixture(scope="module")
def script() -> Any:
    folder = Path(__file__).parents[1] / "experiments" / "planning"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(folder), *sys.path])
        return runpy.run_path(str(folder / "time_scores.py"), run_name="loaded")


#: Not work lists on `paper`, whose shards take no time: all of a list is late or none of it, which no time per shard
#: says. The predictions learn it, but lose the first two rounds.
PLAYED = [
    (name, case)
    for name in presets()
    for case in ("half late", "deadlines", "loads", "work lists")
    if (name, case) != ("paper", "work lists")
]


@pytest.mark.parametrize(("name", "case"), PLAYED)
def test_presets_are_predicted_no_worse_than_by_the_frequency_and_better_where_things_change(
    name: str, case: str, script: Any
) -> None:
    found = script["play"](name, case, n_clients=40, n_rounds=24).scores()
    # A frequency knows nothing of a pair of load and deadline before it comes again. But on `paper` the time does not
    # grow with the load, which takes rounds to find out: there what is asked for is not to lose by it.
    changes = case == "deadlines" or (case == "loads" and name != "paper")
    for score in ("Brier", "log"):
        gain, error = found[f"{score} gain"], found[f"{score} error"]
        # Standard errors over clients of the paired difference, 1.96 of them for 5 % at either end.
        assert gain > (1.96 * error if changes else -1.96 * error)
    assert found["calibration"] < found["calibration of frequency"] + found["calibration by chance"]
