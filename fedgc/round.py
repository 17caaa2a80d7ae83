"""One round: plan who computes what, then decode what came and learn from it.

This module knows no Flower: :class:`fedgc.strategies.GradientCoding` unpacks records, calls it, and packs records.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fedgc.assignment import fractional_repetition_blocks
from fedgc.codes import FractionalRepetition
from fedgc.decoders import CalibratedDecoder, Decoder, Decoding
from fedgc.encoding import Arrays, Update, add_scaled, squared_norm, zero_update
from fedgc.gram import CoherenceEstimate, GramModel
from fedgc.reliability import ReliabilityPosterior


@dataclass(frozen=True, eq=False)
class RoundState:
    """Everything that one round hands to the next.

    Attributes
    ----------
    shard_examples : ndarray, shape (n_shards,)
        Number of examples of each shard; NaN where not known yet.
    reliability : ReliabilityPosterior
        Who arrived in the past.
    coherence : CoherenceEstimate
        How large and how alike the block updates were.
    plan : RoundPlan or None
        The last plan, whose blocks are kept while they serve.
    """

    shard_examples: NDArray[np.float64]
    reliability: ReliabilityPosterior = field(default_factory=ReliabilityPosterior)
    coherence: CoherenceEstimate = field(default_factory=CoherenceEstimate)
    plan: RoundPlan | None = None


@dataclass(frozen=True, eq=False)
class RoundPlan:
    """Who computes what in a round, and how what comes will be weighed.

    Attributes
    ----------
    node_ids : tuple of int
        Flower's id of each client, in the order of the client index.
    code : FractionalRepetition
        The assignment of shards to clients and their encoding coefficients.
    straggle_prob : ndarray, shape (n_clients,)
        Probability to miss the deadline, from past rounds only.
    gram : GramModel
        Model of the Gram matrix of the weighted shard updates.
    decoder : CalibratedDecoder
        Ready to weigh any set of arrivals.
    """

    node_ids: tuple[int, ...]
    code: FractionalRepetition
    straggle_prob: NDArray[np.float64]
    gram: GramModel
    decoder: CalibratedDecoder


@dataclass(frozen=True, eq=False)
class CodedUpdate:
    """What a client sent: the sum over its shards of coefficient x number of examples x update.

    Attributes
    ----------
    total : dict of str to ndarray
        The coded update.
    shard_examples : ndarray, shape (number of the client's shards,)
        Number of examples of each of its shards, in the order of the plan.
    """

    total: Update
    shard_examples: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class RoundOutcome:
    """The decoded round.

    Attributes
    ----------
    update : dict of str to ndarray, or None
        Estimate of the mean shard update, weighted by examples; None if nothing arrived.
    decoding : Decoding
        Weights, coverage and status.
    predicted_residual_error : float or None
        What the plan expected before the round; None if the decoder has no closed form for it.
    model_residual_error : float
        ``(v - 1)' G (v - 1) / 1' G 1`` for the coverage v that came about, under the plan's Gram model.
    """

    update: Update | None
    decoding: Decoding
    predicted_residual_error: float | None
    model_residual_error: float


def plan_round(
    state: RoundState, node_ids: Sequence[int], *, load: int, decoder: Decoder, reassignment_gain: float = 0.2
) -> RoundPlan:
    """Assign shards to the nodes of this round and calibrate the decoder for it.

    Parameters
    ----------
    state : RoundState
        What past rounds left.
    node_ids : sequence of int
        The nodes that take part, without repetition. Their order does not matter.
    load : int
        Copies of each shard. With fewer nodes than that, all of them form one block; with so many that there would be
        more blocks than shards, blocks get more members.
    decoder : Decoder
        The rule for the decoding weights.
    reassignment_gain : float
        While the same nodes take part, blocks stay as they are, since new ones mean that clients must fetch other
        shards, unless new ones cut the predicted residual error by more than this fraction; 1 keeps them for ever.

    Raises
    ------
    ValueError
        If no node takes part or one is named twice.
    """
    nodes = tuple(sorted(node_ids))
    if not nodes or len(set(nodes)) != len(nodes):
        raise ValueError(f"node_ids must be at least one distinct id; got {list(node_ids)}")
    straggle_prob = state.reliability.straggle_prob(nodes)
    n_shards = state.shard_examples.size
    copies = max(min(load, len(nodes)), -(-len(nodes) // n_shards))

    def plan_with(code: FractionalRepetition) -> RoundPlan:
        gram = _shard_gram(state, code)
        return RoundPlan(nodes, code, straggle_prob, gram, decoder.calibrate(code, straggle_prob, gram))

    balanced = plan_with(fractional_repetition_blocks(straggle_prob, n_shards, copies))
    if state.plan is None or state.plan.node_ids != nodes:
        return balanced
    kept = plan_with(state.plan.code)
    before, after = kept.decoder.residual_error, balanced.decoder.residual_error
    if before is None or after is None or after >= (1.0 - reassignment_gain) * before:
        return kept
    return balanced


def finish_round(
    state: RoundState, plan: RoundPlan, replies: Mapping[int, CodedUpdate], *, arrays: Arrays, learn: bool = True
) -> tuple[RoundState, RoundOutcome]:
    """Decode the coded updates that came by the deadline and learn from who sent them.

    Parameters
    ----------
    state : RoundState
        The state that `plan` was made from.
    plan : RoundPlan
        The round's plan.
    replies : mapping of int to CodedUpdate
        Coded update of each client that arrived, by client index. Updates must be finite and shaped like `arrays`.
    arrays : mapping of str to ndarray
        The global arrays; only names, shapes and dtypes are used.
    learn : bool
        Whether this round is evidence on reliability. A round with another deadline than usual is not.

    Returns
    -------
    state : RoundState
        For the next round.
    outcome : RoundOutcome
        The decoded update and what is known about its error.
    """
    arrived = np.zeros(plan.code.n_clients, dtype=np.bool_)
    arrived[list(replies)] = True
    shard_examples = state.shard_examples.copy()
    for client, reply in replies.items():
        shard_examples[plan.decoder.code.shards_of(client)] = reply.shard_examples
    decoding = plan.decoder.decode(arrived)

    update: Update | None = None
    total_examples = float(_known_or_mean(shard_examples).sum())
    if any(reply.shard_examples.any() for reply in replies.values()):
        total = zero_update(arrays)
        for client in sorted(replies):
            add_scaled(total, decoding.decoding_weights[client] / total_examples, replies[client].total)
        update = total

    reliability = state.reliability
    if learn:
        reliability = reliability.update({node: bool(arrived[i]) for i, node in enumerate(plan.node_ids)})
    new_state = RoundState(
        shard_examples=shard_examples,
        reliability=reliability,
        coherence=_observe_coherence(state.coherence, plan, replies, shard_examples, arrays),
        plan=plan,
    )
    model_error = plan.gram.residual_error(decoding.coverage)
    return new_state, RoundOutcome(update, decoding, plan.decoder.residual_error, model_error)


def _known_or_mean(shard_examples: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return sizes with the unknown ones set to the mean of the known ones (to one if none is known)."""
    known = np.isfinite(shard_examples)
    return np.where(known, shard_examples, shard_examples[known].mean() if known.any() else 1.0)


def _block_sizes(shard_examples: NDArray[np.float64], code: FractionalRepetition) -> NDArray[np.float64]:
    """Return each block's number of examples relative to the mean block, at least a trace so that G stays positive."""
    blocks = code.blocks
    size = np.bincount(blocks.of_shard, _known_or_mean(shard_examples), blocks.n_blocks)
    relative: NDArray[np.float64] = np.maximum(size / max(float(size.mean()), 1e-300), 1e-9)
    return relative


def _shard_gram(state: RoundState, code: FractionalRepetition) -> GramModel:
    """Return a shard model whose block sums have the estimated energies: only block sums enter the decoders."""
    blocks = code.blocks
    block_gram = state.coherence.gram(_block_sizes(state.shard_examples, code))
    share = 1.0 / np.bincount(blocks.of_shard, minlength=blocks.n_blocks)[blocks.of_shard]
    return GramModel(block_gram.incoherent[blocks.of_shard] * share, block_gram.coherent[blocks.of_shard] * share)


def _observe_coherence(
    coherence: CoherenceEstimate,
    plan: RoundPlan,
    replies: Mapping[int, CodedUpdate],
    shard_examples: NDArray[np.float64],
    arrays: Arrays,
) -> CoherenceEstimate:
    """Return the estimate after the round's distinct block updates, one copy of each."""
    size = _block_sizes(shard_examples, plan.code)
    unit = float(_known_or_mean(shard_examples).sum()) / size.size
    first_copy: dict[int, int] = {}
    for client in sorted(replies):
        coefficients = plan.decoder.code.coefficients_of(client)
        # A decoder may have chosen coefficients that differ within a block; such a reply is not the block's update.
        if coefficients.size and np.ptp(coefficients) == 0.0:
            first_copy.setdefault(int(plan.code.blocks.of_client[client]), client)
    if not first_copy or unit <= 0:
        return coherence
    total = zero_update(arrays)
    energies = []
    for block, client in first_copy.items():
        scale = 1.0 / (size[block] * unit * plan.decoder.code.coefficients_of(client)[0])
        energies.append(scale**2 * squared_norm(replies[client].total))
        add_scaled(total, scale, replies[client].total)
    return coherence.update(energies, squared_norm(total))
