"""Copies of each shard that nobody has chosen: as many as are predicted to reach the target soonest."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fedgc.strategies import GradientCoding
from flwr.serverapp.strategy import FedAvg

from fedgc.assignment import AssignmentConstraints
from fedgc.deadline import AutomaticDeadline, FixedDeadline
from fedgc.decoders import OptimalUnbiasedDecoder
from fedgc.errors import ConfigError
from fedgc.experiment.config import check_config
from fedgc.experiment.sweep import run_experiment
from fedgc.fleets import build_fleet
from fedgc.round import Planning, RoundPlan, RoundState, plan_round

FREE = {"model": "paper"}  # copies take no time
COSTLY = {"model": "log-normal", "sigma": 0.6}


def planned(load: Any, fleet: dict[str, Any], deadline: float = 1.1, **options: Any) -> RoundPlan:
    planning = Planning(
        load=load,
        decoder=OptimalUnbiasedDecoder(),
        schedule="work-list",
        deadline=FixedDeadline(deadline),
        timing=build_fleet({"clients": 20, **fleet}, seed=1),
        **options,
    )
    return plan_round(RoundState(np.ones(40)), range(20), planning)


def holders(plan: RoundPlan) -> int:
    assert plan.assignment is not None
    return plan.assignment.least_holders


def test_copies_that_take_no_time_are_made_as_long_as_they_help() -> None:
    found = planned("auto", FREE)
    assert holders(found) == 20
    errors = [planned(load, FREE).decoder.residual_error for load in (1, 2, 3)]
    least = min(error for error in errors if error is not None)
    assert found.decoder.residual_error is not None
    assert found.decoder.residual_error <= least * 1.01


def test_copies_that_gain_nothing_are_not_made() -> None:
    assert holders(planned("auto", COSTLY, 6.0)) == holders(planned(2, COSTLY, 6.0)) == 2


def test_limits_hold() -> None:
    limits = AssignmentConstraints(storage=np.full(20, 8))
    plan = planned("auto", FREE, constraints=limits)
    assert plan.assignment is not None
    assert max(plan.assignment.shards_of(client).size for client in range(20)) <= 8


def test_nothing_known_means_two() -> None:
    planning = Planning(
        load="auto", decoder=OptimalUnbiasedDecoder(), schedule="work-list", deadline=AutomaticDeadline(initial=1.0)
    )
    assert holders(plan_round(RoundState(np.ones(40)), range(20), planning)) == 2


@pytest.mark.parametrize("load", ["some", 0, 1.5, "auto"])
def test_other_loads_are_refused(load: Any) -> None:
    with pytest.raises(ValueError, match="load must be"):
        GradientCoding(FedAvg(), num_shards=4, deadline=1.0, load=load)
    strategy = {"kind": "gradient-coding", "label": "a", "deadline": 1.0, "load": load}
    raw = {"name": "a", "rounds": 1, "seeds": [1], "task": {"shards": 6}, "fleet": {"model": "paper", "clients": 3}}
    with pytest.raises(ConfigError, match="load"):
        check_config({**raw, "strategies": [strategy]})


def test_a_run_learns_that_copies_take_no_time_and_makes_more() -> None:
    common = {"kind": "gradient-coding", "schedule": "work-list", "deadline": 1.5}
    raw = {
        "name": "a",
        "rounds": 8,
        "seeds": [1],
        "task": {"shards": 20, "hidden": 8},
        "fleet": {"clients": 10, **FREE},
        "strategies": [{**common, "label": "auto", "load": "auto"}, {**common, "label": "two", "load": 2}],
    }
    rows = run_experiment(check_config(raw))
    load = {
        label: [row.metrics["fedgc-load"] for row in rows if row.strategy == label and row.round]
        for label in ("auto", "two")
    }
    assert load["auto"][0] == load["two"][0] == 2.0
    assert load["auto"][-1] > load["two"][-1]
