"""Run one strategy with one seed, on the shards, clients and draws that all strategies meet with it."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from typing import Any

from flwr.app import ArrayRecord, Context, MetricRecord
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import Strategy

from fedgc.assignment import own_part
from fedgc.clients import coded_in_a_row, gradient_coded
from fedgc.clients.in_a_row import piece_sizes
from fedgc.deadline import WAIT_FOR_EVERYONE
from fedgc.errors import ExperimentError, TooFewNodesError
from fedgc.experiment.audit import UnionTrainer, measured_residual_error, remember_round, shard_trainer
from fedgc.experiment.config import ExperimentConfig, GradientCodingConfig, RivalConfig, ServedConfig
from fedgc.experiment.deadlines import in_seconds, time_limit_seconds
from fedgc.experiment.draws import check_handed_out, draws_met
from fedgc.experiment.own_data import own_data
from fedgc.experiment.pieces import fleet_of_pieces
from fedgc.experiment.recording import KeptRows, RunEnded
from fedgc.experiment.row import MEASURED, Row
from fedgc.experiment.sites import shards_at_sites, site_labels
from fedgc.fleets import Fleet, build_fleet
from fedgc.play import RoundDraws
from fedgc.simulation import VirtualGrid, run_virtual
from fedgc.strategies import GradientCoding, SecureSum
from fedgc.strategies.rivals import RIVALS, RivalOptions, build_rival
from fedgc.tasks import RowTask, Task, build_task

logger = logging.getLogger("flwr.fedgc")


def run_one(config: ExperimentConfig, choice: ServedConfig, seed: int, keep: Callable[[Row], None]) -> str:
    """Run one strategy with one seed in virtual time, and return what identifies the draws that it met.

    Parameters
    ----------
    config : ExperimentConfig
        A checked configuration without a sweep.
    choice : ServedConfig
        One of its strategies.
    seed : int
        One of its seeds.
    keep : callable
        Called with every row that is kept as soon as it is known.
    """
    pieces = choice.pieces if isinstance(choice, GradientCodingConfig) else 1
    in_a_row = isinstance(choice, GradientCodingConfig) and choice.in_a_row
    # In a row a piece is a part of the training on a shard; else it is a shard by itself.
    task = build_task(config.task.name, seed=seed, pieces=1 if in_a_row else pieces, **config.task.options)
    sizes = task.shard_examples
    if in_a_row:
        sizes = [part for examples in sizes for part in piece_sizes(examples, pieces)]
    trainer = remember_round(task.train_union)
    # Deadlines are in units of the shards that all strategies have.
    undivided = build_fleet(config.fleet, seed=seed)
    choice, time_limit = in_seconds(choice, config, undivided), time_limit_seconds(config, undivided)
    table = fleet_of_pieces(config.fleet, pieces)
    fleet = build_fleet(table, seed=seed)
    as_one = isinstance(choice, RivalConfig) and RIVALS[choice.kind].own_data
    client_app, parts = _clients(choice, config, task, trainer)
    strategy, timeout = _build_strategy(choice, config, sizes, fleet, seed)

    rows = KeptRows(config, keep, time_limit=time_limit)

    server_app, grids = ServerApp(), []

    @server_app.main()
    def main(grid: Grid, context: Context) -> None:
        if not isinstance(grid, VirtualGrid):
            raise TypeError(f"experiments run on a VirtualGrid; got {type(grid).__name__}")
        grids.append(grid)
        before = task.initial_arrays()
        counts = _Counts(grid)

        def evaluate(server_round: int, arrays: ArrayRecord) -> MetricRecord:
            nonlocal before
            metrics = task.evaluate(arrays)
            accuracy, loss = float(metrics["accuracy"]), float(metrics["loss"])  # type: ignore[arg-type]
            asked, arrived = counts.of_round(server_round)
            numbers: dict[str, float] = {"fedgc-asked": asked, "fedgc-arrived": arrived}
            if server_round > 0 and isinstance(strategy, GradientCoding):
                # From the end, where the round's report is: a search from the start would take longer every round.
                reports = (report for report in reversed(strategy.history) if report.server_round == server_round)
                numbers |= next((report.metrics for report in reports), {})
            now, old = grid.clock.now(), before

            def row() -> Row:
                # Where a plan divides the shards of clients that have left anew, this does not know among whom.
                divided = as_one and isinstance(strategy, GradientCoding)
                as_at_first = not divided or len(list(grid.get_node_ids())) == config.n_clients
                if server_round > 0 and choice.plain_average and as_at_first:
                    numbers[MEASURED] = measured_residual_error(
                        trainer, parts, task.shard_examples, old, arrays, server_round=server_round, run_seed=seed
                    )
                return Row(choice.label, seed, server_round, now, accuracy, loss, numbers)

            before = arrays
            rows.add(server_round, accuracy, loss, now, row)
            return metrics

        strategy.start(grid, before, num_rounds=config.rounds, timeout=timeout, evaluate_fn=evaluate)

    try:
        run_virtual(server_app, client_app, fleet, run_config={"seed": seed}, num_shards=len(sizes))
    except RunEnded:
        pass
    except (TimeoutError, TooFewNodesError):
        # Strategies of Flower wait for ever for nodes that never come; the rounds until then are the result.
        logger.error("%s, seed %d: training ends early, since every client has left", choice.label, seed)
    rows.close()
    for grid in grids:
        check_handed_out(grid.handed_out, build_fleet(table, seed=seed))
    return draws_met(RoundDraws(undivided), config.rounds)


def _clients(
    choice: ServedConfig, config: ExperimentConfig, task: Task, trainer: UnionTrainer
) -> tuple[ClientApp, list[range]]:
    """Return the clients' app, and the shards of each update that they compute: one, or all of a client's as one."""
    app, n_shards = ClientApp(), len(task.shard_examples)
    as_one = isinstance(choice, RivalConfig) and RIVALS[choice.kind].own_data
    if as_one:
        app.train()(own_data(trainer, task.shard_examples, config.n_clients))
    elif isinstance(choice, GradientCodingConfig) and choice.in_a_row:
        assert isinstance(task, RowTask)  # of other tasks the configuration is refused
        app.train()(coded_in_a_row(num_shards=n_shards, pieces=choice.pieces)(task.train_row))
    else:
        app.train()(gradient_coded(num_shards=n_shards)(shard_trainer(trainer)))
    owners = config.n_clients if as_one else n_shards
    return app, [part for owner in range(owners) if (part := own_part(owner, owners, n_shards))]


def _build_strategy(
    choice: ServedConfig, config: ExperimentConfig, sizes: list[int], fleet: Fleet, seed: int
) -> tuple[Strategy, float]:
    """Return the strategy and the timeout for its ``start``."""
    n_shards = len(sizes)
    # One client may be all there is, and the model is tested on the server.
    timing = fleet if config.timing == "known" else None
    inner: dict[str, Any] = {"fraction_evaluate": 0.0, "min_train_nodes": 1, "min_available_nodes": 1}
    if isinstance(choice, RivalConfig):
        options = RivalOptions(
            n_shards,
            deadline=choice.deadline,
            load=choice.load or 2,
            shard_examples=sizes,
            timing=timing,
            seed=seed,
            inner=inner,
            own=choice.own,
        )
        return build_rival(choice.kind, options)
    strategy = GradientCoding(
        choice.build_inner(inner),
        num_shards=n_shards,
        deadline=choice.build_deadline(),
        load=choice.load,
        schedule=choice.schedule,
        sums=choice.sums,
        redraw=choice.redraw,
        order=choice.order,
        in_a_row=choice.in_a_row,
        early_end=choice.early_end,
        code=choice.code,
        memory=choice.memory,
        decoder=choice.decoder,
        max_weight=choice.max_weight,
        shard_examples=sizes,
        timing=timing,
        coherence=choice.build_coherence(),
        constraints=None if choice.residency is None else shards_at_sites(fleet, n_shards),
        failure_domains=None if choice.failure_domains is None else site_labels(fleet),
        secure_sum=SecureSum(fractional_bits=choice.fractional_bits) if choice.secure_sum else False,
        bits=choice.bits,
        bit_budget=choice.bit_budget,
        quantiser=choice.quantiser,
        seed=seed,
    )
    return strategy, WAIT_FOR_EVERYONE


class _Counts:
    """Count messages by round as they come, and raise if a client's code failed.

    The strategies carry on without such a client, but an experiment would be meaningless.
    """

    def __init__(self, grid: VirtualGrid) -> None:
        self._grid = grid
        self._seen = 0
        self._counts: Counter[tuple[int, str]] = Counter()

    def of_round(self, server_round: int) -> tuple[int, int]:
        """Return how many clients were asked in a round, and how many have replied so far."""
        trace = self._grid.trace
        for event in trace[self._seen :]:
            if event.kind == "failed":
                raise ExperimentError(f"client {event.client} failed in round {event.server_round}: {event.detail}")
            self._counts[event.server_round, event.kind] += 1
        self._seen = len(trace)
        return self._counts[server_round, "sent"], self._counts[server_round, "replied"]
