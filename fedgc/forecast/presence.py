"""Forecast where clients come and go: rounds that end early are more frequent while more clients are there.

A forecast for a random instant is then not one for a random round: in a day, hours of quick rounds hold more of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedgc.deadline import Presence
from fedgc.decoders import CalibratedDecoder
from fedgc.gram import GramModel

Vector = NDArray[np.float64]
There = NDArray[np.bool_]

#: Random instants, and how many cycles of coming and going they are spread over.
_INSTANTS, _CYCLES = 6000, 3000.0
#: At most so many of the shortest cycles: all of them are drawn.
_MOST_CYCLES = 1e5
#: Instants at once, so that temporaries stay below some tens of megabytes.
_AT_ONCE = 200
#: Random rounds whose decoding is compared.
_DRAWS = 1000
#: In larger fleets a round is an average over so many clients that it is much like any other.
MOST_CLIENTS = 2000


class Rounds(NamedTuple):
    """Rounds as they come, one after another.

    Attributes
    ----------
    seconds : float
        Mean seconds of a round.
    there : ndarray of bool, shape (n, n_clients)
        Who is there at random instants.
    weight : ndarray, shape (n,)
        How many of the rounds begin like that, relative to the mean.
    """

    seconds: float
    there: There
    weight: Vector


def matters(presence: Presence, clients: NDArray[np.intp]) -> bool:
    """Return whether some of these clients come and go in virtual time."""
    return clients.size <= MOST_CLIENTS and bool((presence.prob[clients] < 1.0).any())


def weigh_by_rounds(presence: Presence, clients: NDArray[np.intp], mean_seconds: Callable[[There], Vector]) -> Rounds:
    """Find out how rounds begin.

    Parameters
    ----------
    presence : Presence
        Who is there when.
    clients : ndarray of int, shape (n_clients,)
        The clients that take part.
    mean_seconds : callable
        From who is there at the start of rounds, (n, n_clients), to their mean seconds tau, (n,).

    Notes
    -----
    While who is there stays the same, rounds begin 1 / tau times per second: a state s that holds for a share pi of
    the time is met by a share ``(pi / tau(s)) / E[1 / tau]`` of the rounds, whose mean length is ``1 / E[1 / tau]``.
    That is exact for states that outlast many rounds, and an approximation where they change within a round or two.
    """
    horizon = min(_CYCLES * presence.cycle, _MOST_CYCLES * presence.shortest_cycle)
    instants = np.random.default_rng(0).random(_INSTANTS) * horizon
    there = presence.at(instants)[:, clients]
    seconds = np.concatenate([mean_seconds(part) for part in np.array_split(there, -(-_INSTANTS // _AT_ONCE))])
    rate = 1.0 / np.maximum(seconds, 1e-12)
    return Rounds(float(1.0 / rate.mean()), there, rate / rate.mean())


def fail_together(presence: Presence, clients: NDArray[np.intp]) -> bool:
    """Return whether some of these clients share a site's outages."""
    site = presence.site[clients]
    return bool((np.unique(site[site >= 0], return_counts=True)[1] > 1).any())


def error_of_rounds(
    decoder: CalibratedDecoder, gram: GramModel, rounds: Rounds, *, reach: Vector, prob: Vector
) -> tuple[float, float]:
    """Return the residual error of a random round, and that at a random instant.

    Parameters
    ----------
    decoder : CalibratedDecoder
        The decoder.
    gram : GramModel
        Model of the shard updates.
    rounds : Rounds
        How rounds begin.
    reach : ndarray, shape (n_clients, max_shards + 1)
        Probability of each client to have done at least k shards by the deadline, at a random instant.
    prob : ndarray, shape (n_clients,)
        Probability of each to be there at a random instant.

    Notes
    -----
    From 1000 random rounds, each of which counts for both means: what they have in common cancels out of their ratio.
    """
    code = decoder.code
    luck = np.random.default_rng(0).random((_DRAWS, code.n_clients))
    given_there = reach / np.maximum(prob, 1e-12)[:, None]
    most = np.array([code.shards_of(client).size for client in range(code.n_clients)])
    rows = [[code.rows_after(client, done) for done in range(size + 1)] for client, size in enumerate(most)]
    errors = np.zeros(_DRAWS)
    for number, (own, u) in enumerate(zip(rounds.there[:_DRAWS], luck, strict=True)):
        arrived = np.zeros(code.n_rows, dtype=np.bool_)
        done = np.minimum((u[:, None] < given_there[:, 1:]).sum(axis=1) * own, most)
        arrived[np.concatenate([sent[k] for sent, k in zip(rows, done, strict=True)])] = True
        errors[number] = gram.error_over_places(decoder.decode(arrived).coverage, code.interchangeable)
    weight = rounds.weight[:_DRAWS]
    return float(weight @ errors / weight.sum()), float(errors.mean())
