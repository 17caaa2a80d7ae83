"""The rounds of a method on a fleet whose probabilities are known: what came, when, and how it is weighed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedgc.codes import Code
from fedgc.coherence import CoherenceEstimate, KnownCoherence
from fedgc.deadline import WAIT_FOR_EVERYONE, FixedDeadline
from fedgc.decoders import CalibratedDecoder, Decoder
from fedgc.memory import units_of
from fedgc.play import Draws, PlayedRounds, play_rounds
from fedgc.replay.method import Method
from fedgc.round import Planning, RoundState, plan_round
from fedgc.round.sizes import shard_gram
from fedgc.validation import check_vector

Vector = NDArray[np.float64]
Parts = NDArray[np.float32]

#: Change of the coherence below which a decoder is not calibrated anew, which takes longer than the rest of a round. A
#: coherence that is a little off leaves no bias, and losses agree with those of the strategies to 1e-4.
_SAME = 0.001


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
            known: Vector = self.played.coverage[number]
            return known
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
    The plan is the one that :class:`fedgc.strategies.GradientCoding` makes with ``timing=fleet``, and so are the
    rounds, to the last digits (tests/test_replay.py). Its own blocks are then sized by speed: on a fleet on which
    further shards take no time, two clients get all of them. For blocks of equal size, which only the probabilities
    balance, the code is ``CODES["equal-blocks"]``.

    Examples
    --------
    >>> from fedgc.decoders import DECODERS
    >>> from fedgc.fleets import build_fleet
    >>> from fedgc.play import RoundDraws
    >>> fleet = build_fleet({"preset": "paper", "clients": 4}, seed=1)
    >>> from fedgc.schemes import CODES
    >>> method = Method(CODES["equal-blocks"], DECODERS["optimal-unbiased"](), deadline=1.5, coherence=0.0)
    >>> rounds = known_rounds(method, RoundDraws(fleet), [5, 5, 5, 5], 3)
    >>> rounds.unit_of_shard.tolist(), rounds.played.coverage.shape
    ([0, 0, 1, 1], (3, 4))
    """
    sizes = check_vector("shard_examples", shard_examples, length=np.size(np.asarray(shard_examples)), low=0.0)
    n_clients = draws.fleet.n_clients
    if sizes.size < n_clients:
        raise ValueError(f"shard_examples must be of at least as many shards as clients, {n_clients}; got {sizes.size}")
    deadline = WAIT_FOR_EVERYONE if method.deadline is None else method.deadline
    planning = Planning(
        method.load,
        method.decoder,
        deadline=FixedDeadline(deadline),
        rounds=n_rounds,
        seed=seed,
        timing=draws.fleet,
        code=method.code,
    )
    coherence = method.first_coherence
    plan = plan_round(RoundState(sizes, coherence=coherence), range(n_clients), planning)
    # A plan may leave clients out, and number the others in another order.
    clients = np.array(plan.node_ids, dtype=np.intp)
    played = play_rounds(draws, plan.decoder, deadline, n_rounds, clients=clients, seed=seed)
    return MethodRounds(plan.code, method.decoder, plan.straggle_prob, sizes, played, plan.decoder, coherence)


def _share(coherence: CoherenceEstimate) -> float:
    return coherence.overlap / coherence.energy
