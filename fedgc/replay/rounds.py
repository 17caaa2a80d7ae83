"""The rounds of a method on a fleet whose probabilities are known: what came, when, and how it is weighed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedgc.assignment import fractional_repetition_blocks
from fedgc.codes import Code, over_shards
from fedgc.coherence import CoherenceEstimate, KnownCoherence
from fedgc.decoders import CalibratedDecoder, Decoder
from fedgc.forecast import work_of
from fedgc.memory import units_of
from fedgc.replay.method import NO_DEADLINE, Method
from fedgc.round.sizes import shard_gram
from fedgc.simulation.play import Draws, PlayedRounds, play_rounds
from fedgc.validation import check_vector

Vector = NDArray[np.float64]
Parts = NDArray[np.float32]

#: Change of the coherence below which a decoder is not calibrated anew: it costs variance alone, and less than a
#: thousandth of it.
_SAME = 0.005


@dataclass(eq=False)
class MethodRounds:
    """What came of each round of a method, and the weights that its decoder gives.

    Attributes
    ----------
    code : Code
        Who computed what.
    decoder : Decoder
        The decoder.
    straggle_prob : ndarray, shape (n_clients,)
        The probability of each client to miss the deadline, with which it is calibrated.
    sizes : ndarray, shape (n_shards,)
        Numbers of examples.
    played : PlayedRounds
        The rounds.
    unit_of_shard : ndarray of int, shape (n_shards,)
        Shards that every coded update weighs alike are one unit.
    unit_shares : ndarray, shape (n_units,)
        Part of all examples that is in each unit.
    """

    code: Code
    decoder: Decoder
    straggle_prob: Vector
    sizes: Vector
    played: PlayedRounds
    calibrated: CalibratedDecoder
    coherence: CoherenceEstimate

    def __post_init__(self) -> None:
        """Find the units, and which of them each coded update brings."""
        self.unit_of_shard: NDArray[np.intp] = units_of(self.calibrated.code)
        self._first = np.unique(self.unit_of_shard, return_index=True)[1]
        self._brings = self.calibrated.code.sparse_matrix[:, self._first].toarray() != 0.0
        self.unit_shares: Vector = np.bincount(self.unit_of_shard, self.sizes) / self.sizes.sum()

    @property
    def n_rounds(self) -> int:
        """Number of rounds."""
        return self.played.seconds.size

    @property
    def single_units(self) -> bool:
        """Whether every coded update is about one unit, so that what it brings is known by itself."""
        return bool((self._brings.sum(axis=1) <= 1).all())

    def recovered(self, number: int) -> NDArray[np.bool_]:
        """Return which units came in a round, (n_units,)."""
        came: NDArray[np.bool_] = self._brings[self.played.arrived[number]].any(axis=0)
        return came

    def by_unit(self, of_shard: Parts) -> Parts:
        """Return the sums over the shards of each unit, (n_units, ...)."""
        if self.unit_shares.size == self.unit_of_shard.size:
            return of_shard[np.argsort(self.unit_of_shard)]
        result = np.zeros((self.unit_shares.size, *of_shard.shape[1:]), dtype=of_shard.dtype)
        np.add.at(result, self.unit_of_shard, of_shard)
        return result

    def unit_values(self, of_shard: Parts) -> Parts:
        """Return what all shards of a unit share, (n_units,), from (n_shards,)."""
        return of_shard[self._first]

    def coverage(self, number: int, coherence: CoherenceEstimate) -> Vector:
        """Return how often each shard counts in a round, decoded with what is known of the coherence by then."""
        if isinstance(coherence, KnownCoherence):
            return self.played.coverage[number]
        if abs(_share(coherence) - _share(self.coherence)) > _SAME:
            gram = shard_gram(coherence, self.sizes, self.code)
            self.calibrated = self.decoder.calibrate(self.code, self.straggle_prob, gram)
            self.coherence = coherence
        return self.calibrated.decode(self.played.arrived[number]).coverage


def known_rounds(
    method: Method, draws: Draws, shard_examples: ArrayLike, n_rounds: int, *, seed: int = 0
) -> MethodRounds:
    """Play a method's rounds on a fleet whose straggle probabilities are known.

    Parameters
    ----------
    method : Method
        The method.
    draws : Draws
        The fleet's draws, to be shared by the methods that are compared.
    shard_examples : array_like of int, shape (n_shards,)
        Number of examples of each shard; at least as many shards as clients.
    n_rounds : int
        Number of rounds.
    seed : int
        Seed of random codes.

    Raises
    ------
    ValueError
        If there are fewer shards than clients, or a number is out of range.

    Notes
    -----
    These are the rounds of :class:`fedgc.strategies.GradientCoding` with ``timing=fleet`` and the same code, to the
    last digits (tests/test_replay.py).

    Examples
    --------
    >>> from fedgc.decoders import DECODERS
    >>> from fedgc.fleets import build_fleet
    >>> from fedgc.simulation.play import RoundDraws
    >>> fleet = build_fleet({"preset": "paper", "clients": 4}, seed=1)
    >>> method = Method(None, DECODERS["optimal-unbiased"](), deadline=1.5, coherence=0.0)
    >>> rounds = known_rounds(method, RoundDraws(fleet), [5, 5, 5, 5], 3)
    >>> rounds.unit_of_shard.tolist(), rounds.played.coverage.shape
    ([0, 0, 1, 1], (3, 4))
    """
    fleet = draws.fleet
    sizes = check_vector("shard_examples", shard_examples, length=np.size(np.asarray(shard_examples)), low=0.0)
    n_clients, n_shards = fleet.n_clients, sizes.size
    if n_shards < n_clients:
        raise ValueError(f"shard_examples must be of at least as many shards as clients, {n_clients}; got {n_shards}")
    deadline = NO_DEADLINE if method.deadline is None else method.deadline

    def built(prob: Vector) -> Code:
        if method.code is None:
            return fractional_repetition_blocks(prob, n_shards, method.load)
        rng = np.random.default_rng([seed, n_clients])
        return over_shards(method.code(prob, method.load, rng), n_shards)

    # How much each client has to do may depend on the probabilities only where coefficients happen to be zero.
    work = work_of(built(np.full(n_clients, 0.5)))
    prob = np.clip(fleet.straggle_prob(deadline, np.maximum(work, 1)), 0.0, 1.0 - 1e-12)
    code = built(prob)
    coherence = method.first_coherence
    calibrated = method.decoder.calibrate(code, prob, shard_gram(coherence, sizes, code))
    played = play_rounds(draws, calibrated, deadline, n_rounds, seed=seed)
    return MethodRounds(code, method.decoder, prob, sizes, played, calibrated, coherence)


def _share(coherence: CoherenceEstimate) -> float:
    return coherence.overlap / coherence.energy
