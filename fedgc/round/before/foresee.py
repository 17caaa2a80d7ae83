"""What a rule for the deadline is told before a round."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fedgc.codes import Code
from fedgc.deadline import Outlook, RoundForecast, Timing
from fedgc.decoders import Decoder, FixedDecoder, OptimalUnbiasedDecoder
from fedgc.decoders.optimal_quantised import errors_with_rounding
from fedgc.forecast import Forecast, forecast_round
from fedgc.gram import GramModel
from fedgc.round.state import RoundState


def outlook_of(  # noqa: PLR0917  (those of Outlook, and what is known)
    state: RoundState,
    code: Code,
    timing: Timing,
    work: NDArray[np.intp],
    before: float | None,
    ahead: Callable[[float], RoundForecast],
) -> Outlook:
    """Return the outlook of a code's rounds, with what the state has learnt of deadlines and of noise.

    Parameters
    ----------
    state : RoundState
        What is known before the round.
    code : Code
        Who would compute what.
    timing, work, before, ahead
        See :class:`fedgc.deadline.Outlook`; `before` is its ``last``, `ahead` its ``forecast``.
    """
    n_shards = state.shard_examples.size
    return Outlook(timing, work, n_shards, before, ahead, sensitivity_of(state, code), state.fruitless)


def foresee_round(  # noqa: PLR0917  (those of forecast_round, and what is known)
    state: RoundState,
    timing: Timing,
    code: Code,
    decoder: Decoder,
    gram: GramModel,
    deadline: float,
    *,
    clients: NDArray[np.intp] | None = None,
    early_end: bool = True,
) -> Forecast:
    """Return what :func:`fedgc.forecast.forecast_round` does, relative to updates that have not been rounded.

    Parameters
    ----------
    state : RoundState
        What is known before the round: how much rounding `gram` has been told of.
    timing, code, decoder, gram, deadline, clients, early_end
        See there.
    """
    seen = forecast_round(timing, code, decoder, gram, deadline, clients=clients, early_end=early_end)
    error, _ = errors_with_rounding(
        code,
        gram,
        [],
        np.ones(code.n_shards),
        predicted=seen.round.residual_error,
        observed=0.0,
        told=state.variance_factor,
    )
    assert error is not None
    step = 1.0
    if state.plan is not None and state.plan.in_a_row and state.plan.step > 0.0:
        step = seen.round.progress / state.plan.step
    return seen._replace(round=replace(seen.round, residual_error=error, step=step))


def ranked_by(decoder: Decoder) -> Decoder:
    """Return the decoder that choices are ranked by: itself, or the unbiased one that ends rounds like a biased one.

    The residual error of a biased decoder may be one at most, however little comes: no time to target follows from it,
    and the shortest deadline would always be the best.
    """
    if decoder.unbiased:
        return decoder
    return FixedDecoder() if decoder.weights_settled else OptimalUnbiasedDecoder()


def sensitivity_of(state: RoundState, code: Code) -> float:
    """Return what residual errors of a code cost, see :class:`fedgc.noise.NoiseSensitivity`; 1 if it is not learnt."""
    return 1.0 if state.noise is None else state.noise.value * state.share_of_changes(code)
