"""When rounds end: settled, everyone heard, or the deadline."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fedgc.codes import Code, WorkLists
from fedgc.deadline import Timing, TimingAtOnce
from fedgc.decoders import CalibratedDecoder

Vector = NDArray[np.float64]

#: Instants before the deadline at which the chance of an end is worked out.
_INSTANTS = 32
#: Chance of an end in the first quarter of the time that is too small to look closer, and how often that may be done.
_HARDLY, _LEVELS = 0.02, 12
#: Random rounds for codes without blocks, whose end has no closed form.
_DRAWS = 64
#: A round takes some time, of which times are fractions.
_SHORTEST = 1e-9


class EarlyEnd:
    """The end of rounds of one plan.

    Parameters
    ----------
    timing : Timing
        What is known of the clients' completion times.
    decoder : CalibratedDecoder
        The decoder, ready for the code.
    clients : ndarray of int, shape (code.n_clients,)
        Which of the clients of `timing` the code's are.
    asked : ndarray of int, shape (n_clients,)
        Shards that each client of `timing` is asked for.
    deadline : float
        Seconds.

    Notes
    -----
    A block is settled once one of its members has done all of it (its whole list, which is when it replies), so that a
    round of independent blocks is settled by t with probability ``prod_g (1 - prod_i (1 - reach_i(t)))``. The network
    reports a client that has gone after ``timing.loss_detection`` seconds. With c that a client has done its work and g
    that it is reported, a round that is not settled has everyone's answer with probability
    ``prod (c + g) - prod over blocks of (prod (c + g) - prod g)``. With F the distribution function of the end, the
    mean round time is ``T - integral of F from 0 to T``.
    """

    def __init__(
        self,
        timing: Timing,
        decoder: CalibratedDecoder,
        clients: NDArray[np.intp],
        asked: NDArray[np.intp],
        deadline: float,
    ) -> None:
        self._timing, self._decoder, self._clients, self._deadline = timing, decoder, clients, deadline
        self._asked = asked
        self._block = _blocks_of_clients(decoder.code)
        self._never = self._missing(np.array([np.inf]))[0]
        self._instants, self._widths = self._grid()
        self._done = 1.0 - self._missing(self._instants)

    @property
    def has_closed_form(self) -> bool:
        """Whether the end follows from the clients' probabilities without drawing rounds."""
        return self._block is not None or not self._decoder.ends_early

    @cached_property
    def mean_seconds(self) -> float:
        """Mean seconds of a round."""
        return float(self._seconds(self._done, self._never))

    def mean_seconds_given(self, there: NDArray[np.bool_], prob: Vector) -> Vector:
        """Return the mean seconds of rounds at whose start these clients are there, (n,).

        Parameters
        ----------
        there : ndarray of bool, shape (n, n_clients)
            Who is there.
        prob : ndarray, shape (n_clients,)
            Probability of each to be there at a random instant.
        """
        done = np.minimum(self._done / prob, 1.0) * there[:, None, :]
        never = 1.0 - np.minimum((1.0 - self._never) / prob, 1.0) * there[:, None, :]
        return np.asarray(self._seconds(done, never))

    def _missing(self, instants: Vector) -> Vector:
        """Return the probability of each client not to have done its work by each instant, (n_instants, n_clients)."""
        if isinstance(self._timing, TimingAtOnce):
            return self._timing.straggle_prob_at(instants, self._asked)[:, self._clients]
        return np.array([self._timing.straggle_prob(instant, self._asked)[self._clients] for instant in instants])

    def _seconds(self, done: Vector, never: Vector) -> Vector:
        over = self._over(self._instants, done, never)
        return np.maximum((1.0 - over) @ self._widths, _SHORTEST * self._deadline)

    def _grid(self) -> tuple[Vector, Vector]:
        """Return instants up to the deadline, and the seconds that each stands for: finer where rounds end early on.

        The first quarter of the time is divided anew as long as rounds may be over by its end, so that a deadline far
        beyond what the clients need does not hide when they are done.
        """
        instants, widths, end = [np.zeros(0)], [np.zeros(0)], self._deadline
        for level in range(_LEVELS):
            middle = end * ((np.arange(_INSTANTS) + 0.5) / _INSTANTS)
            quarter = np.array([end / 4.0])
            hardly = float(self._over(quarter, 1.0 - self._missing(quarter), self._never)[0]) < _HARDLY
            last = hardly or level == _LEVELS - 1
            kept = middle if last else middle[_INSTANTS // 4 :]
            instants.append(kept)
            widths.append(np.full(kept.size, end / _INSTANTS))
            if last:
                break
            end /= 4.0
        return np.concatenate(instants[::-1]), np.concatenate(widths[::-1])

    def _over(self, instants: Vector, done: Vector, never: Vector) -> Vector:
        """Return the probability that the round is over by each instant, (..., n_instants).

        Parameters
        ----------
        instants : ndarray, shape (n_instants,)
            Seconds.
        done : ndarray, shape (..., n_instants, n_clients)
            Probability that each client has done its work by then.
        never : ndarray, shape (n_clients,) or (..., 1, n_clients)
            Probability that it never will.
        """
        reported = instants >= self._timing.loss_detection
        gone = np.where(reported[:, None], np.minimum(never, 1.0 - done), 0.0)
        decoder, block = self._decoder, self._block
        if not decoder.ends_early:
            return np.asarray(np.prod(done + gone, axis=-1))
        if block is None:
            draws = np.random.default_rng(0).random((_DRAWS, done.shape[-1]))
            chances = zip(done.reshape(-1, done.shape[-1]), gone.reshape(-1, done.shape[-1]), strict=True)
            over = [np.mean([decoder.settled(d < c) or bool((d < c + g).all()) for d in draws]) for c, g in chances]
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
