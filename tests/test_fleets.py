"""Fleets: draws keyed by (seed, client, round), and probabilities that agree with them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fedgc.errors import ConfigError
from fedgc.fleets import FLEETS, Fleet, build_fleet, presets

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
    "phones": {"preset": "phones", "clients": 4},
}


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
@pytest.mark.parametrize("load", [1.0, 2.5])
def test_straggle_prob_agrees_with_the_draws(table: dict[str, Any], load: float) -> None:
    fleet = build_fleet(table, seed=3)
    rounds = 4000
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


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"preset": "tablets", "clients": 3}, r"^fleet.preset must be one of paper, phones; got 'tablets'$"),
        ({"model": "gamma", "clients": 3}, rf"^fleet.model must be one of {', '.join(sorted(FLEETS))}; got 'gamma'$"),
        ({"clients": 3}, r"^fleet.model or fleet.preset must be given; got neither$"),
        ({"preset": "phones"}, r"^fleet.clients must be an integer from 1 to 10000000; got None$"),
        ({"preset": "phones", "clients": 0}, r"^fleet.clients must be an integer from 1 to 10000000; got 0$"),
        ({"preset": "phones", "clients": 3, "speed": 1}, r"^fleet.speed must be one of dropout, .*; got 'speed'$"),
        ({"preset": "phones", "clients": 3, "dropout": 1.5}, r"^fleet.dropout must lie in \[0, 1\]; got 1.5"),
        ({"preset": "phones", "clients": 3, "median": "2"}, r"^fleet.median must be a number .*; got '2'$"),
        (
            {"preset": "phones", "clients": 3, "median": [1.0]},
            r"^fleet.median must be one number, or one for each of 3 clients; got 1 numbers$",
        ),
        ({"preset": "phones", "clients": 3, "median": float("inf")}, r"^fleet.median must lie in \[0, inf\); got inf"),
        ({"preset": "phones", "clients": 3, "seed": 3}, r"^fleet.seed must be one of dropout, .*; got 'seed'$"),
        ({"preset": "phones", "clients": 3, "groups": 3}, r"^fleet.groups must be a list of tables; got 3$"),
        ({"preset": "phones", "clients": 3, "groups": [3]}, r"^fleet.groups must be a list of tables; got \[3\]$"),
        (
            {"model": "log-normal", "clients": 3, "groups": [{"share": 0.5, "median": [1.0, 2.0]}]},
            r"^fleet.groups.0.median must be one number, or one for each of 1 clients; got 2 numbers$",
        ),
        ({"preset": "phones", "clients": 3, "loss_detection": 0}, r"^fleet.loss_detection must be .* above 0; got 0$"),
        (
            {"model": "log-normal", "clients": 3, "groups": [{"share": 0.6}, {"share": 0.6}]},
            r"^fleet.groups.1.share must .* total of at most 1; got 0.6$",
        ),
        (
            {"model": "log-normal", "clients": 3, "groups": [{"share": 0.6, "shift": 1}]},
            r"^fleet.groups.0.shift must be one of .*; got 'shift'$",
        ),
        ({"preset": "paper", "clients": 3, "psi_low": 3.0}, r"^fleet.psi_low must be at most psi_high = 2.0; got 3.0$"),
    ],
)
def test_bad_tables_name_the_key(table: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_fleet(table, seed=0)
