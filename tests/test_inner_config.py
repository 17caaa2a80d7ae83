"""Adaptive inner strategies in experiments: their keys, and that runs heed them."""

from __future__ import annotations

from typing import Any

import pytest
from fedgc.strategies import VarianceAwareFedAdam, VarianceAwareFedYogi
from flwr.serverapp.strategy import FedAvg, FedAvgM

from fedgc.errors import ConfigError
from fedgc.experiment.config import ExperimentConfig, check_config
from fedgc.experiment.sweep import run_experiment

ADAM = {"inner": "fedadam"}


def config(own: dict[str, Any], **settings: Any) -> ExperimentConfig:
    strategy = {"kind": "gradient-coding", "label": "x", "deadline": 1.5, **own}
    plain = {"name": "x", "rounds": 3, "seeds": [1], "fleet": {"preset": "paper", "clients": 4}, "timing": "known"}
    task = {"name": "digits-regression", "shards": 4}
    return check_config({**plain, "task": task, "strategies": [strategy], **settings})


@pytest.mark.parametrize(
    ("own", "message"),
    [
        (
            {"inner": "fedadm"},
            "inner must be one of fedadam, fedavg, fedavgm, fedyogi; got 'fedadm', did",
        ),
        ({"beta_1": 0.5}, "beta_1 must be left out for inner 'fedavg', which heeds none of these; got 0.5"),
        (
            {"inner": "fedavgm", "beta_1": 0.5},
            "beta_1 must be left out for inner 'fedavgm', which heeds only server",
        ),
        ({**ADAM, "server_momentum": 0.5}, "server_momentum must be left out for inner 'fedadam', which heeds only"),
        ({"inner": "fedavgm", "server_momentum": 1.0}, "server_momentum must be less than 1; got 1.0"),
        ({**ADAM, "beta_2": 1.0}, "beta_2 must be less than 1; got 1.0"),
        ({**ADAM, "server_learning_rate": 0.0}, "server_learning_rate must be greater than 0; got 0.0"),
        ({**ADAM, "server_learnig_rate": 0.1}, "did you mean server_learning_rate?"),
        ({**ADAM, "second_moment": "scal"}, "second_moment must be one of decoded, scale, second-track, subtract; got"),
        ({**ADAM, "second_decoder": "least-squares"}, "second_decoder must be left out unless second_moment is"),
        ({**ADAM, "second_moment": "scale", "memory": True}, "memory must be off for a strategy with a second_moment"),
        ({**ADAM, "second_moment": "subtract", "schedule": "work-list"}, "second_moment must be 'scale' or"),
    ],
)
def test_what_makes_no_sense_is_refused(own: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        config(own)
    assert "strategies.0." in str(error.value) and message in str(error.value)


def test_replayed_rounds_know_no_inner_strategy() -> None:
    with pytest.raises(ConfigError, match=r"strategies\.0\.inner must be 'fedavg' for runtime 'replay'; got 'fedadam'"):
        config(ADAM, runtime="replay")


def test_keys_reach_flowers_options() -> None:
    own = {**ADAM, "server_learning_rate": 0.03, "beta_1": 0.8, "beta_2": 0.9, "adaptivity": 0.01}
    inner: Any = config({**own, "second_moment": "second-track", "second_decoder": "bounded-mass"}).strategies[0]
    built = inner.build_inner({"fraction_evaluate": 0.0})
    assert isinstance(built, VarianceAwareFedAdam)
    assert (built.eta, built.beta_1, built.beta_2, built.tau, built.fraction_evaluate) == (0.03, 0.8, 0.9, 0.01, 0.0)
    assert built.second_decoder == "bounded-mass"
    yogi: Any = config({"inner": "fedyogi"}).strategies[0]
    assert isinstance(yogi.build_inner({}), VarianceAwareFedYogi)
    steps: Any = config({"inner": "fedavgm", "server_learning_rate": 0.7, "server_momentum": 0.4}).strategies[0]
    momentum = steps.build_inner({"fraction_evaluate": 0.0})
    assert type(momentum) is FedAvgM
    assert (momentum.server_learning_rate, momentum.server_momentum) == (0.7, 0.4)
    plain: Any = config({}).strategies[0]
    assert type(plain.build_inner({})) is FedAvg


def test_runs_differ_by_second_moment() -> None:
    """One experiment with a grid over all of them, on arrivals that are the same for all."""
    names = ["decoded", "scale", "subtract", "second-track"]
    rows = run_experiment(config({**ADAM, "grid": {"second_moment": names}}, rounds=4))
    losses = {row.settings["second_moment"]: row.loss for row in rows if row.round == 4}
    assert list(losses) == names and len(set(losses.values())) == 4
