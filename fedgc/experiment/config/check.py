"""Check a configuration, including what no single key shows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from fedgc.assignment import number_of_blocks
from fedgc.decentralised.graph import LEAST_RING
from fedgc.decoders import AUTO, DECODERS
from fedgc.errors import ConfigError
from fedgc.experiment.config.block_coordinates import BlocksConfig, check_blocks
from fedgc.experiment.config.messages import one_line
from fedgc.experiment.config.nodes import DECENTRALISED, GraphConfig, NodesConfig, check_nodes
from fedgc.experiment.config.points import Point, points
from fedgc.experiment.config.replays import check_replay
from fedgc.experiment.config.sections import (
    ExperimentConfig,
    GradientCodingConfig,
    RivalConfig,
    StrategyConfig,
    TuningConfig,
)
from fedgc.experiment.config.tasks import ImagesConfig
from fedgc.experiment.sites import shards_at_sites, site_labels
from fedgc.fleets import Fleet, build_fleet
from fedgc.quantisers import MOST_BITS, QUANTISERS
from fedgc.round import (
    FailureDomains,
    check_bit_budget,
    check_failure_domains,
    check_in_a_row,
    check_list_options,
    check_load,
    check_order,
    check_partial_work,
    check_sum_only,
    first_load,
)
from fedgc.schemes import BALANCED_BLOCKS
from fedgc.strategies.options import (
    as_code,
    as_quantiser,
    as_second_moment,
    check_beside_in_a_row,
    rounding_option,
)
from fedgc.strategies.rivals import RIVALS, SERVER_STEP, CodedRival
from fedgc.validation import check_integer, did_you_mean

#: Tasks whose clients may train on from shard to shard.
ROW_TASKS = ("digits",)
#: Shards that a strategy may have, divided or not: more are a slip of the keyboard.
MOST_PIECES = 10_000


def check_config(raw: Mapping[str, Any]) -> ExperimentConfig:
    """Check a configuration given as plain data, including what no single key shows; of a sweep, every point."""
    try:
        config = ExperimentConfig.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(one_line(error)) from None
    if config.target_loss is not None and "target_accuracy" in config.model_fields_set:
        raise ConfigError(
            f"target_loss must be left out where target_accuracy is given; got {config.target_loss} beside "
            f"{config.target_accuracy}"
        )
    if config.tuning is not None:
        _check_tuning(config, config.tuning)
    if config.sweep or config.sweep_titles or any(strategy.grid for strategy in config.strategies):
        points_of(config)
        return config
    if isinstance(config.task, ImagesConfig) and config.task.shards > config.task.examples:
        raise ConfigError(
            f"task.shards must be at most task.examples = {config.task.examples}; got {config.task.shards}"
        )
    fleet = build_fleet(config.fleet, seed=config.seeds[0])
    if len(set(config.seeds)) < len(config.seeds):
        raise ConfigError(f"seeds must not name a seed twice; got {config.seeds}")
    labels = [strategy.label for strategy in config.strategies]
    for index, strategy in enumerate(config.strategies):
        where = f"strategies.{index}"
        if labels.index(strategy.label) != index:
            raise ConfigError(f"{where}.label must differ from the other labels; got {strategy.label!r} again")
        _check_strategy(strategy, where, config, fleet)
    if config.runtime == "replay":
        check_replay(config)
    if config.runtime == DECENTRALISED:
        _check_decentralised(config)
    return config


def _check_strategy(strategy: StrategyConfig, where: str, config: ExperimentConfig, fleet: Fleet) -> None:
    if (strategy.kind == DECENTRALISED) != (config.runtime == DECENTRALISED):
        must = f"be {DECENTRALISED!r}" if config.runtime == DECENTRALISED else "be a strategy with a server"
        raise ConfigError(f"{where}.kind must {must} for runtime {config.runtime!r}; got {strategy.kind!r}")
    if isinstance(strategy, NodesConfig):
        check_nodes(strategy, where, n_clients=config.n_clients)
    elif isinstance(strategy, BlocksConfig):
        check_blocks(strategy, where, runtime=config.runtime, n_shards=config.task.shards, fleet=fleet)
    elif isinstance(strategy, GradientCodingConfig):
        n_shards = config.task.shards * strategy.pieces
        if n_shards > MOST_PIECES:
            raise ConfigError(
                f"{where}.pieces must leave at most {MOST_PIECES} shards; got {strategy.pieces} x {config.task.shards}"
            )
        if strategy.in_a_row and config.task.name not in ROW_TASKS:
            names = " or ".join(map(repr, ROW_TASKS))
            raise ConfigError(f"task.name must be {names} for {where}.in_a_row; got {config.task.name!r}")
        _check_coding(strategy, where, n_clients=config.n_clients, n_shards=n_shards)
        _check_sites(strategy, where, fleet, n_shards)
    else:
        _check_rival(strategy, where, n_clients=config.n_clients, n_shards=config.task.shards)


def _check_decentralised(config: ExperimentConfig) -> None:
    if config.task.name != "digits-regression":
        raise ConfigError(
            f"task.name must be 'digits-regression' for runtime {DECENTRALISED!r}; got {config.task.name!r}"
        )
    if config.timing != "known":
        raise ConfigError(f"timing must be 'known' for runtime {DECENTRALISED!r}; got {config.timing!r}")
    graph = config.decentralised or GraphConfig()
    if graph.graph == "ring" and config.n_clients < LEAST_RING:
        raise ConfigError(
            f"fleet.clients must be at least {LEAST_RING} for decentralised.graph 'ring'; got {config.n_clients}"
        )
    for seed in config.seeds:
        try:
            graph.mixing_on(graph.build(config.n_clients, seed))
        except ValueError as error:
            raise ConfigError(f"decentralised.{error}") from None


def _check_tuning(config: ExperimentConfig, tuning: TuningConfig) -> None:
    both = sorted(set(tuning.seeds) & set(config.seeds))
    if both:
        raise ConfigError(f"tuning.seeds must not be among the experiment's seeds; got {both[0]}")
    if len(set(tuning.seeds)) < len(tuning.seeds):
        raise ConfigError(f"tuning.seeds must not name a seed twice; got {tuning.seeds}")


def points_of(config: ExperimentConfig) -> list[Point]:
    """Return the points of a sweep; one, if nothing is swept.

    Raises
    ------
    ConfigError
        If a key cannot be swept, or a value is not allowed where it is set.
    """
    return list(points(config, check_config))


def _check_rival(strategy: RivalConfig, where: str, *, n_clients: int, n_shards: int) -> None:
    rival = RIVALS[strategy.kind]
    if rival.needs_deadline and strategy.deadline is None:
        raise ConfigError(f"{where}.deadline must be given for {strategy.kind!r}; got nothing")
    heeded = [*rival.own, *SERVER_STEP, *(["load"] if rival.coded else [])]
    for key in [*strategy.own, *(["load"] if strategy.load is not None else [])]:
        if key not in heeded:
            raise ConfigError(
                f"{where}.{key} must be left out for {strategy.kind!r}, which heeds only {', '.join(heeded)} of these; "
                "got it"
            )
    if n_shards < n_clients and rival.own_data and not isinstance(rival.build, CodedRival):
        raise ConfigError(
            f"task.shards must be at least fleet.clients = {n_clients} for {strategy.kind!r}; got {n_shards}"
        )
    if rival.coded and (strategy.load or 2) > n_clients:
        raise ConfigError(f"{where}.load must be at most fleet.clients = {n_clients}; got {strategy.load or 2}")


def _check_coding(strategy: GradientCodingConfig, where: str, *, n_clients: int, n_shards: int) -> None:
    if strategy.decoder_name not in DECODERS:
        hint = did_you_mean(strategy.decoder, (AUTO, *DECODERS))
        raise ConfigError(
            f"{where}.decoder must be one of {', '.join((AUTO, *DECODERS))}; got {strategy.decoder!r}{hint}"
        )
    if "deadline_share" in strategy.model_fields_set and strategy.deadline_rule != "quantile":
        raise ConfigError(
            f"{where}.deadline_share must be left out unless deadline_rule is 'quantile'; "
            f"got {strategy.deadline_share} with {strategy.deadline_rule!r}"
        )
    if "deadline_cover" in strategy.model_fields_set and strategy.deadline_rule != "auto":
        raise ConfigError(
            f"{where}.deadline_cover must be left out unless deadline_rule is 'auto'; "
            f"got {strategy.deadline_cover} with {strategy.deadline_rule!r}"
        )
    if strategy.noise_sensitivity is not None and strategy.deadline_rule != "auto":
        raise ConfigError(
            f"{where}.noise_sensitivity must be left out unless deadline_rule is 'auto'; "
            f"got {strategy.noise_sensitivity} with {strategy.deadline_rule!r}"
        )
    _check_bits(strategy, where)
    try:
        strategy.build_deadline()
    except ValueError as error:
        raise ConfigError(f"{where}.deadline, {error} (of the rule {strategy.deadline_rule!r})") from None
    schedule, sums = strategy.schedule, strategy.sums
    try:
        strategy.check_inner()
        as_second_moment(
            strategy.build_inner({}),
            schedule=schedule,
            memory=strategy.memory,
            sum_only=strategy.secure_sum,
            rounded_by=rounding_option(strategy.bits, strategy.bit_budget),
            domains=strategy.failure_domains is not None,
            in_a_row=strategy.in_a_row,
        )
        check_in_a_row(
            strategy.in_a_row,
            schedule=schedule,
            sums=sums,
            redraw=strategy.redraw,
            given_code=strategy.code != BALANCED_BLOCKS,
        )
        check_beside_in_a_row(
            strategy.in_a_row,
            memory=strategy.memory,
            secure=strategy.secure_sum,
            rounded_by=rounding_option(strategy.bits, strategy.bit_budget),
            pushed=False,
        )
        check_load(strategy.load, schedule)
        check_list_options(schedule, sums=sums, redraw=strategy.redraw)
        check_order(strategy.order, schedule=schedule, sums=sums, given_code=strategy.code != BALANCED_BLOCKS)
        as_code(strategy.code, schedule)
        decoder = DECODERS[strategy.decoder_name]
        if strategy.secure_sum:
            check_sum_only(decoder, schedule=schedule, sums=sums or "shard", memory=strategy.memory)
        check_partial_work(decoder, schedule=schedule, sums=sums or "shard")
    except ValueError as error:
        raise ConfigError(f"{where}.{error}") from None
    try:
        n_blocks = number_of_blocks(n_clients, first_load(strategy.load))
    except ValueError as error:
        raise ConfigError(f"{where}.{error} (load may not exceed fleet.clients)") from None
    if n_blocks > n_shards:
        raise ConfigError(
            f"task.shards must be at least the number of blocks, fleet.clients // {where}.load = {n_blocks}; "
            f"got {n_shards}"
        )
    if strategy.bit_budget is not None:
        _check_budget(strategy, strategy.bit_budget, where, n_clients=n_clients, n_blocks=n_blocks)


def _check_sites(strategy: GradientCodingConfig, where: str, fleet: Fleet, n_shards: int) -> None:
    given_code = strategy.code != BALANCED_BLOCKS
    try:
        if strategy.residency is not None:
            if given_code:
                raise ConfigError("residency must be left out for a code that says itself who holds what; got it")
            shards_at_sites(fleet, n_shards)
        if strategy.failure_domains is not None:
            if strategy.max_weight is not None:
                raise ConfigError(f"max_weight must be left out with failure_domains; got {strategy.max_weight}")
            decoder = DECODERS[strategy.decoder_name]
            check_failure_domains(decoder, schedule=strategy.schedule, given_code=given_code)
            FailureDomains.named(site_labels(fleet))
    except ValueError as error:
        raise ConfigError(f"{where}.{error}") from None


def _check_bits(strategy: GradientCodingConfig, where: str) -> None:
    if strategy.quantiser not in QUANTISERS:
        hint = did_you_mean(strategy.quantiser, QUANTISERS)
        raise ConfigError(f"{where}.quantiser must be one of {', '.join(QUANTISERS)}; got {strategy.quantiser!r}{hint}")
    if strategy.bits is not None and strategy.secure_sum:
        raise ConfigError(f"{where}.bits must be left out with secure_sum; got {strategy.bits}")
    if not strategy.rounded and "quantiser" in strategy.model_fields_set:
        raise ConfigError(f"{where}.quantiser must be left out without bits; got {strategy.quantiser!r}")


def _check_budget(strategy: GradientCodingConfig, budget: int, where: str, *, n_clients: int, n_blocks: int) -> None:
    try:
        check_bit_budget(
            budget,
            DECODERS[strategy.decoder_name],
            schedule=strategy.schedule,
            given_code=strategy.code != BALANCED_BLOCKS,
            domains=strategy.failure_domains is not None,
        )
        as_quantiser(
            strategy.bits, strategy.quantiser, secure=strategy.secure_sum, budget=budget, memory=strategy.memory
        )
        if strategy.max_weight is not None:
            raise ConfigError(f"bit_budget must be left out with max_weight; got {budget}")
        check_integer("bit_budget", budget, low=n_blocks, high=MOST_BITS * n_clients)
    except ValueError as error:
        raise ConfigError(f"{where}.{error}") from None
