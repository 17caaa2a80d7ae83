"""Forecast: how long the rounds of a plan take, how much arrives, and how far off the decoded update will be."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedgc.analysis import analyse
from fedgc.arrivals import ArrivalModel, IndependentArrivals, ProgressArrivals
from fedgc.codes import Code, WorkLists
from fedgc.deadline import RoundForecast, Timing, mean_progress
from fedgc.decoders import CalibratedDecoder, Decoder
from fedgc.errors import NoUnbiasedDecoderError
from fedgc.forecast.end_time import EarlyEnd
from fedgc.forecast.presence import error_of_rounds, fail_together, matters, weigh_by_rounds
from fedgc.gram import GramModel

Vector = NDArray[np.float64]

#: A client this likely to miss is as good as certain to; IndependentArrivals takes no certainty.
_LARGEST_MISS = 1.0 - 1e-12


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
    return code.shards_per_client


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
    When rounds end is told in :class:`fedgc.forecast.end_time.EarlyEnd`. Where clients come and go in virtual time
    (``timing.presence``) the prediction is of rounds as they follow each other, not of a random instant: rounds that
    end early are more frequent while more clients are there. Where clients of a site fail together and updates are
    coherent, so is their error: what they miss in a round adds up. In fleets of more than 2000 clients, and without
    `early_end`, clients count as independent, and the residual error is then a lower bound.
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
    done = float(mean_progress(timing, deadline, asked)[chosen].sum() if partial else counted @ work) / work.size
    # Arrivals of whole blocks are bounded away from never, so the decoder itself would not notice.
    if decoder.unbiased and not partial and not _all_may_arrive(code, counted > 0.0):
        return Forecast(RoundForecast(deadline, arrivals, np.inf, done), None)
    try:
        calibrated = decoder.calibrate(code, model, gram)
    except NoUnbiasedDecoderError:
        return Forecast(RoundForecast(deadline, arrivals, np.inf, done), None)
    error = calibrated.residual_error
    if error is None:
        error = analyse(calibrated, model, gram, rng=np.random.default_rng(0), draws=200).residual_error
    seconds = deadline
    if early_end:
        end = EarlyEnd(timing, calibrated, chosen, asked, deadline)
        seconds = end.mean_seconds
        if timing.presence is not None and end.has_closed_form and matters(timing.presence, chosen):
            prob = timing.presence.prob[chosen]
            rounds = weigh_by_rounds(timing.presence, chosen, lambda there: end.mean_seconds_given(there, prob))
            seconds = rounds.seconds
            seen, at_random = error_of_rounds(calibrated, gram, rounds, reach=reach, prob=prob)
            # `error` takes clients as independent. What those of a site miss together adds up where updates point the
            # same way, and only there: elsewhere the ratio is kept, whose two means share most of their chance.
            together = bool(gram.coherent.any()) and fail_together(timing.presence, chosen)
            error = seen if together else error * (seen / at_random if at_random > 0.0 else 1.0)
            arrivals = float((counted / prob) @ (rounds.weight @ rounds.there) / rounds.weight.size)
    return Forecast(RoundForecast(seconds, arrivals, error, done), calibrated)


def _all_may_arrive(code: Code, may_come: NDArray[np.bool_]) -> bool:
    """Return whether every shard has a holder of those that may come."""
    covered = np.zeros(code.n_shards, dtype=np.bool_)
    covered[code.sparse_matrix.indices[np.repeat(may_come, code.shards_per_client)]] = True
    return bool(covered.all())
