"""Gradient descent whose rounds are a method's: what each shard's gradient counts, and what is remembered of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from fedgc.coherence import CoherenceEstimate, KnownCoherence
from fedgc.replay.rounds import MethodRounds
from fedgc.tasks import GradientTask

Weights = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class DescentStep:
    """The state before a round, and the round's error.

    Attributes
    ----------
    number : int
        Rounds before.
    seconds : float
        Virtual seconds before.
    loss : float
        Loss of all training examples.
    weights : ndarray, shape (n_parameters,)
        The model.
    arrived : int
        Coded updates that came in the round before; 0 at the start.
    measure_error : callable
        Returns ``|g^ - g|^2 / |g|^2`` of the round before, for the decoded g^ and the full gradient g; NaN at the
        start. To methods that do not need g otherwise it costs a pass over all examples, and few rounds are looked at.
    predicted : float
        What the decoder expects of it; NaN where it does not know, or changes were decoded.
    coherence : CoherenceEstimate
        What is known of the coherence by then.
    """

    number: int
    seconds: float
    loss: float
    weights: Weights
    arrived: int
    measure_error: Callable[[], float]
    predicted: float
    coherence: CoherenceEstimate


def descend(task: GradientTask, rounds: MethodRounds, step: float, *, memory: bool = False) -> Iterator[DescentStep]:
    """Yield the state before each round, and the last one.

    Parameters
    ----------
    task : GradientTask
        What is trained.
    rounds : MethodRounds
        What came of each round.
    step : float
        Step size.
    memory : bool
        Whether changes are decoded; every coded update must then be about one unit.

    Raises
    ------
    ValueError
        If a coded update is about several units, and what it brings of each could not be told.

    Notes
    -----
    With U the matrix of the shards' gradients, each weighted by its share of the examples, and v the coverage, a round
    descends along ``v' U``, with a memory H along ``1' H + v' (U - H)``. A round in which nothing arrives changes
    nothing. A loss that is not finite is infinite.
    """
    check_units(rounds, memory=memory)
    learns = not isinstance(rounds.coherence, KnownCoherence)
    # As coherence is learnt the decoder is calibrated anew; others may descend with the same rounds.
    rounds = replace(rounds)
    weights, coherence, step32 = task.initial_weights(), rounds.coherence, np.float32(step)
    kept = np.zeros((rounds.unit_shares.size, weights.size), dtype=np.float32) if memory else None
    everyone = np.ones((1, rounds.sizes.size), dtype=np.float32)
    seconds, arrived, predicted = 0.0, 0, np.nan
    measure_error: Callable[[], float] = partial(float, np.nan)
    for number in range(rounds.n_rounds):
        known = coherence
        coverage = rounds.coverage(number, known).astype(np.float32)
        full: Callable[[], Weights]
        if memory or learns:
            loss, parts = task.shard_gradients(weights)
            full, changes = partial(np.sum, parts, axis=0), rounds.by_unit(parts)
            decoded = coverage @ parts
            recovered = rounds.recovered(number)
            if kept is not None:
                of_unit = rounds.unit_values(coverage)
                decoded = decoded + (1.0 - of_unit) @ kept
                changes = changes - kept
                kept[recovered] += changes[recovered]
            shares = rounds.unit_shares[recovered, None].astype(np.float32)
            coherence = _learnt(coherence, changes[recovered] / shares)
        else:
            loss, (decoded,) = task.weighted_gradients(weights, coverage[None])
            full = partial(_gradient, task, weights, everyone)
        yield DescentStep(number, seconds, _finite(loss), weights, arrived, measure_error, predicted, known)
        arrived = int(rounds.played.arrived[number].sum())
        if not arrived:
            decoded = np.zeros_like(decoded)
        with np.errstate(all="ignore"):
            weights = weights - step32 * decoded
        measure_error = partial(_error, decoded, full)
        seconds += float(rounds.played.seconds[number])
        predicted = np.nan if memory else _or_nan(rounds.calibrated.residual_error)
    loss, _ = task.weighted_gradients(weights, everyone)
    yield DescentStep(rounds.n_rounds, seconds, _finite(loss), weights, arrived, measure_error, predicted, coherence)


def check_units(rounds: MethodRounds, *, memory: bool) -> None:
    """Check that what a method keeps or learns of the updates can be told from its coded ones.

    Raises
    ------
    ValueError
        If a coded update is about several units, and the method has a memory, or learns the coherence.
    """
    if rounds.single_units:
        return
    if memory:
        raise ValueError("memory must be left out for codes whose updates are sums of several units; got it")
    if not isinstance(rounds.coherence, KnownCoherence):
        raise ValueError("coherence must be given for codes whose updates are sums of several units; got none")


def _learnt(coherence: CoherenceEstimate, changes: Weights) -> CoherenceEstimate:
    if not changes.shape[0] or isinstance(coherence, KnownCoherence):
        return coherence
    with np.errstate(all="ignore"):
        total = changes.sum(axis=0)
        return coherence.update((changes**2).sum(axis=1), float(total @ total))


def _gradient(task: GradientTask, weights: Weights, everyone: Weights) -> Weights:
    _, gradients = task.weighted_gradients(weights, everyone)
    full: Weights = gradients[0]
    return full


def _error(decoded: Weights, full: Callable[[], Weights]) -> float:
    exact = full()
    with np.errstate(all="ignore"):
        return float(((decoded - exact) ** 2).sum() / (exact**2).sum())


def _finite(loss: float) -> float:
    return float(loss) if np.isfinite(loss) else np.inf


def _or_nan(value: float | None) -> float:
    return np.nan if value is None else value
