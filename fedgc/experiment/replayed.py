"""Replay one strategy with one seed: the same shards, clients and draws, without messages."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from functools import lru_cache
from typing import cast

from fedgc.decoders import DECODERS, CappedDecoder
from fedgc.errors import ConfigError
from fedgc.experiment.config import ExperimentConfig, RivalConfig, ServedConfig
from fedgc.experiment.config.replays import replayed_rival
from fedgc.experiment.deadlines import in_seconds, time_limit_seconds
from fedgc.experiment.draws import draws_met
from fedgc.experiment.recording import KeptRows, RunEnded
from fedgc.experiment.row import MEASURED, Row
from fedgc.fleets import build_fleet
from fedgc.play import RoundDraws
from fedgc.replay import DescentStep, Method, check_units, descend, known_rounds
from fedgc.round import first_load
from fedgc.schemes import BALANCED_BLOCKS, CODES
from fedgc.tasks import GradientTask, build_task


def replay_one(config: ExperimentConfig, choice: ServedConfig, seed: int, keep: Callable[[Row], None]) -> str:
    """Replay one strategy with one seed, and return what identifies the draws that it met.

    As :func:`fedgc.experiment.runner.run_one`, for the runtime "replay".

    Raises
    ------
    ConfigError
        If the code does not exist for this fleet, or its decoder cannot decode it.
    """
    options = {key: value for key, value in config.task.options.items() if key != "learning_rate"}
    task = _task(config.task.name, seed, tuple(sorted(options.items())))
    draws = _draws(json.dumps(config.fleet), seed)
    limit = time_limit_seconds(config, draws.fleet)
    method = method_of(in_seconds(choice, config, draws.fleet))
    try:
        rounds = known_rounds(method, draws, task.shard_examples, config.rounds, seed=seed)
        check_units(rounds, memory=method.memory)
    except ValueError as error:
        raise ConfigError(f"{choice.label}: {error}") from None
    asked, rows = float(rounds.code.n_clients), KeptRows(config, keep, time_limit=limit)
    step, by_accuracy = float(config.task.options["learning_rate"]), config.target.quantity == "accuracy"
    for state in descend(task, rounds, step, memory=method.memory):

        def row(state: DescentStep = state) -> Row:
            known = {MEASURED: state.measure_error(), "fedgc-error-predicted": state.predicted} if state.number else {}
            numbers = {"fedgc-asked": asked, "fedgc-arrived": float(state.arrived)}
            numbers |= {name: value for name, value in known.items() if not math.isnan(value)}
            return Row(choice.label, seed, state.number, state.seconds, _accuracy(task, state), state.loss, numbers)

        try:
            # To test a model takes as long as a round: where the target is a loss, only kept rounds are tested.
            rows.add(state.number, _accuracy(task, state) if by_accuracy else math.nan, state.loss, state.seconds, row)
        except RunEnded:
            break
    rows.close()
    # Where clients come and go, each method meets them at its own instants: what the fleet has for all is compared.
    return draws_met(draws, config.rounds) if draws.in_time else rounds.played.met


def _accuracy(task: GradientTask, state: DescentStep) -> float:
    return float(cast(float, task.evaluate(task.as_arrays(state.weights))["accuracy"]))


def method_of(choice: ServedConfig) -> Method:
    """Return what a strategy's section stands for.

    Examples
    --------
    >>> from fedgc.experiment.config.sections import RivalConfig
    >>> mifa = method_of(RivalConfig(kind="mifa", deadline=2.0))
    >>> mifa.decoder.name, mifa.memory
    ('sum', True)
    """
    if isinstance(choice, RivalConfig):
        rival = replayed_rival(choice.kind)
        return Method(
            CODES[rival.code], DECODERS[rival.decoder](), choice.load or 2, choice.deadline, rival.memory, coherence=0.0
        )
    decoder = DECODERS[choice.decoder_name]()
    return Method(
        None if choice.code == BALANCED_BLOCKS else CODES[choice.code],
        decoder if choice.max_weight is None else CappedDecoder(decoder, choice.max_weight),
        first_load(choice.load),
        choice.deadline,
        choice.memory,
        choice.coherence,
    )


# A sweep asks for the same fleets and tasks over and over, seed by seed.
@lru_cache(maxsize=32)
def _draws(fleet: str, seed: int) -> RoundDraws:
    return RoundDraws(build_fleet(json.loads(fleet), seed=seed))


@lru_cache(maxsize=32)
def _task(name: str, seed: int, options: tuple[tuple[str, object], ...]) -> GradientTask:
    return cast(GradientTask, build_task(name, seed=seed, **dict(options)))
