"""The blocks of a code and their states: which sets of coded updates may arrive, and with what probability."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from fedgc.arrivals import ArrivalModel
from fedgc.calibration.listing import Outcomes, list_single_states, list_states, marginal_probabilities
from fedgc.calibration.projection import row_space
from fedgc.codes import Code
from fedgc.errors import NoUnbiasedDecoderError
from fedgc.gram import GramModel

Array = NDArray[np.float64]

#: Up to this many states a block's states are all listed; beyond they are drawn.
MOST_STATES = 2**16

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
    parts, matrix, limits = arrivals.parts(), code.sparse_matrix, (most_states, draws)
    part_of_row = np.empty(code.n_rows, dtype=np.intp)
    for index, part in enumerate(parts):
        part_of_row[part.rows] = index
    copies, label_of = matrix.tocoo(), code.interchangeable
    n_nodes = len(parts) + code.n_shards
    tail, head = part_of_row[copies.coords[0]], len(parts) + copies.coords[1]
    if label_of is not None:
        # Shards that change places have one target, so they belong together whoever holds them.
        first = np.unique(label_of, return_index=True)[1]
        tail, head = np.append(tail, len(parts) + first[label_of]), np.append(head, np.arange(len(parts), n_nodes))
    edges = sparse.csr_array((np.ones(tail.size), (tail, head)), shape=(n_nodes, n_nodes))
    _, label = connected_components(edges, directed=False)
    n_labels = int(label.max()) + 1
    parts_of = _grouped(label[: len(parts)].astype(np.intp), n_labels)
    shards_of = _grouped(label[len(parts) :].astype(np.intp), n_labels)
    blocks = []
    for own_parts, shards in zip(parts_of, shards_of, strict=True):
        if shards.size == 0:
            continue  # a client without a shard
        if own_parts.size == 0:
            raise NoUnbiasedDecoderError(f"every shard must be held by a client; got none for shard {int(shards[0])}")
        members = [(parts[index].outcomes, parts[index].probability) for index in own_parts]
        rows = np.concatenate([parts[index].rows for index in own_parts])
        groups = None if label_of is None else label_of[shards]
        coefficients = matrix[rows][:, shards].toarray()
        blocks += _blocks(shards, rows, coefficients, members, gram, groups=groups, limits=limits, rng=rng)
    return blocks


def _grouped(label: NDArray[np.intp], n_labels: int) -> list[NDArray[np.intp]]:
    order = np.argsort(label, kind="stable")
    ends = np.cumsum(np.bincount(label, minlength=n_labels))
    return np.split(order, ends[:-1])


def _super_shards(
    coefficients: Array, possible: NDArray[np.bool_], groups: NDArray[np.intp] | None
) -> tuple[Array, NDArray[np.intp]]:
    """Return the rows over super-shards, zero where they cannot arrive, and the super-shard of each shard.

    Shards of different groups are kept apart.
    """
    columns = coefficients * possible[:, None]
    if groups is None:
        merged, super_shard = np.unique(columns, axis=1, return_inverse=True)
        return merged, super_shard.reshape(-1)
    merged, super_shard = np.unique(np.vstack([columns, groups]), axis=1, return_inverse=True)
    return merged[:-1], super_shard.reshape(-1)


def _unknowns(
    merged: Array, energy: Array, super_shard: NDArray[np.intp], groups: NDArray[np.intp] | None
) -> tuple[int, Array, Array, NDArray[np.bool_]]:
    """Return rank, basis and tests as in :class:`Block`, and which of the shards cannot be recovered."""
    pivot, reduced = row_space(merged, energy)
    if groups is None:
        # A vector in the row space is settled by its pivots; all ones must be one of them.
        lost = ~pivot & (np.abs(reduced.sum(axis=0) - 1.0) > 1e-9)
        return int(pivot.sum()), reduced[pivot], np.eye(energy.size)[pivot], lost[super_shard]
    names, number = np.unique(groups, return_inverse=True)
    tests = np.zeros((names.size, energy.size))
    np.add.at(tests, (number, super_shard), 1.0)
    basis = (tests > 0.0).astype(np.float64)
    tests /= tests.sum(axis=1, keepdims=True)
    never = basis @ (merged != 0.0).any(axis=0) == 0.0
    return int(pivot.sum()), basis, tests, never[number]


def _blocks(
    shards: NDArray[np.intp],
    rows: NDArray[np.intp],
    coefficients: Array,
    parts: list[Outcomes],
    gram: GramModel,
    *,
    groups: NDArray[np.intp] | None,
    limits: tuple[int, int],
    rng: np.random.Generator,
) -> list[Block]:
    """Return one block, or one per super-shard where what arrives of one has no bearing on the others.

    That is so if every row is one super-shard and nothing is coherent: a super-shard's weight is then one over its
    probability to arrive (the mean one of those that change places), however its arrival depends on that of others, and
    their joint states need not be listed.
    """
    parts = [(outcomes[probability > 0], probability[probability > 0]) for outcomes, probability in parts]
    possible = np.concatenate([outcomes.any(axis=0) for outcomes, _ in parts])
    merged, super_shard = _super_shards(coefficients, possible, groups)
    single = bool(((merged[possible] != 0.0).sum(axis=1) == 1).all() and (merged[possible].max(axis=1) == 1.0).all())
    marginal, joint = None, True
    if single:
        ends = np.cumsum([outcomes.shape[1] for outcomes, _ in parts])
        reach = np.split(merged != 0.0, ends[:-1])
        marginal = marginal_probabilities(parts, reach)
        joint = bool((gram.coherent[shards] != 0.0).any())
        apart = merged.any(axis=0).all() and (marginal[0] > _RAREST).all()
        if not joint and groups is None and apart:
            return _apart(shards, rows, merged, super_shard, marginal=marginal, gram=gram)
    if not single:
        states, probability, drawn = list_states(parts, limits, rng)
    elif joint or groups is None:
        states, probability, drawn = list_single_states(parts, reach, limits, rng)
    else:  # the marginal probabilities say it all
        states, probability, drawn = np.ones((1, merged.shape[1]), dtype=np.bool_), np.ones(1), False
    rare = probability < _RAREST * probability[np.any(states, axis=1)].sum()
    left_out = float(probability[rare].sum())
    states, probability = states[~rare], probability[~rare]
    if not single:
        merged, super_shard = _super_shards(coefficients, np.any(states, axis=0), groups)
    m = merged.shape[1]
    energy = np.bincount(super_shard, gram.incoherent[shards], m).astype(np.float64)
    rank, basis, tests, lost = _unknowns(merged, energy, super_shard, groups)
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
