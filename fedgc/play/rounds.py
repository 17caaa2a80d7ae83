"""Play rounds without messages: the draws of the runtime, its deadlines and its decoding, and nothing else."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedgc.codes import WorkLists, redraw_places
from fedgc.decoders import CalibratedDecoder
from fedgc.fleets.work import answers
from fedgc.play.draws import Draws
from fedgc.validation import check_indices, check_integer, check_positive

Vector = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class PlayedRounds:
    """What came of each round.

    Attributes
    ----------
    coverage : ndarray, shape (n_rounds, n_shards)
        How often each shard's update counts in the decoded one.
    seconds : ndarray, shape (n_rounds,)
        Seconds from sending to decoding.
    arrived : ndarray of bool, shape (n_rounds, n_rows)
        The coded updates that came, by row of the encoding matrix.
    end : float
        Virtual seconds at which the last round ended.
    met : str
        Hash of what all clients of the fleet drew in these rounds, as the rounds used it.
    """

    coverage: Vector
    seconds: Vector
    arrived: NDArray[np.bool_]
    end: float
    met: str


class _Replies(NamedTuple):
    """What the clients of a round would send if it lasted for ever.

    `instant` is when each client's answer comes, or the network's word that it has gone; `answered` tells which. `done`
    is how many shards are in it.
    """

    instant: Vector
    answered: NDArray[np.bool_]
    done: NDArray[np.intp]


def play_rounds(
    draws: Draws,
    decoder: CalibratedDecoder,
    deadline: float,
    n_rounds: int,
    *,
    clients: NDArray[np.intp] | None = None,
    unit: float = 1.0,
    early_end: bool = True,
    first_round: int = 1,
    start: float = 0.0,
    seed: int = 0,
) -> PlayedRounds:
    """Play rounds of one plan on a fleet, as the virtual-time runtime would with the same plan in every round.

    Parameters
    ----------
    draws : Draws
        The fleet's draws, to be shared by the runs that are compared.
    decoder : CalibratedDecoder
        The decoder, ready for the plan's code. Work lists count as far as they are done, whole updates if all is done.
    deadline : float
        Seconds from sending to decoding.
    n_rounds : int
        Number of rounds.
    clients : ndarray of int, shape (code.n_clients,), optional
        Which of the fleet's clients the code's are; by default all, in order. Others are not asked.
    unit : float
        Shards that one column of the code stands for, for codes without work lists.
    early_end : bool
        Whether a round ends before its deadline once the decoder is settled.
    first_round : int
        Number of the first round, which keys the draws.
    start : float
        Virtual seconds at which it begins; sessions and outages depend on it.
    seed : int
        Seed of the places that interchangeable shards change to.

    Raises
    ------
    ValueError
        If a number is out of range, or `clients` does not fit the code.

    Notes
    -----
    A round ends when the decoder is settled, when every client has answered or is known to have gone, or at the
    deadline; the next one begins at that instant. What was unfinished is dropped, as on a grid without a backlog. That
    the rounds are those of :class:`fedgc.strategies.GradientCoding` on :func:`fedgc.simulation.run_virtual`, to the
    last digits, is asserted in tests/test_plan_check.py; this takes a hundredth of the time. The plan is not made
    anew when clients leave for good: they are asked on in vain.

    Whether a decoder is settled is asked of few sets of arrivals only, since with more arrivals it stays settled.

    Examples
    --------
    >>> from fedgc.codes import FractionalRepetition
    >>> from fedgc.decoders import OptimalUnbiasedDecoder
    >>> from fedgc.fleets import LogNormalFleet
    >>> from fedgc.gram import GramModel
    >>> from fedgc.play import RoundDraws
    >>> fleet = LogNormalFleet(3, seed=1, sigma=0.0, median=[1.0, 2.0, 9.0])
    >>> code = FractionalRepetition([0, 1, 0], [0, 1])
    >>> decoder = OptimalUnbiasedDecoder().calibrate(code, [0.0, 0.0, 0.5], GramModel.uniform(2, 0.0))
    >>> played = play_rounds(RoundDraws(fleet), decoder, 3.0, 2)
    >>> played.seconds.tolist(), played.coverage.tolist(), played.end
    ([2.0, 2.0], [[1.0, 1.0], [1.0, 1.0]], 4.0)
    """
    fleet, code = draws.fleet, decoder.code
    check_positive("deadline", deadline)
    check_positive("unit", unit)
    check_integer("n_rounds", n_rounds, low=1)
    check_integer("first_round", first_round, low=0)
    asked = np.arange(code.n_clients) if clients is None else check_indices("clients", clients)
    if asked.shape != (code.n_clients,) or asked.min() < 0 or asked.max() >= fleet.n_clients:
        raise ValueError(
            f"clients must be {code.n_clients} indices from 0 to {fleet.n_clients - 1}; got {asked.tolist()}"
        )
    if isinstance(code, WorkLists) and unit != 1.0:
        raise ValueError(f"unit must be 1 for work lists; got {unit}")
    size = np.array([code.shards_of(client).size for client in range(code.n_clients)], dtype=np.float64)
    work = size * unit
    # By shards done; a column of a code without work lists may be several.
    sent = [
        [code.rows_after(client, int(done / unit + 1e-9)) for done in range(int(np.ceil(most)) + 1)]
        for client, most in enumerate(work)
    ]
    idle_seconds = fleet.parameters["overhead"][asked]
    budget = deadline if isinstance(code, WorkLists) else np.inf
    arrived = np.zeros((n_rounds, code.n_rows), dtype=np.bool_)
    coverage, seconds = np.zeros((n_rounds, code.n_shards)), np.zeros(n_rounds)
    decoded: dict[bytes, Vector] = {}
    now, met = float(start), hashlib.sha256()
    for number in range(n_rounds):
        of_all = draws.of_round(first_round + number, now)
        met.update(of_all.T.tobytes())
        drawn = of_all[:, asked]
        # A client whose coefficients are all zero is sent a message without work.
        seconds_to_reply, done = answers(drawn, work, idle_seconds, budget)
        replies = _replies(seconds_to_reply, done, now=now, loss_detection=fleet.loss_detection)
        came, end = _until_end(replies, decoder, sent, now + deadline, early_end)
        key = np.packbits(came).tobytes()
        if key not in decoded:
            decoded[key] = decoder.decode(came).coverage
        arrived[number], seconds[number] = came, end - now
        coverage[number, redraw_places(code, seed=seed, server_round=first_round + number)] = decoded[key]
        now = end
    return PlayedRounds(coverage, seconds, arrived, now, met.hexdigest())


def _replies(seconds: Vector, done: Vector, *, now: float, loss_detection: float) -> _Replies:
    """Return when the server hears of each client, whose answers come after so many seconds, and with how much."""
    answered = np.isfinite(seconds)
    return _Replies(now + np.where(answered, seconds, loss_detection), answered, np.ceil(done).astype(np.intp))


def _until_end(
    replies: _Replies, decoder: CalibratedDecoder, sent: list[list[NDArray[np.intp]]], until: float, early_end: bool
) -> tuple[NDArray[np.bool_], float]:
    """Return the rows that have come when the round ends, and the instant of its end."""

    def rows_by(instant: float) -> NDArray[np.bool_]:
        came = np.zeros(decoder.code.n_rows, dtype=np.bool_)
        here = np.flatnonzero(replies.answered & (replies.instant <= instant))
        if here.size:
            came[np.concatenate([sent[client][replies.done[client]] for client in here])] = True
        return came

    instants = np.unique(replies.instant[replies.instant <= until])
    end = float(instants[-1]) if (replies.instant <= until).all() else until
    came = rows_by(until)
    if not (early_end and decoder.ends_early and instants.size and decoder.settled(came)):
        return came, end
    low, high = 0, instants.size - 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if decoder.settled(rows_by(float(instants[middle]))) else (middle + 1, high)
    return rows_by(float(instants[low])), float(instants[low])
