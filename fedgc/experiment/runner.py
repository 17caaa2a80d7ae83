"""Run one strategy with one seed, on the shards, clients and draws that all strategies meet with it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from flwr.app import ArrayRecord, Context, MetricRecord
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg, Strategy

from fedgc.clients import gradient_coded
from fedgc.errors import ExperimentError, TooFewNodesError
from fedgc.experiment.audit import measured_residual_error, remember_round
from fedgc.experiment.config import ExperimentConfig, RivalConfig, StrategyConfig
from fedgc.experiment.deadlines import in_seconds
from fedgc.experiment.draws import draws_met
from fedgc.experiment.rows import MEASURED, Row, RowKeeper
from fedgc.fleets import Fleet, build_fleet
from fedgc.simulation import VirtualGrid, run_virtual
from fedgc.strategies import GradientCoding, SecureSum
from fedgc.strategies.baselines import WAIT_FOR_EVERYONE, RivalOptions, build_rival
from fedgc.tasks import Task, build_task

logger = logging.getLogger("flwr.fedgc")


class _RunEndsError(Exception):
    """Training ends, since the target is reached: Flower's strategies have no other way to be told."""


def run_one(config: ExperimentConfig, choice: StrategyConfig, seed: int, keep: Callable[[Row], None]) -> str:
    """Run one strategy with one seed in virtual time, and return what identifies the draws that it met.

    Parameters
    ----------
    config : ExperimentConfig
        A checked configuration without a sweep.
    choice : StrategyConfig
        One of its strategies.
    seed : int
        One of its seeds.
    keep : callable
        Called with every row as soon as it is known.
    """
    task = build_task(config.task.name, seed=seed, **config.task.options)
    trainer = remember_round(task.train_shard)
    fleet = build_fleet(config.fleet, seed=seed)
    choice = in_seconds(choice, config, fleet)
    strategy, timeout = _build_strategy(choice, config, task, fleet, seed)
    rows = RowKeeper(config, keep)

    client_app = ClientApp()
    client_app.train()(gradient_coded(num_shards=config.task.shards)(trainer))
    server_app = ServerApp()

    @server_app.main()
    def main(grid: Grid, context: Context) -> None:
        if not isinstance(grid, VirtualGrid):
            raise TypeError(f"experiments run on a VirtualGrid; got {type(grid).__name__}")
        before = task.initial_arrays()

        def evaluate(server_round: int, arrays: ArrayRecord) -> MetricRecord:
            nonlocal before
            metrics = task.evaluate(arrays)
            asked, arrived = _count(grid, server_round)
            _check_clients(grid)
            numbers: dict[str, float] = {"fedgc-asked": asked, "fedgc-arrived": arrived}
            if server_round > 0:
                reports = strategy.history if isinstance(strategy, GradientCoding) else []
                numbers |= next((report.metrics for report in reports if report.server_round == server_round), {})
                numbers[MEASURED] = measured_residual_error(
                    trainer, task.shard_examples, before, arrays, server_round=server_round, run_seed=seed
                )
            before = arrays
            accuracy, loss = float(metrics["accuracy"]), float(metrics["loss"])  # type: ignore[arg-type]
            if rows.add(Row(choice.label, seed, server_round, grid.clock.now(), accuracy, loss, numbers)):
                raise _RunEndsError
            return metrics

        strategy.start(grid, before, num_rounds=config.rounds, timeout=timeout, evaluate_fn=evaluate)

    try:
        with suppress(_RunEndsError):
            run_virtual(server_app, client_app, fleet, run_config={"seed": seed}, num_shards=config.task.shards)
    except (TimeoutError, TooFewNodesError):
        # Strategies of Flower wait for ever for nodes that never come; the rounds until then are the result.
        logger.error("%s, seed %d: training ends early, since every client has left", choice.label, seed)
    rows.end()
    return draws_met(fleet, config.rounds)


def _build_strategy(
    choice: StrategyConfig, config: ExperimentConfig, task: Task, fleet: Fleet, seed: int
) -> tuple[Strategy, float]:
    """Return the strategy and the timeout for its ``start``."""
    # One client may be all there is, and the model is tested on the server.
    timing = fleet if config.timing == "known" else None
    inner: dict[str, Any] = {"fraction_evaluate": 0.0, "min_train_nodes": 1, "min_available_nodes": 1}
    if isinstance(choice, RivalConfig):
        options = RivalOptions(
            config.task.shards,
            deadline=choice.deadline,
            load=choice.load or 2,
            shard_examples=task.shard_examples,
            timing=timing,
            seed=seed,
            inner=inner,
            own=choice.own,
        )
        return build_rival(choice.kind, options)
    strategy = GradientCoding(
        FedAvg(**inner),
        num_shards=config.task.shards,
        deadline=choice.build_deadline(),
        load=choice.load,
        schedule=choice.schedule,
        sums=choice.sums,
        redraw=choice.redraw,
        early_end=choice.early_end,
        code=choice.code,
        memory=choice.memory,
        decoder=choice.decoder,
        max_weight=choice.max_weight,
        shard_examples=task.shard_examples,
        timing=timing,
        coherence=choice.build_coherence(),
        secure_sum=SecureSum(fractional_bits=choice.fractional_bits) if choice.secure_sum else False,
        seed=seed,
    )
    return strategy, WAIT_FOR_EVERYONE


def _count(grid: VirtualGrid, server_round: int) -> tuple[int, int]:
    """Return how many clients were asked in a round, and how many have replied so far."""
    kinds = [event.kind for event in grid.trace if event.server_round == server_round]
    return kinds.count("sent"), kinds.count("replied")


def _check_clients(grid: VirtualGrid) -> None:
    """Raise if a client's code failed: the strategies carry on without it, but an experiment would be meaningless."""
    failure = next((event for event in grid.trace if event.kind == "failed"), None)
    if failure is not None:
        raise ExperimentError(f"client {failure.client} failed in round {failure.server_round}: {failure.detail}")
