"""Shards in a row, in training over real messages, and what does not go with them."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
from fedgc.clients import RowOfShards, ShardUpdate, coded_in_a_row
from fedgc.strategies import GradientCoding, VarianceAwareFedAdam
from flwr.app import ArrayRecord, ConfigRecord, Context
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.serverapp.strategy import DifferentialPrivacyServerSideFixedClipping, FedAvg, Strategy

from fedgc.errors import ConfigError
from fedgc.experiment.config import check_config
from fedgc.experiment.sweep import run_experiment
from fedgc.simulation import run_virtual
from tests.apps import initial_arrays, shard_app, steady, train
from tests.row_cases import EXAMPLES, PIECES, SIZES, row_app

INNER: dict[str, Any] = {"fraction_evaluate": 0.0, "min_train_nodes": 1, "min_available_nodes": 1}


@pytest.mark.parametrize("load", [1, 2])
def test_without_stragglers_the_step_is_that_of_the_mean_client(load: int) -> None:
    """As FedAvg's over clients that count alike: the sum of all that they have moved by, over their number."""
    strategy = GradientCoding(
        FedAvg(**INNER),
        num_shards=12,
        deadline=1e4,
        load=load,
        schedule="work-list",
        in_a_row=True,
        early_end=False,
        decoder="optimal-unbiased",
        shard_examples=SIZES,
        timing=steady(2),
    )
    result, _ = train(strategy, steady(2), app=row_app())
    moved = {name: result.arrays[name].numpy() - array.numpy() for name, array in initial_arrays().items()}
    examples, plan = np.concatenate(EXAMPLES), strategy.state.plan
    assert (
        plan is not None and plan.code.n_clients == load
    )  # one can do it all: with a single holder the other stays out
    # Two holders have both done all of it.
    np.testing.assert_allclose(moved["bias"], examples.size, rtol=1e-6)
    np.testing.assert_allclose(moved["weight"], examples.sum(), rtol=1e-6)
    assert strategy.history[0].disagreements == ()


def test_a_strategy_around_it_gets_what_it_would_decode_itself() -> None:
    """Privacy of which nothing is left, without noise and with a bound that nobody reaches, changes nothing."""
    ends = []
    for wrapped in (False, True):
        coded = GradientCoding(
            FedAvg(**INNER),
            num_shards=12,
            deadline=100.0,
            schedule="work-list",
            in_a_row=True,
            early_end=False,
            shard_examples=SIZES,
        )
        outer = DifferentialPrivacyServerSideFixedClipping(
            coded, noise_multiplier=0.0, clipping_norm=1e9, num_sampled_clients=2
        )

        def main(grid: Grid, context: Context, coded: GradientCoding = coded, outer: Strategy | None = outer) -> None:
            strategy, own = (outer, coded.deadline_grid(grid)) if outer is not None else (coded, grid)
            result = strategy.start(own, initial_arrays(), num_rounds=2, timeout=1e5)
            ends.append(np.concatenate([array.numpy().ravel() for array in result.arrays.values()]))

        run_virtual(partial(main, outer=outer if wrapped else None), row_app(), steady(2), num_shards=12)
    np.testing.assert_allclose(ends[1], ends[0], rtol=1e-6)
    assert np.abs(ends[0]).min() > 1.0


def test_apart_and_in_a_row_are_not_mixed_up() -> None:
    options: dict[str, Any] = {"deadline": 1e4, "schedule": "work-list", "timing": steady(2)}
    apart = GradientCoding(FedAvg(**INNER), num_shards=12, shard_examples=SIZES, **options)
    _, run = train(apart, steady(2), app=row_app())
    assert {event.kind for event in run.trace} >= {"failed"}
    details = {event.detail for event in run.trace if event.kind == "failed"}
    assert all("must be under gradient_coded, as the server's in_a_row is False" in detail for detail in details)
    row = GradientCoding(FedAvg(**INNER), num_shards=6, in_a_row=True, **options)
    _, run = train(row, steady(2), app=shard_app())
    details = {event.detail for event in run.trace if event.kind == "failed"}
    assert details and all("must be under coded_in_a_row, as the server's in_a_row is True" in one for one in details)


def test_an_update_of_other_examples_than_the_rows_is_refused() -> None:
    app = ClientApp()

    @app.train()
    @coded_in_a_row(num_shards=4, pieces=PIECES)
    def train_row(row: RowOfShards, arrays: ArrayRecord, config: ConfigRecord) -> ShardUpdate:
        return ShardUpdate(5, arrays)

    strategy = GradientCoding(
        FedAvg(**INNER), num_shards=12, deadline=1e4, schedule="work-list", in_a_row=True, timing=steady(2)
    )
    _, run = train(strategy, steady(2), app=app)
    assert {event.detail.split("; ")[0] for event in run.trace if event.kind == "failed"} == {
        "ValueError: num_examples of the ShardUpdate must be the row's, 0"
    }


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "schedule": ({"schedule": "full"}, "in_a_row must be False for schedule 'full'"),
    "redraw": ({"redraw": False}, "redraw must not be False with in_a_row"),
    "sums": ({"sums": "whole"}, "sums must be left out with in_a_row, whose clients send what they end with"),
    "code": ({"code": "uncoded"}, "in_a_row must be False for a code that says itself who holds what; got True"),
    "memory": ({"memory": True}, "memory must be left out with in_a_row, which leaves no update of a shard alone"),
    "bits": ({"bits": 8}, "bits must be left out with in_a_row, whose replies are whole models; got it"),
    "flag": ({"in_a_row": 1}, "in_a_row must be True or False; got 1"),
    "moment": ({"strategy": VarianceAwareFedAdam()}, "in_a_row must be False for a strategy with a second_moment"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_does_not_go_with_it_is_refused(name: str) -> None:
    options, message = BAD[name]
    given = {"schedule": "work-list", "in_a_row": True, **options}
    with pytest.raises(ValueError, match=message):
        GradientCoding(given.pop("strategy", FedAvg()), num_shards=12, deadline=1.0, **given)


RAW: dict[str, Any] = {
    "name": "In a row",
    "rounds": 4,
    "seeds": [1],
    "task": {"name": "digits", "shards": 8},
    "fleet": {"preset": "uneven", "clients": 4},
    "strategies": [
        {
            "kind": "gradient-coding",
            "label": "in a row",
            "deadline": 8.0,
            "schedule": "work-list",
            "in_a_row": True,
            "pieces": 3,
        }
    ],
}


def test_an_experiment_trains_in_a_row() -> None:
    rows = run_experiment(check_config(RAW))
    assert [row.round for row in rows] == [0, 1, 2, 3, 4]
    assert rows[-1].accuracy > rows[0].accuracy + 0.2
    assert rows[-1].seconds <= 32.0
    assert rows == run_experiment(check_config(RAW))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": {"name": "digits-conv", "shards": 8}}, "task.name must be 'digits' for strategies.0.in_a_row; got"),
        ({"schedule": "full"}, "strategies.0.in_a_row must be False for schedule 'full'"),
        ({"memory": True}, "strategies.0.memory must be left out with in_a_row"),
        ({"sums": "share"}, "strategies.0.sums must be left out with in_a_row"),
    ],
)
def test_an_experiment_that_cannot_be_is_refused(changes: dict[str, Any], message: str) -> None:
    top = {key: value for key, value in changes.items() if key in RAW}
    own = {key: value for key, value in changes.items() if key not in RAW}
    with pytest.raises(ConfigError, match=message):
        check_config({**RAW, **top, "strategies": [{**RAW["strategies"][0], **own}]})
