"""Forecast: how long the rounds of a plan take, how much arrives, and how far off the decoded update will be."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedgc.analysis import analyse
from fedgc.arrivals import ArrivalModel, IndependentArrivals, ProgressArrivals
from fedgc.codes import Code, WorkLists
from fedgc.deadline.base import RoundForecast, Timing
from fedgc.decoders import CalibratedDecoder, Decoder
from fedgc.errors import NoUnbiasedDecoderError
from fedgc.forecast_presence import Presence, There, error_ratio, matters, weigh_by_rounds
from fedgc.gram import GramModel

Vector = NDArray[np.float64]

#: A client this likely to miss is as good as certain to; IndependentArrivals takes no certainty.
_LARGEST_MISS = 1.0 - 1e-12
#: Instants before the deadline at which the chance of an early end is worked out.
_INSTANTS = 32
#: Chance of an end in the first quarter of the time that is too small to look closer, and how often that may be done.
_HARDLY, _LEVELS = 0.02, 12
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
    F its distribution function, the mean round time is ``T - integral of F from 0 to T``. Where clients come and go in
    virtual time (`timing` has a `presence`), this is said of rounds as they follow each other, not of a random instant:
    rounds that end early are more frequent while more clients are there.
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
        never = timing.straggle_prob(np.inf, asked)[chosen]
        loss_detection = float(getattr(timing, "loss_detection", np.inf))
        block = _blocks_of_clients(code)

        def done_by(instants: Vector) -> tuple[Vector, NDArray[np.bool_]]:
            done = 1.0 - np.array([timing.straggle_prob(instant, asked)[chosen] for instant in instants])
            return done, instants >= loss_detection

        def over_by(instants: Vector) -> Vector:
            done, reported = done_by(instants)
            gone = np.where(reported[:, None], np.minimum(never, 1.0 - done), 0.0)
            return _over_by(calibrated, block, done, gone)

        instants, widths = _grid(over_by, deadline)
        done, reported = done_by(instants)
        seconds = max(float(widths @ (1.0 - over_by(instants))), 1e-9 * deadline)
        presence: Presence | None = getattr(timing, "presence", None)
        if presence is not None and matters(presence, chosen) and (block is not None or not calibrated.ends_early):
            prob = presence.prob[chosen]

            def mean_seconds(there: There) -> Vector:
                done_there = np.minimum(done / prob, 1.0) * there[:, None, :]
                lost = 1.0 - np.minimum((1.0 - never) / prob, 1.0) * there[:, None, :]
                gone_there = np.where(reported[:, None], np.minimum(lost, 1.0 - done_there), 0.0)
                over = _over_by(calibrated, block, done_there, gone_there)
                return np.maximum((1.0 - over) @ widths, 1e-9 * deadline)

            rounds = weigh_by_rounds(presence, chosen, mean_seconds)
            seconds = rounds.seconds
            error *= error_ratio(calibrated, gram, rounds, reach=reach, prob=prob)
            arrivals = float((counted / prob) @ (rounds.weight @ rounds.there) / rounds.weight.size)
    return Forecast(RoundForecast(seconds, arrivals, error), calibrated)


def _all_may_arrive(code: Code, may_come: NDArray[np.bool_]) -> bool:
    """Return whether every shard has a holder of those that may come."""
    covered = np.zeros(code.n_shards, dtype=bool)
    for client in np.flatnonzero(may_come):
        covered[code.shards_of(int(client))] = True
    return bool(covered.all())


def _grid(over_by: Callable[[Vector], Vector], deadline: float) -> tuple[Vector, Vector]:
    """Return instants up to the deadline, and the seconds that each stands for: finer where rounds may end early on.

    The first quarter of the time is divided anew as long as rounds may be over by its end, so that a deadline far
    beyond what the clients need does not hide when they are done.
    """
    instants, widths, end = [np.zeros(0)], [np.zeros(0)], deadline
    for level in range(_LEVELS):
        middle = end * (np.arange(_INSTANTS) + 0.5) / _INSTANTS
        last = level == _LEVELS - 1 or float(over_by(np.array([end / 4.0]))[0]) < _HARDLY
        kept = middle if last else middle[_INSTANTS // 4 :]
        instants.append(kept)
        widths.append(np.full(kept.size, end / _INSTANTS))
        if last:
            break
        end /= 4.0
    return np.concatenate(instants[::-1]), np.concatenate(widths[::-1])


def _over_by(decoder: CalibratedDecoder, block: NDArray[np.intp] | None, done: Vector, gone: Vector) -> Vector:
    """Return the probability that the round may end: it is settled, or everyone has answered or is reported gone.

    Parameters
    ----------
    decoder : CalibratedDecoder
        The decoder.
    block : ndarray of int, shape (n_clients,), or None
        See :func:`_blocks_of_clients`.
    done, gone : ndarray, shape (..., n_clients)
        Probability that each client has done its work by then (c below), and that it is reported gone (g).

    Notes
    -----
    The network reports a client that has gone after ``loss_detection`` seconds, if the timing knows of any. A round of
    independent blocks that is not settled has everyone's answer with probability
    ``prod (c + g) - prod over blocks of (prod (c + g) - prod g)``.
    """
    if not decoder.ends_early:
        return np.asarray(np.prod(done + gone, axis=-1))
    if block is None:
        draws = np.random.default_rng(0).random((_DRAWS, done.shape[-1]))
        flat_done, flat_gone = done.reshape(-1, done.shape[-1]), gone.reshape(-1, done.shape[-1])
        over = [
            np.mean([decoder.settled(draw < c) or bool((draw < c + g).all()) for draw in draws])
            for c, g in zip(flat_done, flat_gone, strict=True)
        ]
        return np.array(over).reshape(done.shape[:-1])
    order = np.argsort(block, kind="stable")
    starts = np.flatnonzero(np.diff(block[order], prepend=-1))

    def of_blocks(values: Vector) -> Vector:
        return np.multiply.reduceat(values[..., order], starts, axis=-1)

    missing, answered, absent = of_blocks(1.0 - done), of_blocks(done + gone), of_blocks(gone)
    settled = np.prod(1.0 - missing, axis=-1)
    return np.asarray(settled + np.prod(answered, axis=-1) - np.prod(answered - absent, axis=-1))


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
