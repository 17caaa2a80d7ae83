"""Sizes of shards and blocks, and the Gram model that follows from them and from what was seen of the updates."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedgc.codes import Code
from fedgc.coherence import CoherenceEstimate, KnownCoherence
from fedgc.decoders.optimal_quantised import noisy_gram
from fedgc.gram import GramModel


def shard_gram(
    coherence: CoherenceEstimate,
    shard_examples: NDArray[np.float64],
    code: Code,
    variance_factor: float | None = None,
) -> GramModel:
    """Return the model of the shard updates as they are received.

    Blocks that are only ever seen as a whole have their sums modelled, and only these enter the decoders: a shard gets
    an equal part of its block's. Work lists have the shards themselves modelled.

    Parameters
    ----------
    coherence : CoherenceEstimate
        How alike updates are.
    shard_examples : ndarray, shape (n_shards,)
        Number of examples of each shard, NaN where not known.
    code : Code
        Who computes what.
    variance_factor : float, optional
        Of the clients' rounding, where the coherence is of updates without it: its energy is added then, unless rows
        of the code overlap, whose rounding is not that of shards.
    """
    if code.blocks is None or isinstance(coherence, KnownCoherence):
        size = known_or_mean(shard_examples)
        gram = coherence.gram(np.maximum(size / max(float(size.mean()), 1e-300), 1e-9))
        return gram if not variance_factor else noisy_gram(code, gram, variance_factor) or gram
    units = coherence.gram(unit_sizes(shard_examples, code))
    of_shard = code.blocks.of_shard
    share = 1.0 / np.bincount(of_shard, minlength=code.blocks.n_blocks)[of_shard]
    return GramModel(units.incoherent[of_shard] * share, units.coherent[of_shard] * share)


def unit_sizes(shard_examples: NDArray[np.float64], code: Code) -> NDArray[np.float64]:
    """Return the number of examples of each block, or shard, relative to their mean, never quite zero."""
    size = known_or_mean(shard_examples)
    if code.blocks is not None:
        size = np.bincount(code.blocks.of_shard, size, code.blocks.n_blocks).astype(np.float64)
    relative: NDArray[np.float64] = np.maximum(size / max(float(size.mean()), 1e-300), 1e-9)
    return relative


def known_or_mean(shard_examples: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return sizes with the unknown ones set to the mean of the known ones (to one if none is known)."""
    known = np.isfinite(shard_examples)
    return np.where(known, shard_examples, shard_examples[known].mean() if known.any() else 1.0)
