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
    StochasticGradientCodeAuthors,
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


#: The code of this project's whole blocks: fractional repetition with blocks formed for the fleet.
BALANCED_BLOCKS = "fractional-repetition"

#: Every code by name, as functions of straggle probabilities, load and generator; as many shards as clients. Which
#: client holds what depends on the probabilities for the last two only, whose blocks are balanced by them.
CODES: dict[str, BuildCode] = {
    "uncoded": lambda p, load, rng: Uncoded(p.size, p.size),
    "scheme-I": lambda p, load, rng: CommonShard(p, p.size),
    "scheme-II": lambda p, load, rng: Chain(p),
    "sgc": lambda p, load, rng: StochasticGradientCode(p.size, p.size, load, rng=rng),
    "sgc-authors": lambda p, load, rng: StochasticGradientCodeAuthors(p.size, p.size, load, rng=rng),
    "bernoulli": lambda p, load, rng: BernoulliCode(p.size, p.size, load, rng=rng),
    "random-regular": lambda p, load, rng: RandomRegularGraphCode(p.size, load, rng=rng),
    "cyclic-repetition": lambda p, load, rng: CyclicRepetition(p.size, load - 1, rng=rng),
    "erasure-head": lambda p, load, rng: ErasureHead(p.size, p.size, load, rng=rng),
    BALANCED_BLOCKS: _balanced_blocks,
    # The strategy sizes the blocks above by speed once it knows that; these stay equal. Meant for known times: who is
    # in which follows every change of what is believed of the clients.
    "equal-blocks": _balanced_blocks,
}

#: Those of coefficients one, whose clients can reply with a part of their shards done. The rows of
#: :data:`BALANCED_BLOCKS` are then ordered too, and sized by speed.
LIST_CODES = ("uncoded", "erasure-head")

#: The schemes, in the order in which tables show them: code and decoder. Scheme I and II are the base paper's.
SCHEMES: tuple[Scheme, ...] = tuple(
    Scheme(code, decoder, CODES[code])
    for code, decoder in (
        ("uncoded", "inverse-probability"),
        ("scheme-I", "inverse-probability"),
        ("scheme-II", "inverse-probability"),
        ("sgc", "inverse-probability"),
        ("bernoulli", "normalised-sum"),
        ("random-regular", "least-squares"),
        ("cyclic-repetition", "least-squares"),
        ("erasure-head", "first-arrival"),
        ("erasure-head", "sum"),
        (BALANCED_BLOCKS, "fixed"),
        (BALANCED_BLOCKS, "optimal-unbiased"),
    )
)

#: The base paper's schemes, whose better one is the yardstick of comparisons.
PAPER_SCHEMES = ("scheme-I", "scheme-II")
