"""Run block-coordinate gradient coding with one seed: exact gradients, as soon as every coordinate can be decoded."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from fedgc.block_coordinates import (
    BlockCoordinateCode,
    best_single_layer,
    equalising_split,
    optimal_split,
    single_layer,
    whole_coordinates,
)
from fedgc.block_coordinates.runtime import work_until
from fedgc.errors import ConfigError
from fedgc.experiment.config import BlocksConfig, ExperimentConfig
from fedgc.experiment.deadlines import time_limit_seconds
from fedgc.experiment.draws import draws_met
from fedgc.experiment.recording import KeptRows, RunEnded
from fedgc.experiment.row import MEASURED, Row
from fedgc.fleets import Fleet, build_fleet
from fedgc.play import RoundDraws
from fedgc.tasks import GradientTask, build_task

Vector = NDArray[np.float64]

#: Rounds of the same clients, after those of the run, by whose times a split is chosen.
_LOOKED_AT = 1000


def run_blocks(config: ExperimentConfig, choice: BlocksConfig, seed: int, keep: Callable[[Row], None]) -> str:
    """Run one split with one seed, and return what identifies the draws that it met.

    As :func:`fedgc.experiment.runner.run_one`, for the runtime "replay". The gradient of each round is encoded by each
    client and decoded from the blocks that have come by the end of the round.

    Parameters
    ----------
    config : ExperimentConfig
        A checked configuration without a sweep.
    choice : BlocksConfig
        One of its strategies.
    seed : int
        One of its seeds.
    keep : callable
        Called with every row that is kept as soon as it is known.

    Raises
    ------
    ConfigError
        If a client does not answer in some round.
    """
    options = {key: value for key, value in config.task.options.items() if key != "learning_rate"}
    task = cast(GradientTask, build_task(config.task.name, seed=seed, **options))
    fleet = build_fleet(config.fleet, seed=seed)
    draws = RoundDraws(fleet)
    weights, step = task.initial_weights(), np.float32(config.task.options["learning_rate"])
    sizes = whole_coordinates(split_for(choice, fleet, weights.size, after=config.rounds, seed=seed), weights.size)
    code = BlockCoordinateCode(sizes, rng=np.random.default_rng([seed, 101]))
    rows = KeptRows(config, keep, time_limit=time_limit_seconds(config, fleet))
    by_accuracy = config.target.quantity == "accuracy"
    before = _Before()
    for number in range(config.rounds + 1):
        loss, parts = task.shard_gradients(weights)
        loss = loss if math.isfinite(loss) else math.inf

        def accuracy(weights: NDArray[np.float32] = weights) -> float:
            return float(cast(float, task.evaluate(task.as_arrays(weights))["accuracy"]))

        def row(
            number: int = number, loss: float = loss, before: _Before = before, test: Callable[[], float] = accuracy
        ) -> Row:
            told = {"fedgc-asked": float(fleet.n_clients), "fedgc-arrived": float(before.arrived)}
            if math.isfinite(before.error):
                told[MEASURED] = before.error
            return Row(choice.label, seed, number, before.seconds, test(), loss, told)

        try:
            # To test a model takes as long as a round: where the target is a loss, only kept rounds are tested.
            rows.add(number, accuracy() if by_accuracy else math.nan, loss, before.seconds, row)
        except RunEnded:
            break
        if number < config.rounds:
            fixed, per_unit = _times(draws, number + 1, before.seconds, code.n_coordinates)
            end = end_of_round(sizes, fixed, per_unit)
            decoded, error = _decoded(code, parts.astype(np.float64), end)
            came = int((end.done > np.flatnonzero(sizes)[0]).sum())
            before = _Before(before.seconds + end.seconds, error, came)
            with np.errstate(all="ignore"):
                weights = weights - step * decoded.astype(np.float32)
    rows.close()
    return draws_met(draws, config.rounds)


class _Before(NamedTuple):
    """Virtual seconds before a round; the error of the round before it, and the clients of which something came."""

    seconds: float = 0.0
    error: float = math.nan
    arrived: int = 0


@dataclass(frozen=True, eq=False)
class RoundEnd:
    """When a round ends, and what has come by then.

    Attributes
    ----------
    seconds : float
        Seconds until every block of coordinates can be decoded.
    done : ndarray of int, shape (n_clients,)
        How many blocks each client has done by then, those without coordinates too.
    """

    seconds: float
    done: NDArray[np.intp]


def end_of_round(sizes: NDArray[np.intp], fixed: Vector, per_unit: Vector) -> RoundEnd:
    """Return the end of a round in the runtime model, with what each client takes whatever it does on top.

    Parameters
    ----------
    sizes : ndarray of int, shape (n_clients,)
        Coordinates in block n = 1, ..., N.
    fixed, per_unit : ndarray, shape (n_clients,)
        Seconds of each client's message, and per coordinate of one shard's gradient.

    Notes
    -----
    Block n comes from a client after ``fixed + per_unit x sum_(i<=n) i x_i``, and can be decoded once N + 1 - n have
    sent it. Without fixed seconds the end is :func:`fedgc.block_coordinates.runtime`.

    Examples
    --------
    >>> end_of_round(np.array([4, 4]), np.zeros(2), np.array([1.0, 3.0])).seconds
    12.0
    """
    block = np.arange(sizes.size)
    ends = fixed[:, None] + per_unit[:, None] * work_until(sizes.astype(np.float64))
    needed = np.sort(ends, axis=0)[block[::-1], block]
    last = float(needed[sizes > 0].max())
    return RoundEnd(last, np.asarray((ends <= last).sum(axis=1), dtype=np.intp))


def _decoded(code: BlockCoordinateCode, parts: Vector, end: RoundEnd) -> tuple[Vector, float]:
    """Return what the blocks that have come by the end decode to, and its error relative to the sum of the parts."""
    if not np.isfinite(parts).all():  # steps that are too large diverge, and there is nothing to decode
        return np.full(code.n_coordinates, np.nan), math.nan
    sent = np.stack([code.encode(client, parts) for client in range(code.n_clients)])
    full = parts.sum(axis=0)
    decoded = code.decode(sent, end.done)
    return decoded, float(((decoded - full) ** 2).sum() / max(float((full**2).sum()), 1e-300))


def split_for(choice: BlocksConfig, fleet: Fleet, n_coordinates: int, *, after: int, seed: int) -> Vector:
    """Return how many coordinates are to have n = 1, ..., N copies, not whole, for clients whose times are known.

    They are known by rounds of the same clients after the run's, none of which it meets.
    """
    n = fleet.n_clients
    if choice.split == "single-layer" and choice.stragglers is not None:
        return single_layer(n, n_coordinates, choice.stragglers)
    draws = RoundDraws(fleet)
    known = np.array([sum(_times(draws, after + 1 + t, 0.0, n_coordinates, work=1.0)) for t in range(_LOOKED_AT)])
    ordered = np.sort(known, axis=1)
    means = ordered.mean(axis=0)
    if choice.split == "single-layer":
        return best_single_layer(means, n_coordinates)
    closed = equalising_split(means, n_coordinates)
    if choice.split == "closed-form":
        return closed
    if choice.split == "closed-form-inverse":
        return equalising_split(1.0 / (1.0 / ordered).mean(axis=0), n_coordinates)
    rng = np.random.default_rng([seed, 103])
    return optimal_split(
        lambda count, rng: known[rng.integers(len(known), size=count)], n_coordinates, start=closed, rng=rng
    )


def _times(
    draws: RoundDraws, number: int, now: float, n_coordinates: int, work: float | None = None
) -> tuple[Vector, Vector]:
    """Return each client's fixed seconds, and those per unit of work, in a round that begins now.

    With `work`, in shards, the fixed seconds are divided over as much, by which splits are chosen: the optimum is of
    times that are in proportion to the work.
    """
    fixed, per_shard, leaves = draws.of_round(number, now)
    gone = ~np.isfinite(fixed + per_shard) | np.isfinite(leaves)
    if gone.any():
        raise ConfigError(
            f"fleet must have clients that are slow and never gone for kind 'block-coordinates'; got client "
            f"{int(gone.argmax())}, who leaves in round {number}"
        )
    per_unit = per_shard / n_coordinates
    return (fixed, per_unit) if work is None else (fixed / (work * n_coordinates), per_unit)
