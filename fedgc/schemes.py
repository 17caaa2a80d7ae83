"""Schemes: the pairs of a code and a decoder that the field compares, at one load."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedgc.assignment import fractional_repetition_blocks
from fedgc.codes import (
    BernoulliCode,
    Chain,
    Code,
    CommonShard,
    CyclicRepetition,
    ErasureHead,
    RandomRegularGraphCode,
    StochasticGradientCode,
    Uncoded,
)

Vector = NDArray[np.float64]
BuildCode = Callable[[Vector, int, np.random.Generator], Code]


@dataclass(frozen=True)
class Scheme:
    """A code and a decoder under one name.

    Attributes
    ----------
    name : str
        The name of the code, as in tables.
    decoder : str
        Name of the decoder in ``fedgc.decoders.DECODERS``.
    build : callable
        Returns the code for given straggle probabilities, load and generator; as many shards as clients.
    """

    name: str
    decoder: str
    build: BuildCode


def _balanced_blocks(p: Vector, load: int, rng: np.random.Generator) -> Code:
    return fractional_repetition_blocks(p, p.size, load)


#: The schemes, in the order in which tables show them. Scheme I and II are the base paper's.
SCHEMES: tuple[Scheme, ...] = (
    Scheme("uncoded", "inverse-probability", lambda p, load, rng: Uncoded(p.size, p.size)),
    Scheme("scheme-I", "inverse-probability", lambda p, load, rng: CommonShard(p, p.size)),
    Scheme("scheme-II", "inverse-probability", lambda p, load, rng: Chain(p)),
    Scheme("sgc", "inverse-probability", lambda p, load, rng: StochasticGradientCode(p.size, p.size, load, rng=rng)),
    Scheme("bernoulli", "normalised-sum", lambda p, load, rng: BernoulliCode(p.size, p.size, load, rng=rng)),
    Scheme("random-regular", "least-squares", lambda p, load, rng: RandomRegularGraphCode(p.size, load, rng=rng)),
    Scheme("cyclic-repetition", "least-squares", lambda p, load, rng: CyclicRepetition(p.size, load - 1, rng=rng)),
    Scheme("erasure-head", "first-arrival", lambda p, load, rng: ErasureHead(p.size, p.size, load, rng=rng)),
    Scheme("erasure-head", "sum", lambda p, load, rng: ErasureHead(p.size, p.size, load, rng=rng)),
    Scheme("fractional-repetition", "fixed", _balanced_blocks),
    Scheme("fractional-repetition", "optimal-unbiased", _balanced_blocks),
)

#: The base paper's schemes, whose better one is the yardstick of comparisons.
PAPER_SCHEMES = ("scheme-I", "scheme-II")
