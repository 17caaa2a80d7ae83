"""Probabilities for many clients and loads at once, in chunks of bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedgc.fleets.parameters import Vector
from fedgc.fleets.presence import STAY_PARAMETERS, stay_prob
from fedgc.fleets.sessions import session_ends
from fedgc.fleets.stays import done_and_there_prob

#: Cells per chunk: what fits into a processor's cache is faster than one large array.
_CHUNK = 1 << 15

#: Pieces of the integral with less probability than this are left out.
_NEGLIGIBLE = 1e-14


def each_chunk(n_clients: int, n_loads: int) -> Iterator[slice]:
    """Yield slices of clients that hold some ten thousand cells each."""
    step = max(1, _CHUNK // n_loads)
    for start in range(0, n_clients, step):
        yield slice(start, min(start + step, n_clients))


@dataclass(frozen=True, eq=False)
class WorkModel:
    """The distribution of the work of a fleet.

    Attributes
    ----------
    names : tuple of str
        Parameters that the functions need.
    quantile : callable
        From parameters and u to the u-quantiles of the seconds before the first shard and per shard.
    within : callable
        From parameters, seconds and load to the probability that the work is done within these seconds.
    kinks : callable
        From parameters to the values of u, in increasing order, at which the quantiles are not smooth.
    """

    names: tuple[str, ...]
    quantile: Callable[[Mapping[str, Any], Any], tuple[Any, Any]]
    within: Callable[[Mapping[str, Any], Vector, Vector], Vector]
    kinks: Callable[[Mapping[str, Any]], list[Vector]]


@dataclass(frozen=True, eq=False)
class Cells:
    """Pairs of a client and a load, under one factor on the work time.

    Attributes
    ----------
    rows : slice
        Which clients.
    own : mapping of str to ndarray, shape (n_rows, 1)
        Their parameters.
    factor : ndarray, shape (n_rows, 1)
        Factor on the work time.
    loads : ndarray, shape (n_rows, n_loads)
        Number of shards, at least 0; without shards there is no work, only the overhead.
    deadline : float
        Seconds.
    may_end : bool
        Whether a client may go while it works.
    """

    rows: slice
    own: Mapping[str, Vector]
    factor: Vector
    loads: Vector
    deadline: float
    may_end: bool

    def in_time(self, model: WorkModel) -> Vector:
        """Return P(done by the deadline and there until then) of each cell, given that the client is there at first."""
        training = self.loads > 0.0
        loads = np.where(training, self.loads, 1.0)
        done = _done_within(model, self.own, self.deadline, self.factor, loads)
        idle = np.where(self.own["overhead"] <= self.deadline, 1.0, 0.0)
        if not self.may_end:
            return np.where(training, done, idle)
        idle = idle * stay_prob(self.own)(self.own["overhead"])
        ends = [_done_within(model, self.own, end, self.factor, loads) for end in session_ends(self.own)]
        inner = np.sort([ends[0], *(np.broadcast_to(u, done.shape) for u in model.kinks(self.own))], axis=0)
        last = np.minimum(done, ends[1])
        prob = np.zeros(done.shape)
        for low, high in pairwise([np.zeros(done.shape), *np.minimum(inner, last), last]):
            piece = high - low > _NEGLIGIBLE
            if piece.any():
                prob[piece] += done_and_there_prob(self._stay_prob_at(model, loads, piece), low[piece], high[piece])
        return np.where(training, prob, idle)

    def _stay_prob_at(self, model: WorkModel, loads: Vector, chosen: NDArray[np.bool_]) -> Callable[[Vector], Vector]:
        names = (*model.names, *STAY_PARAMETERS, "overhead")
        own = {name: np.broadcast_to(self.own[name], chosen.shape)[chosen] for name in names}
        factor, load = np.broadcast_to(self.factor, chosen.shape)[chosen], loads[chosen]

        stays = stay_prob(own)

        def at(u: Vector) -> Vector:
            with np.errstate(over="ignore"):
                fixed, per_shard = model.quantile(own, u)
                seconds = own["overhead"] + factor * (fixed + load * per_shard)
            return stays(seconds)

        return at


def _done_within(
    model: WorkModel, own: Mapping[str, Any], seconds: Vector | float, factor: Vector, loads: Vector
) -> Vector:
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        # A factor of zero leaves no work: any time that is left is enough.
        spare = np.where(factor > 0.0, (seconds - own["overhead"]) / factor, np.inf)
    return np.where(seconds >= own["overhead"], model.within(own, np.maximum(spare, 0.0), loads), 0.0)
