"""The blocks of a code and their states: which sets of coded updates may arrive, and with what probability."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedgc.arrivals import ArrivalModel
from fedgc.arrivals.base import Part
from fedgc.calibration.components import Component, components_of
from fedgc.calibration.listing import (
    Outcomes,
    Unions,
    list_single_states,
    list_states,
    marginal_probabilities,
    marginal_probabilities_of_many,
)
from fedgc.calibration.patterns import Pattern, pattern_of, super_shards, unknowns
from fedgc.calibration.projection import row_space
from fedgc.codes import Code
from fedgc.errors import NoUnbiasedDecoderError
from fedgc.gram import GramModel

Array = NDArray[np.float64]

#: Up to this many states a block's states are all listed; beyond they are drawn.
MOST_STATES = 2**16

#: Combinations of states and outcomes that are listed at once, for blocks that are alike.
_LISTED_AT_ONCE = 2**20

#: States rarer than this, relative to anything arriving at all, are left out: the numbers would underflow.
_RAREST = 1e-40


@dataclass(frozen=True, eq=False)
class Block:
    """Shards and coded updates that depend on no others.

    Attributes
    ----------
    super_shard : ndarray of int, shape (n_own_shards,)
        The super-shard of each of the block's shards: shards with equal coefficients in everything that may arrive only
        ever come summed together, and count as one.
    shards : ndarray of int, shape (n_own_shards,)
        The block's shards.
    rows : ndarray of int, shape (k,)
        The block's rows of the encoding matrix.
    coefficients : ndarray, shape (k, m)
        Those rows over the m super-shards; zero for a row that cannot arrive, which is then not used if it does.
    single : bool
        Whether every row that may arrive is one super-shard, once: the states are then kept by super-shard, not by row.
    states : ndarray of bool, shape (n_states, k), or (n_states, m) if `single`
        Which rows have arrived in each state, or which super-shards.
    probability : ndarray, shape (n_states,)
        Probability of each state.
    drawn : bool
        Whether the states are random ones, since there are too many to list.
    left_out : float
        Probability of the states that are too rare to count with.
    energy, coherent : ndarray, shape (m,)
        Gram model of the super-shards.
    rank : int
        Directions that some state reaches.
    basis : ndarray, shape (n_unknowns, m)
        The target is a combination of its rows: of a reduced basis of the directions that some state reaches (the
        identity unless some are never reached), or of the indicators of shards that change places with each other.
    tests : ndarray, shape (n_unknowns, m)
        E[v] is to be one under each: at the pivots of the reduced basis, or in the mean over shards that change places.
    marginal : (ndarray, ndarray) of shapes (m,), or None
        If `single`, the probabilities that each super-shard arrives and that it does not: exact even where the states
        are drawn, or left out since nothing is coherent.
    """

    super_shard: NDArray[np.intp]
    shards: NDArray[np.intp]
    rows: NDArray[np.intp]
    coefficients: Array
    single: bool
    states: NDArray[np.bool_]
    probability: Array
    drawn: bool
    left_out: float
    energy: Array
    coherent: Array
    rank: int
    basis: Array
    tests: Array
    marginal: tuple[Array, Array] | None = None

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Numbers of rows (of super-shards, if `single`), super-shards, states and unknowns."""
        return self.states.shape[1], self.energy.size, self.states.shape[0], self.basis.shape[0]


def find_blocks(
    code: Code,
    arrivals: ArrivalModel,
    gram: GramModel,
    *,
    draws: int,
    rng: np.random.Generator,
    most_states: int = MOST_STATES,
) -> list[Block]:
    """Split the code into blocks that share neither shards nor luck, and list the states of each.

    Parameters
    ----------
    code : Code
        The code.
    arrivals : ArrivalModel
        Its arrivals.
    gram : GramModel
        Model of its shards.
    draws : int
        Number of random states of a block with too many of them.
    rng : numpy.random.Generator
        Draws them.
    most_states : int
        The states of a block are listed if there are at most so many.

    Raises
    ------
    NoUnbiasedDecoderError
        If shards cannot be recovered: nothing that holds them ever arrives, or never apart from others.
    """
    parts, blocks = arrivals.parts(), []
    components = components_of(code, [part.rows for part in parts])
    alike = _listed_alike(components, parts, gram, most_states)
    for index, own in enumerate(components):
        if index in alike:
            blocks.append(alike[index])
            continue
        if own.shards.size == 0:
            continue  # a client without a shard
        if own.parts.size == 0:
            raise NoUnbiasedDecoderError(
                f"every shard must be held by a client; got none for shard {int(own.shards[0])}"
            )
        members = [(parts[part].outcomes, parts[part].probability) for part in own.parts]
        blocks += _blocks(own, members, gram, limits=(most_states, draws), rng=rng)
    return blocks


def _listed_alike(
    components: Sequence[Component], parts: Sequence[Part], gram: GramModel, most_states: int
) -> dict[int, Block]:
    """Return, by component, what :func:`_blocks` would of those with one pattern, which are listed all at once.

    A large fleet has thousands of components and few patterns. Left to :func:`_blocks` are those of which something is
    drawn, impossible, too rare to count or lost, and those whose super-shards are told apart.
    """
    by_pattern: dict[Pattern, list[int]] = defaultdict(list)
    seen: dict[tuple[object, ...], Pattern] = {}
    for index, own in enumerate(components):
        if own.groups is None or own.shards.size == 0 or own.parts.size == 0:
            continue
        outcomes = [parts[part].outcomes for part in own.parts]
        # Parts that are alike share the table of their outcomes, which lives as long as they do.
        key = (own.coefficients.shape, own.coefficients.tobytes(), own.groups.tobytes(), *map(id, outcomes))
        pattern = seen.get(key)
        if pattern is None:
            pattern = seen[key] = pattern_of(own.coefficients, outcomes, own.groups)
        by_pattern[pattern].append(index)
    found: dict[int, Block] = {}
    for pattern, members in by_pattern.items():
        unions = pattern.unions(most_states) if pattern.single and len(members) > 1 else None
        if unions is None:
            continue
        at_once = max(1, _LISTED_AT_ONCE // max(place.size for place in unions.places))
        for start in range(0, len(members), at_once):
            some = members[start : start + at_once]
            found.update(_listed(pattern, unions, some, [components[index] for index in some], parts, gram))
    return found


def _listed(  # noqa: PLR0917  (those of one pattern, and what is known)
    pattern: Pattern,
    unions: Unions,
    members: list[int],
    components: list[Component],
    parts: Sequence[Part],
    gram: GramModel,
) -> dict[int, Block]:
    """Return the blocks of these components of one pattern, but of those that :func:`_blocks` has to look at."""
    n, m = len(members), pattern.merged.shape[1]
    shards = np.stack([own.shards for own in components])
    by_part = list(zip(*([parts[part].probability for part in own.parts] for own in components), strict=True))
    probabilities = [np.stack(one) for one in by_part]

    def summed(values: Array, place: NDArray[np.intp], size: int) -> Array:
        """Return what bincount does of each row."""
        places = np.arange(n)[:, None] * size + place
        return np.bincount(places.ravel(), values.ravel(), n * size).reshape(n, size).astype(np.float64)

    weight = np.ones((n, 1))
    for probability, place, size in zip(probabilities, unions.places, unions.sizes, strict=True):
        weight = summed((weight[:, :, None] * probability[:, None, :]).reshape(n, -1), place, size)
    energy = summed(gram.incoherent[shards], pattern.super_shard, m)
    coherent = summed(gram.coherent[shards], pattern.super_shard, m)
    something = np.ascontiguousarray(weight[:, unions.states.any(axis=1)]).sum(axis=1)
    usual = (weight >= _RAREST * something[:, None]).all(axis=1) & (energy > 0.0).all(axis=1)
    usual &= gram.coherent[shards].any(axis=1)
    for probability in probabilities:
        usual &= (probability > 0.0).all(axis=1)
    if not usual.any():
        return {}
    rank, basis, tests, lost = pattern.unknowns(energy[np.argmax(usual)])
    if lost.any():
        return {}
    arrives, misses = marginal_probabilities_of_many(probabilities, pattern.sets)
    return {
        members[place]: Block(
            super_shard=pattern.super_shard,
            shards=components[place].shards,
            rows=components[place].rows,
            coefficients=pattern.merged,
            single=True,
            states=unions.states,
            probability=weight[place],
            drawn=False,
            left_out=0.0,
            energy=energy[place],
            coherent=coherent[place],
            rank=rank,
            basis=basis,
            tests=tests,
            marginal=(arrives[place], misses[place]),
        )
        for place in np.flatnonzero(usual).tolist()
    }


def _blocks(
    own: Component,
    parts: list[Outcomes],
    gram: GramModel,
    *,
    limits: tuple[int, int],
    rng: np.random.Generator,
) -> list[Block]:
    """Return one block, or one per super-shard where what arrives of one has no bearing on the others.

    That is so if every row is one super-shard and nothing is coherent: a super-shard's weight is then one over its
    probability to arrive (the mean one of those that change places), however its arrival depends on that of others, and
    their joint states need not be listed.
    """
    parts = [(outcomes[probability > 0], probability[probability > 0]) for outcomes, probability in parts]
    shards, rows, groups = own.shards, own.rows, own.groups
    pattern = pattern_of(own.coefficients, [outcomes for outcomes, _ in parts], groups)
    merged, super_shard, single = pattern.merged, pattern.super_shard, pattern.single
    marginal, joint = None, True
    if single:
        marginal = marginal_probabilities(parts, pattern.sets)
        joint = bool((gram.coherent[shards] != 0.0).any())
        apart = merged.any(axis=0).all() and (marginal[0] > _RAREST).all()
        if not joint and groups is None and apart:
            return _apart(shards, rows, merged, super_shard, marginal=marginal, gram=gram)
    if not single:
        states, probability, drawn = list_states(parts, limits, rng)
    elif joint or groups is None:
        most_states, draws = limits
        states, probability, drawn = list_single_states(parts, pattern.reach, pattern.unions(most_states), draws, rng)
    else:  # the marginal probabilities say it all
        states, probability, drawn = np.ones((1, merged.shape[1]), dtype=np.bool_), np.ones(1), False
    rare = probability < _RAREST * probability[np.any(states, axis=1)].sum()
    left_out = float(probability[rare].sum())
    states, probability = states[~rare], probability[~rare]
    if not single:
        merged, super_shard = super_shards(own.coefficients, np.any(states, axis=0), groups)
    m = merged.shape[1]
    energy = np.bincount(super_shard, gram.incoherent[shards], m).astype(np.float64)
    if single:
        rank, basis, tests, lost = pattern.unknowns(energy)
    else:
        rank, basis, tests, lost = unknowns(row_space(merged, energy), merged, super_shard, groups)
    if lost.any():
        raise NoUnbiasedDecoderError(
            "every shard must be recoverable from some arrivals; "
            f"got none for shard {', '.join(map(str, np.sort(shards[lost])[:5]))}"
        )
    return [
        Block(
            super_shard=super_shard,
            shards=shards,
            rows=rows,
            coefficients=merged,
            single=single,
            states=states,
            probability=probability,
            drawn=drawn,
            left_out=left_out,
            energy=energy,
            coherent=np.bincount(super_shard, gram.coherent[shards], m).astype(np.float64),
            rank=rank,
            basis=basis,
            tests=tests,
            marginal=marginal,
        )
    ]


def _apart(
    shards: NDArray[np.intp],
    rows: NDArray[np.intp],
    merged: Array,
    super_shard: NDArray[np.intp],
    *,
    marginal: tuple[Array, Array],
    gram: GramModel,
) -> list[Block]:
    """Return a block of two states for every super-shard."""
    blocks = []
    for index, probability in enumerate(np.stack(marginal, axis=1)):
        own, held = shards[super_shard == index], rows[merged[:, index] != 0.0]
        blocks.append(
            Block(
                super_shard=np.zeros(own.size, dtype=np.intp),
                shards=own,
                rows=held,
                coefficients=np.ones((held.size, 1)),
                single=True,
                states=np.array([[True], [False]]),
                probability=probability,
                drawn=False,
                left_out=0.0,
                energy=gram.incoherent[own].sum(keepdims=True),
                coherent=np.zeros(1),
                rank=1,
                basis=np.ones((1, 1)),
                tests=np.ones((1, 1)),
            )
        )
    return blocks
