"""Fleets: draws keyed by (seed, client, round), and probabilities that agree with them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import norm

from fedgc.errors import ConfigError
from fedgc.fleets import FLEETS, Fleet, LogNormalFleet, WorkDraw, build_fleet, presets
from fedgc.fleets.work import answers, work_done

TABLES: dict[str, dict[str, Any]] = {
    "paper": {"preset": "paper", "clients": 4},
    "paper, load counts": {"preset": "paper", "clients": 4, "scale_with_load": 1.0, "dropout": 0.1},
    "shifted exponential": {
        "model": "shifted-exponential",
        "clients": 4,
        "shift": [0.5, 1.0, 1.5, 2.0],
        "overhead": 0.3,
        "slow_prob": 0.2,
        "slow_factor": 3.0,
    },
    "pareto": {"preset": "pareto", "clients": 4, "slow_prob": 0.2, "slow_factor": 2.0},
    "log-normal": {"preset": "phones", "clients": 4, "dropout_persistence": 0.0, "slow_persistence": 0.0},
}


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
@pytest.mark.parametrize("load", [1.0, 2.5])
def test_straggle_prob_agrees_with_the_draws(table: dict[str, Any], load: float) -> None:
    fleet = build_fleet(table, seed=3)
    rounds = 1500
    times = np.array([[fleet.completion_time(c, r, load) for r in range(rounds)] for c in range(4)])
    for deadline in np.quantile(times[np.isfinite(times)], [0.1, 0.5, 0.9]):
        expected = fleet.straggle_prob(float(deadline), load)
        # z = 4.5 standard errors over 4 x 3 comparisons.
        tolerance = 4.5 * np.sqrt(expected * (1 - expected) / rounds) + 1e-9
        assert (np.abs((times > deadline).mean(axis=1) - expected) <= tolerance).all()


def test_paper_fleet_has_the_papers_probabilities() -> None:
    fleet = build_fleet({"preset": "paper", "clients": 200}, seed=5)
    psi = fleet.parameters["psi"]
    assert psi.min() >= 0.1
    assert psi.max() <= 2.0
    for tau in (1.1, 1.5):
        np.testing.assert_allclose(fleet.straggle_prob(tau, 1), np.exp(-psi * (tau - 1)), rtol=1e-12)
        np.testing.assert_allclose(fleet.straggle_prob(tau, 3), np.exp(-psi * (tau - 1)), rtol=1e-12)


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_draws_depend_on_seed_client_and_round_only(table: dict[str, Any]) -> None:
    fleet, again, other = (build_fleet(table, seed=seed) for seed in (1, 1, 2))

    def draws(fleet: Fleet, order: list[int]) -> list[float]:
        seconds = {(c, r): fleet.completion_time(c, r, 1.0) for r in order for c in range(4)}
        return [seconds[c, r] for c in range(4) for r in range(5)]

    assert draws(fleet, [0, 1, 2, 3, 4]) == draws(again, [4, 2, 0, 1, 3])
    assert draws(fleet, [0, 1, 2, 3, 4]) != draws(other, [0, 1, 2, 3, 4])
    assert fleet.completion_time(0, 0, 1.0) == fleet.completion_time(0, 0, 1.0, stream=0)


def test_more_load_takes_longer_on_the_same_draw() -> None:
    fleet = build_fleet({"model": "log-normal", "clients": 1, "overhead": 1.0}, seed=1)
    one, two = (fleet.completion_time(0, 7, load) for load in (1.0, 2.0))
    assert two - 1.0 == pytest.approx(2 * (one - 1.0))


@pytest.mark.parametrize("model", ["log-normal", "shifted-exponential", "pareto", "paper"])
def test_one_draw_serves_every_load(model: str) -> None:
    fleet = build_fleet({"model": model, "clients": 3, "overhead": 0.5, "slow_prob": 0.5, "slow_factor": 2.0}, seed=4)
    for server_round in range(20):
        draw = fleet.draw(1, server_round)
        for load in (1, 2.5, 40):
            assert fleet.completion_time(1, server_round, load) == draw.fixed + load * draw.per_shard
        assert fleet.completion_time(1, server_round, 0) == 0.5
        assert fleet.draw(1, server_round, training=False) == WorkDraw(0.5, 0.0, np.inf)
        assert (draw.per_shard == 0.0) == (model == "paper")
        assert draw.fixed >= 0.5


def test_a_client_answers_only_if_it_stays_until_it_is_done() -> None:
    assert WorkDraw(1.0, 2.0, 5.0).completion_time(2) == 5.0
    assert WorkDraw(1.0, 2.0, 4.9).completion_time(2) == np.inf
    assert WorkDraw(0.0, 2.0, 0.0).completion_time(0) == np.inf  # not there at all, and nothing to do


def test_the_answer_of_one_client_is_that_of_many_at_once_to_the_last_bit() -> None:
    """One client's rule is written for numbers, that of many for arrays."""
    rng = np.random.default_rng(3)
    drawn = rng.exponential(size=(3, 3000)) * [[1.0], [1.0], [8.0]]
    drawn[rng.random(drawn.shape) < 0.2] = 0.0
    drawn[2, rng.random(3000) < 0.4] = np.inf
    load = rng.integers(0, 6, 3000).astype(float)
    for budget in (np.inf, 2.5, *(drawn[0, 0] + k * drawn[1, 0] for k in range(4))):
        draws = [WorkDraw(*own) for own in drawn.T.tolist()]
        one = [draw.work_done(n, budget) for draw, n in zip(draws, load, strict=True)]
        many = work_done(drawn[0], drawn[1], load, budget)
        np.testing.assert_array_equal(np.array(one).T, many)
        seconds, done = answers(drawn, load, np.full(3000, 0.3), budget)
        told = [draw if n else draw._replace(fixed=0.3) for draw, n in zip(draws, load, strict=True)]
        of_one = [draw.work_done(n, budget) for draw, n in zip(told, load, strict=True)]
        assert seconds.tolist() == [draw.reply_time(took) for draw, (took, _) in zip(told, of_one, strict=True)]
        assert done.tolist() == [n for _, n in of_one]
        if np.isinf(budget):
            assert seconds.tolist() == [draw.completion_time(n) for draw, n in zip(told, load, strict=True)]


def test_limits_of_the_probabilities() -> None:
    table = {"model": "log-normal", "clients": 1, "overhead": 1.0, "dropout": 0.25}
    fleet = build_fleet(table, seed=1)
    assert fleet.straggle_prob(np.inf, 3).tolist() == [0.25]
    assert fleet.straggle_prob(-1.0, 3).tolist() == [1.0]
    assert fleet.straggle_prob(1.0, 0).tolist() == [0.25]  # without work the overhead is all
    assert fleet.straggle_prob(0.99, 0).tolist() == [1.0]
    long = build_fleet({**table, "session_on": 1e12, "session_off": 1e3}, seed=1)
    np.testing.assert_allclose(long.straggle_prob(3.0, 1), fleet.straggle_prob(3.0, 1), atol=1e-6)
    nothing = build_fleet({**table, "slow_prob": 1.0, "slow_factor": 0.0}, seed=1)
    assert nothing.straggle_prob(1.0, 5).tolist() == [0.25]
    exact = build_fleet({**table, "sigma": 0.0, "session_on": 10.0, "session_jitter": 0.0}, seed=1)
    assert exact.straggle_prob(5.0, 4)[0] == pytest.approx(1 - 0.75 * 0.5, abs=1e-12)  # half of the sessions last 5 s
    with pytest.raises(ValueError, match="deadline must be a number; got nan"):
        fleet.straggle_prob(float("nan"), 1)
    with pytest.raises(ValueError, match=r"load must lie in \[0, inf\); got -1 for client 0"):
        fleet.straggle_prob(1.0, -1)
    with pytest.raises(ValueError, match="max_shards must be an integer of at least 0; got -1"):
        fleet.reach(1.0, -1)


def test_a_hundred_thousand_clients() -> None:
    rng = np.random.default_rng(1)
    fleet = LogNormalFleet(100_000, seed=1, median=rng.uniform(0.5, 3.0, 100_000), dropout=0.1)
    reach = fleet.reach(20.0, 40)
    assert reach.shape == (100_000, 41)
    np.testing.assert_allclose(reach[:, 7], 1.0 - fleet.straggle_prob(20.0, 7), atol=1e-12)


def test_clients_leave_for_good() -> None:
    fleet = build_fleet({"model": "log-normal", "clients": 2, "leave_after": [3.0, 1e9]}, seed=1)
    assert np.isfinite([fleet.completion_time(0, r, 1) for r in range(4)]).all()
    assert np.isinf([fleet.completion_time(0, r, 1) for r in range(4, 9)]).all()
    assert np.isfinite([fleet.completion_time(1, r, 1) for r in range(9)]).all()


def test_groups_get_their_share() -> None:
    fleet = build_fleet({"preset": "phones", "clients": 20}, seed=1)
    assert (fleet.parameters["median"] == 8.2).sum() == 7
    assert (fleet.parameters["dropout"] == 0.5).sum() == 3
    other = build_fleet({"preset": "phones", "clients": 20}, seed=2)
    assert not np.array_equal(fleet.parameters["median"], other.parameters["median"])


@pytest.mark.parametrize("name", presets())
def test_presets_build(name: str) -> None:
    assert build_fleet({"preset": name, "clients": 3}, seed=0).n_clients == 3


def test_lambda_has_its_measured_figures() -> None:
    fleet = build_fleet({"preset": "lambda", "clients": 1}, seed=0)
    own = {name: float(value[0]) for name, value in fleet.parameters.items()}
    again = own["slow_prob"] + own["slow_persistence"] * (1 - own["slow_prob"])
    assert 0.08 <= again <= 0.19
    assert 0.005 <= own["slow_prob"] <= 0.09
    median = brentq(lambda seconds: fleet.straggle_prob(seconds, 1)[0] - 0.5, 1.0, 5.0)
    assert fleet.straggle_prob(10 * median, 1)[0] == pytest.approx(5e-4, rel=0.02)
    usual = build_fleet({"preset": "lambda", "clients": 1, "slow_prob": 0.0}, seed=0)
    for load in (1, 4):
        # 0.54 + load + an exponential delay of mean 0.2.
        assert usual.straggle_prob(0.54 + load, load) == 1.0
        assert usual.straggle_prob(0.54 + load + 0.3, load)[0] == pytest.approx(np.exp(-0.3 / 0.2), rel=1e-12)


def test_accelerators_are_as_fast_as_their_peak_figures_up_to_the_cap() -> None:
    groups = presets()["accelerators"]["groups"]
    for group in groups:
        teraflops = float(group["name"].split(", ")[1].removesuffix(" TFLOPS"))
        assert group["median"] == pytest.approx(min(31.2 / teraflops, 100.0), rel=2e-3)
    assert sum(group["share"] for group in groups) == pytest.approx(1.0)
    fleet = build_fleet({"preset": "accelerators", "clients": 100}, seed=1)
    assert sorted(set(fleet.parameters["site"])) == list(range(8))
    # On a third of the time, and its site up 95 % of the time.
    assert fleet.straggle_prob(1e6, 0) == pytest.approx(1 - 0.95 / 3, abs=1e-12)


def test_presets_of_one_distribution() -> None:
    pareto = build_fleet({"preset": "pareto", "clients": 1}, seed=0)
    for seconds, late in ((0.99, 1.0), (1.0, 1.0), (5.0, 0.2), (59.9, 1 / 59.9), (60.0, 0.0)):
        assert pareto.straggle_prob(seconds, 1)[0] == pytest.approx(late, abs=1e-12)
    normal = build_fleet({"preset": "lognormal", "clients": 1}, seed=0)
    for z in (-1.0, 0.0, 2.0):
        late = float(norm.sf(z))
        assert normal.straggle_prob(np.exp(1.0 + 0.6 * z), 1)[0] == pytest.approx(late, abs=1e-12)


@pytest.mark.parametrize(("name", "absent", "again"), [("uneven", 0.2, 0.2), ("sessions", 0.4, 0.97)])
def test_presets_for_comparisons_differ_in_who_stays_away(name: str, absent: float, again: float) -> None:
    n_clients = 3000
    fleet = build_fleet({"preset": name, "clients": n_clients}, seed=1)
    before, after = (np.array([fleet.draw(c, r).leaves_after == 0.0 for c in range(n_clients)]) for r in (8, 9))
    for sample, expected in ((before, absent), (after[before], again)):
        # z = 4.5 standard errors.
        assert abs(sample.mean() - expected) <= 4.5 * np.sqrt(expected * (1 - expected) / sample.size)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"preset": "tablets", "clients": 3}, r"^fleet.preset must be one of accelerators, .*, uneven; got 'tablets'$"),
        ({"model": "gamma", "clients": 3}, rf"^fleet.model must be one of {', '.join(sorted(FLEETS))}; got 'gamma'$"),
        ({"clients": 3}, r"^fleet.model must be given, or preset in its place; got neither$"),
        ({"preset": "phones"}, r"^fleet.clients must be an integer from 1 to 10000000; got None$"),
        ({"preset": "phones", "clients": 0}, r"^fleet.clients must be an integer from 1 to 10000000; got 0$"),
        ({"preset": "phones", "clients": 3, "speed": 1}, r"^fleet.speed must be one of change_after, .*; got 'speed'"),
        ({"preset": "phones", "clients": 3, "dropout": 1.5}, r"^fleet.dropout must lie in \[0, 1\]; got 1.5"),
        ({"preset": "phones", "clients": 3, "median": "2"}, r"^fleet.median must be a number .*; got '2'$"),
        (
            {"preset": "phones", "clients": 3, "median": [1.0]},
            r"^fleet.median must be one number, or one for each of 3 clients; got 1 numbers$",
        ),
        ({"preset": "phones", "clients": 3, "median": float("inf")}, r"^fleet.median must lie in \[0, inf\); got inf"),
        ({"preset": "phones", "clients": 3, "seed": 3}, r"^fleet.seed must be one of change_after, .*; got 'seed'"),
        ({"preset": "phones", "clients": 3, "groups": 3}, r"^fleet.groups must be a list of tables; got 3$"),
        ({"preset": "phones", "clients": 3, "groups": [3]}, r"^fleet.groups must be a list of tables; got \[3\]$"),
        (
            {"model": "log-normal", "clients": 3, "groups": [{"share": 0.5, "median": [1.0, 2.0]}]},
            r"^fleet.groups.0.median must be a number; got \[1.0, 2.0\]$",
        ),
        ({"preset": "phones", "clients": 3, "loss_detection": 0}, r"^fleet.loss_detection must be .* above 0; got 0$"),
        (
            {"model": "log-normal", "clients": 3, "groups": [{"share": 0.6}, {"share": 0.6}]},
            r"^fleet.groups.1.share must .* total of at most 1; got 0.6$",
        ),
        (
            {"model": "log-normal", "clients": 3, "groups": [{"share": 0.6, "shift": 1}]},
            r"^fleet.groups.0.shift must be one of .*; got 'shift'",
        ),
        ({"preset": "paper", "clients": 3, "psi_low": 3.0}, r"^fleet.psi_low must be at most psi_high = 2.0; got 3.0$"),
    ],
)
def test_bad_tables_name_the_key(table: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_fleet(table, seed=0)
