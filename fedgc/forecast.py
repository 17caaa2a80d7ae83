"""Forecast: how long the rounds of a plan take, how much arrives, and how far off the decoded update will be."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedgc.analysis import analyse
from fedgc.arrivals import ArrivalModel, IndependentArrivals, ProgressArrivals
from fedgc.codes import Code, WorkLists
from fedgc.deadline.base import RoundForecast, Timing
from fedgc.decoders import CalibratedDecoder, Decoder
from fedgc.errors import NoUnbiasedDecoderError
from fedgc.gram import GramModel

Vector = NDArray[np.float64]

#: A client this likely to miss is as good as certain to; IndependentArrivals takes no certainty.
_LARGEST_MISS = 1.0 - 1e-12
#: Instants before the deadline at which the chance of an early end is worked out.
_INSTANTS = 32
#: Random rounds for codes without blocks, whose early end has no closed form.
_DRAWS = 64


class Forecast(NamedTuple):
    """A forecast with what it was made from.

    Attributes
    ----------
    round : RoundForecast
        The prediction.
    decoder : CalibratedDecoder or None
        The decoder, ready for the round; None if some shard can never arrive by the deadline.
    """

    round: RoundForecast
    decoder: CalibratedDecoder | None


def work_of(code: Code) -> NDArray[np.intp]:
    """Return the number of shards on each client's list, or that it computes for its one update, (n_clients,)."""
    return np.array([code.shards_of(client).size for client in range(code.n_clients)], dtype=np.intp)


def arrivals_by_deadline(code: Code, reach: Vector) -> ArrivalModel:
    """Return the arrivals of a code whose clients make this much progress.

    Parameters
    ----------
    code : Code
        The code. Work lists count as far as they are done, all other codes send one update if all of it is done.
    reach : ndarray, shape (n_clients, max_shards + 1)
        Probability of each client to have done at least k shards by the deadline; 1 for k = 0.

    Examples
    --------
    >>> from fedgc.codes import FractionalRepetition
    >>> code = FractionalRepetition([0, 1], [0, 0, 1])
    >>> arrivals_by_deadline(code, np.array([[1.0, 0.9, 0.7], [1.0, 0.5, 0.2]])).row_probability.tolist()
    [0.7, 0.5]
    """
    work = work_of(code)
    if isinstance(code, WorkLists):
        progress = [
            -np.diff(np.append(own[: length + 1], 0.0)) for own, length in zip(reach, work.tolist(), strict=True)
        ]
        return ProgressArrivals(code, [np.maximum(p, 0.0) / np.maximum(p, 0.0).sum() for p in progress])
    miss = 1.0 - reach[np.arange(code.n_clients), work]
    return IndependentArrivals(np.clip(miss, 0.0, _LARGEST_MISS))


def forecast_round(
    timing: Timing,
    code: Code,
    decoder: Decoder,
    gram: GramModel,
    deadline: float,
    *,
    clients: NDArray[np.intp] | None = None,
    early_end: bool = True,
) -> Forecast:
    """Predict the rounds of a code and a decoder with a deadline.

    Parameters
    ----------
    timing : Timing
        What is known of the clients' completion times.
    code : Code
        Who computes what.
    decoder : Decoder
        The rule for the decoding weights.
    gram : GramModel
        Model of the n_shards shard updates.
    deadline : float
        Seconds.
    clients : ndarray of int, shape (code.n_clients,), optional
        Which of the clients of `timing` the code's are; by default all, in order.
    early_end : bool
        Whether rounds end before the deadline once nothing more could be gained.

    Returns
    -------
    Forecast
        With an infinite residual error if some shard can never arrive and the decoder is to be unbiased.

    Notes
    -----
    A block is settled once one of its members has done all of it (its whole list, which is when it replies), so that a
    round of independent blocks is settled by t with probability ``prod_g (1 - prod_i (1 - reach_i(t)))``. With
    F its distribution function, the mean round time is ``T - integral of F from 0 to T``.
    """
    chosen = np.arange(code.n_clients) if clients is None else clients
    work = work_of(code)
    n_clients = timing.reach(deadline, 1).shape[0]
    asked = np.zeros(n_clients, dtype=np.intp)
    asked[chosen] = work
    partial = isinstance(code, WorkLists)
    progress = timing.partial_reach(deadline, asked) if partial else timing.reach(deadline, int(work.max()))
    reach = progress[chosen]
    model = arrivals_by_deadline(code, reach)
    counted = reach[:, 1] if partial else reach[np.arange(work.size), work]
    arrivals = float(counted.sum())
    # Arrivals of whole blocks are bounded away from never, so the decoder itself would not notice.
    if decoder.unbiased and not partial and not _all_may_arrive(code, counted > 0.0):
        return Forecast(RoundForecast(deadline, arrivals, np.inf), None)
    try:
        calibrated = decoder.calibrate(code, model, gram)
    except NoUnbiasedDecoderError:
        return Forecast(RoundForecast(deadline, arrivals, np.inf), None)
    error = calibrated.residual_error
    if error is None:
        error = analyse(calibrated, model, gram, rng=np.random.default_rng(0), draws=200).residual_error
    seconds = deadline
    if early_end:
        instants = deadline * (np.arange(_INSTANTS) + 0.5) / _INSTANTS
        settled = [_settled_by(timing, calibrated, chosen, asked, instant) for instant in instants]
        seconds = deadline * (1.0 - float(np.mean(settled)))
    return Forecast(RoundForecast(seconds, arrivals, error), calibrated)


def _all_may_arrive(code: Code, may_come: NDArray[np.bool_]) -> bool:
    """Return whether every shard has a holder of those that may come."""
    covered = np.zeros(code.n_shards, dtype=bool)
    for client in np.flatnonzero(may_come):
        covered[code.shards_of(int(client))] = True
    return bool(covered.all())


def _settled_by(
    timing: Timing, decoder: CalibratedDecoder, clients: NDArray[np.intp], asked: NDArray[np.intp], instant: float
) -> float:
    """Return the probability that the round may end by this instant: settled, or everyone has answered or is gone.

    The network reports a client that does not answer after ``loss_detection`` seconds, if the timing knows of any. With
    c that a client has done its work and g that it is reported gone, a round of independent blocks that is not settled
    has everyone's answer with probability ``prod (c + g) - prod over blocks of (prod (c + g) - prod g)``.
    """
    done = 1.0 - timing.straggle_prob(instant, asked)[clients]
    gone = np.zeros_like(done)
    if instant >= getattr(timing, "loss_detection", np.inf):
        gone = np.minimum(timing.straggle_prob(np.inf, asked)[clients], 1.0 - done)
    code = decoder.code
    if not decoder.ends_early:
        return float(np.prod(done + gone))
    block = _blocks_of_clients(code)
    if block is None:
        draws = np.random.default_rng(0).random((_DRAWS, code.n_clients))
        settled = [decoder.settled(draw < done) or bool((draw < done + gone).all()) for draw in draws]
        return float(np.mean(settled))
    n_blocks = int(block.max()) + 1
    missing, absent, answered = np.ones(n_blocks), np.ones(n_blocks), np.ones(n_blocks)
    np.multiply.at(missing, block, 1.0 - done)
    np.multiply.at(absent, block, gone)
    np.multiply.at(answered, block, done + gone)
    return float(np.prod(1.0 - missing) + np.prod(answered) - np.prod(answered - absent))


def _blocks_of_clients(code: Code) -> NDArray[np.intp] | None:
    """Return the block that each client can settle by itself, or None if it is not so simple."""
    if code.blocks is not None:
        return code.blocks.of_client
    if not isinstance(code, WorkLists):
        return None
    sets = [tuple(np.sort(code.shards_of(client))) for client in range(code.n_clients)]
    distinct = {shards: index for index, shards in enumerate(dict.fromkeys(sets))}
    if sum(len(shards) for shards in distinct) == code.n_shards:
        return np.array([distinct[shards] for shards in sets], dtype=np.intp)
    # Lists that end before their block does: the round is settled for certain once all clients are done.
    return np.arange(code.n_clients)
