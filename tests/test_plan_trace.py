"""A plan for a trace predicts what playing the trace gives: who was away together is away together."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from fedgc.fleets import TraceFleet
from fedgc.fleets.parameters import Vector
from fedgc.fleets.trace_file import Trace
from fedgc.planning import FleetPlan, plan_fleet
from fedgc.planning import recorded as recorded_file
from fedgc.play import RoundDraws

sys.path.append(str(Path(__file__).parents[1] / "experiments" / "planning"))
from check_plan import play
from run_choices import prepare

N_CLIENTS, N_ROUNDS, N_SHARDS, DEADLINE = 6, 200, 12, 9.65


def recording(*, together: bool, n_rounds: int = N_ROUNDS) -> Vector:
    """Return seconds of clients that miss three tenths of the rounds: the same ones, or each its own."""
    rng = np.random.default_rng(0)
    away = np.arange(n_rounds) % 20 < 6
    seconds = np.exp(rng.normal(0.0, 0.3, (N_CLIENTS, 1)) + rng.normal(0.0, 0.2, (N_CLIENTS, n_rounds)))
    seconds[rng.random(seconds.shape) < 0.02] = np.inf
    for own in seconds:
        own[away if together else rng.permutation(away)] = np.inf
    return seconds


def fleet_of(seconds: Vector, **parameters: float) -> TraceFleet:
    return TraceFleet(trace=Trace(seconds, 0, Path("recorded.csv")), seed=1, **parameters)


def plan_of(fleet: TraceFleet, **options: float) -> FleetPlan:
    return plan_fleet(fleet, n_shards=N_SHARDS, redundancies=(1, 2), deadlines=[DEADLINE], schemes=False, **options)


@pytest.mark.parametrize("parameters", [{}, {"dropout": 0.1}, {"slow_prob": 0.2, "slow_factor": 4.0}])
def test_what_clients_did_together_is_in_the_prediction(parameters: dict[str, float]) -> None:
    fleet = fleet_of(recording(together=True), **parameters)
    plan = plan_of(fleet)
    assert not plan.remarks
    draws = RoundDraws(fleet)
    known = [choice for choice in plan.choices if choice.decoder == "optimal-unbiased"]
    for one in prepare(fleet, tuple(known), N_SHARDS):
        seen = play(one, draws, 2 * N_ROUNDS)
        # In the nights nothing comes, whatever the redundancy: that alone is an error of three tenths.
        assert seen["error_predicted"] >= 0.3 - 1e-9
        assert abs(seen["error_z"]) < 3.0, one.choice
        assert seen["round_time"] == pytest.approx(seen["round_time_predicted"], rel=0.02)
        if not parameters:
            assert seen["error"] == pytest.approx(seen["error_predicted"])


def test_without_nights_it_is_as_for_independent_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = fleet_of(recording(together=False, n_rounds=800))
    played = {(*choice.design, choice.decoder): choice for choice in plan_of(fleet).choices}
    monkeypatch.setattr(recorded_file, "MOST_CLIENTS", N_CLIENTS - 1)
    alone = plan_of(fleet)
    assert alone.remarks == ("the clients of a trace count as independent of each other beyond 5",)
    for choice in alone.choices:
        same = played[(*choice.design, choice.decoder)]
        assert same.residual_error == pytest.approx(choice.residual_error, rel=0.25, abs=0.005), choice
        assert same.round_time == pytest.approx(choice.round_time, rel=0.02)
        assert same.arrivals == choice.arrivals


def test_a_plan_for_a_later_round_has_its_pace() -> None:
    recorded = recording(together=True)
    slower = {(*c.design, c.decoder): c for c in plan_of(fleet_of(recorded, drift=0.01), server_round=30).choices}
    for choice in plan_of(fleet_of(recorded * 1.01**30)).choices:
        assert slower[(*choice.design, choice.decoder)].residual_error == pytest.approx(choice.residual_error)


def test_sessions_on_top_of_a_trace_are_told_of() -> None:
    fleet = fleet_of(recording(together=True), session_on=500.0, session_off=50.0)
    assert plan_of(fleet).remarks == (
        "with sessions or outages on top of a trace, its clients count as independent of each other",
    )


def test_of_a_long_trace_some_rounds_are_played() -> None:
    fleet = fleet_of(recording(together=True, n_rounds=400))
    outcomes = fleet.outcomes(0, 100)
    assert outcomes.shape == (100, 3, N_CLIENTS)
    # Every twentieth round would be always the same hour.
    assert 0.15 < (outcomes[:, 2] == 0.0).all(axis=1).mean() < 0.45
    np.testing.assert_array_equal(outcomes, fleet.outcomes(0, 100))
