"""What one round hands to the next, what is decided before it, what comes of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from fedgc.arrivals import ArrivalModel, DomainArrivals, IndependentArrivals, ProgressArrivals
from fedgc.assignment import Assignment
from fedgc.codes import Code, redraw_places
from fedgc.coherence import CoherenceEstimate, KnownCoherence
from fedgc.completion_times import CompletionTimes, Overheads, TimeObservation
from fedgc.decoders import CalibratedDecoder, Decoding
from fedgc.decoders.optimal_quantised import errors_with_rounding
from fedgc.gram import GramModel
from fedgc.memory import UpdateMemory
from fedgc.noise import NoiseSensitivity
from fedgc.reliability import OutagePosterior, ReliabilityPosterior
from fedgc.round.rounding import RoundingByBits, RoundingEstimate
from fedgc.round.sizes import unit_sizes
from fedgc.updates import Arrays, Update

#: Deadlines and blocks are thought over after each of the first rounds, and then every so many rounds: what is known of
#: the clients changes slowly by then, and thinking it over takes a second for large fleets.
_EARLY_ROUNDS, _EVERY = 3, 5


def time_to_reconsider(rounds: int) -> bool:
    """Return whether deadline and blocks are thought over after so many rounds, whatever has come.

    Examples
    --------
    >>> [rounds for rounds in range(16) if time_to_reconsider(rounds)]
    [0, 1, 2, 3, 5, 10, 15]
    """
    return rounds <= _EARLY_ROUNDS or rounds % _EVERY == 0


@dataclass(frozen=True, eq=False)
class RoundState:
    """Everything that one round hands to the next.

    Attributes
    ----------
    shard_examples : ndarray, shape (n_shards,)
        Number of examples of each shard; NaN where not known yet.
    claims : mapping of int to (mapping of int to float)
        What the last holders of each shard have said of its number of examples, by shard and node id, the newest last.
    reliability : ReliabilityPosterior
        Who arrived in the past; of clients in a failure domain, in rounds in which it was up.
    coherence : CoherenceEstimate
        How large and how alike the updates were.
    plan : RoundPlan or None
        The last plan, whose blocks are kept while they serve.
    completion_times : CompletionTimes
        How long clients took.
    overheads : Overheads
        How long their replies took beside the work.
    new_times : tuple of TimeObservation
        What has been seen since the completion times were last fitted, oldest first.
    rounds : int
        Number of rounds so far.
    memory : UpdateMemory or None
        What each part of the data last contributed, if differences from it are to be decoded.
    noise : NoiseSensitivity or None
        What residual error costs at the training's step size, if the rule for the deadline wants to know.
    fruitless : float
        The longest deadline by which nothing came, in seconds; it fades with every round in which something does.
    surprised : bool
        Whether nothing came in the last round or, with a rule for the deadline that learns of `noise`, the first
        clients at all, or far more or far fewer than had been expected.
    outages : OutagePosterior or None
        How often each failure domain is down, if any are named.
    rounding : RoundingEstimate or None
        How much clients add by rounding, if they do and the coherence is given.
    rounding_by_bits : RoundingByBits or None
        The same for each number of bits, if clients differ in theirs; updates are then known without it.
    """

    shard_examples: NDArray[np.float64]
    reliability: ReliabilityPosterior = field(default_factory=ReliabilityPosterior)
    coherence: CoherenceEstimate = field(default_factory=CoherenceEstimate)
    plan: RoundPlan | None = None
    completion_times: CompletionTimes = field(default_factory=CompletionTimes)
    overheads: Overheads = field(default_factory=Overheads)
    new_times: tuple[TimeObservation, ...] = ()
    rounds: int = 0
    memory: UpdateMemory | None = None
    claims: Mapping[int, Mapping[int, float]] = field(default_factory=dict)
    noise: NoiseSensitivity | None = None
    fruitless: float = 0.0
    surprised: bool = False
    outages: OutagePosterior | None = None
    rounding: RoundingEstimate | None = None
    rounding_by_bits: RoundingByBits | None = None

    @property
    def variance_factor(self) -> float | None:
        """Of the rounding that a Gram model has to be told; None if there is none, or it is learnt with the updates."""
        if self.rounding is None or not isinstance(self.coherence, KnownCoherence):
            return None
        return self.rounding.variance_factor

    @property
    def reconsiders(self) -> bool:
        """Whether the next plan thinks deadline and blocks over.

        It also does after a round in which nothing came, since the deadline may be one by which nothing can come, and
        after one that was not as expected.
        """
        return self.surprised or time_to_reconsider(self.rounds)

    def share_of_changes(self, code: Code) -> float:
        """Return what part of an update residual errors are relative to: with a memory, only what has changed."""
        if self.noise is None or self.memory is None:
            return 1.0
        return self.noise.share_of_changes(self.coherence, unit_sizes(self.shard_examples, code))


@dataclass(frozen=True, eq=False)
class RoundPlan:
    """Who computes what in a round, until when, and how what comes will be weighed.

    Attributes
    ----------
    node_ids : tuple of int
        Flower's id of each client of the code, in the order of the client index.
    code : Code
        The assignment of shards to clients and their encoding coefficients.
    straggle_prob : ndarray, shape (n_clients,)
        Probability to send nothing by the deadline, from past rounds only.
    arrivals : ArrivalModel
        What may come by the deadline, and how likely.
    gram : GramModel
        Model of the Gram matrix of the weighted shard updates as they are received.
    decoder : CalibratedDecoder
        Ready to weigh any set of arrivals.
    deadline : float or None
        Seconds from sending to decoding; None if that is someone else's business.
    assignment : Assignment or None
        Blocks and work lists that the code was made from; None for blocks without work lists.
    everyone : tuple of int
        All nodes that the plan was made for, with those that it leaves out.
    base : CalibratedDecoder or None
        The decoder before shards changed places for the round.
    domain : ndarray of int, shape (n_clients,), or None
        Failure domain of each client, -1 for none, if any are named.
    variance_factor : float or None
        Of the rounding that the Gram model has been told of, see :attr:`RoundState.variance_factor`.
    in_a_row : bool
        Whether clients train on from shard to shard, see :class:`fedgc.round.Planning`.
    mean_progress : float or None
        How many shards in a row a client is expected to do, in the mean of the clients; None where nothing is known
        of that before the round.
    bits : ndarray of int, shape (n_clients,), or None
        Bits per entry of each client, if they have bits of their own: see :mod:`fedgc.round.before.bit_budget`.
    variance_factors : ndarray, shape (n_clients,), or None
        Those of their rounding, as far as known.
    undivided : RoundPlan or None
        With bits of their own, the plan for all clients, before some were given no bits, from which the next is made.
    """

    node_ids: tuple[int, ...]
    code: Code
    straggle_prob: NDArray[np.float64]
    arrivals: ArrivalModel
    gram: GramModel
    decoder: CalibratedDecoder
    deadline: float | None
    assignment: Assignment | None
    everyone: tuple[int, ...]
    base: CalibratedDecoder | None = None
    domain: NDArray[np.intp] | None = None
    variance_factor: float | None = None
    in_a_row: bool = False
    mean_progress: float | None = None
    bits: NDArray[np.intp] | None = None
    variance_factors: NDArray[np.float64] | None = None
    undivided: RoundPlan | None = None

    @property
    def step(self) -> float:
        """By what the decoded mean is multiplied: of shards in a row, by how many a client does in the mean."""
        if not self.in_a_row:
            return 1.0
        if self.mean_progress is not None:
            return self.mean_progress
        assert isinstance(self.arrivals, ProgressArrivals)  # shards are done in a row on work lists alone
        return float(self.arrivals.mean_progress.mean())

    @property
    def is_guess(self) -> bool:
        """Whether shards are done in a row, and nothing is known of how many clients do."""
        return self.in_a_row and self.mean_progress is None

    @property
    def silence_prob(self) -> NDArray[np.float64]:
        """Probability of each client that nothing comes of it by the deadline, (n_clients,)."""
        if isinstance(self.arrivals, IndependentArrivals | DomainArrivals):
            return self.straggle_prob
        return np.array([part.probability[~part.outcomes.any(axis=1)].sum() for part in self.arrivals.parts()])

    @property
    def block_energy(self) -> NDArray[np.float64]:
        """Squared length of what each block sends, (n_blocks,), of a code of whole blocks."""
        blocks = self.code.blocks
        assert blocks is not None
        merged = self.gram.merge(blocks.of_shard, blocks.n_blocks)
        energy: NDArray[np.float64] = merged.incoherent + merged.coherent**2
        return energy

    @property
    def residual_error(self) -> float | None:
        """Expected ``E|decoded - full|^2 / |full|^2`` with what is known of the rounding; None if it has no form."""
        if self.bits is not None:  # the decoder knows of them
            return self.decoder.residual_error
        ones = np.ones(self.code.n_shards)
        expected, _ = errors_with_rounding(
            self.decoder.code,
            self.gram,
            [],
            ones,
            predicted=self.decoder.residual_error,
            observed=0.0,
            told=self.variance_factor,
        )
        return expected

    def in_round(self, server_round: int, seed: int) -> RoundPlan:
        """Return the plan for a round, in which interchangeable shards have other places."""
        base = self.base or self.decoder
        if base.code.interchangeable is None:
            return self
        decoder = base.with_places(redraw_places(base.code, seed=seed, server_round=server_round))
        return replace(self, code=decoder.code, decoder=decoder, base=base)


@dataclass(frozen=True, eq=False)
class CodedUpdate:
    """What a client sent: sums over its shards of coefficient x number of examples x update.

    Attributes
    ----------
    sums : dict of int to (dict of str to ndarray)
        Each sum by its row of the encoding matrix; empty if no shard was done in time.
    shards : ndarray of int, shape (n_done,)
        The shards that were done, in the order of the plan.
    shard_examples : ndarray, shape (n_done,)
        Number of examples of each of them.
    seconds : float or None
        Seconds from the sending of the message to the reply, if known.
    work_seconds, busy_seconds : float or None
        Seconds by the client's own clock from the message to the end of its last shard, and to its reply.
    variance_factors : tuple of float
        Of sums that were rounded to a few bits, ``E|Q(x) - x|^2 / |x|^2`` of each, as the client has measured it.
    """

    sums: Mapping[int, Arrays]
    shards: NDArray[np.intp]
    shard_examples: NDArray[np.float64]
    seconds: float | None = None
    work_seconds: float | None = None
    busy_seconds: float | None = None
    variance_factors: tuple[float, ...] = ()


@dataclass(frozen=True, eq=False)
class LateReplies:
    """What came of an earlier round after its end: evidence on times, and a newer memory, but never decoded.

    Attributes
    ----------
    plan : RoundPlan
        The plan of that round.
    replies : mapping of int to CodedUpdate
        What clients that were silent at its end have sent since, by client index.
    silent : mapping of int to float
        The others, with the seconds for which they have been waited for since the sending.
    """

    plan: RoundPlan
    replies: Mapping[int, CodedUpdate]
    silent: Mapping[int, float]


@dataclass(frozen=True, eq=False)
class RoundOutcome:
    """The decoded round.

    Attributes
    ----------
    update : dict of str to ndarray, or None
        Estimate of the mean shard update, weighted by examples, to be multiplied by `step`; None if nothing arrived,
        or its sum cannot be had.
    decoding : Decoding
        Weights, coverage and status.
    predicted_residual_error : float or None
        What the plan expected before the round; None if the decoder has no closed form for it.
    model_residual_error : float
        ``(v - 1)' G (v - 1) / 1' G 1`` for the coverage v that came about, under the plan's Gram model.
    n_arrived : int
        Number of clients that brought something.
    shard_examples : ndarray, shape (n_shards,)
        Number of examples of each shard by which the update is weighted; NaN where not known.
    second_moment : dict of str to ndarray, or None
        Estimate of the square of what `update` estimates, entry by entry, if it was asked for.
    total_weight : float
        How often all that came counts in the mean: one without stragglers, and in the mean over rounds; 0 without an
        update.
    step : float
        The plan's step, or if that was a guess, how many shards a client has done in the mean.
    """

    update: Update | None
    decoding: Decoding
    predicted_residual_error: float | None
    model_residual_error: float
    n_arrived: int
    shard_examples: NDArray[np.float64]
    second_moment: Update | None = None
    total_weight: float = 1.0
    step: float = 1.0
