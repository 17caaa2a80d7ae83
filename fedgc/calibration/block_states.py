"""The blocks of a code and their states: which sets of coded updates may arrive, and with what probability."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from fedgc.arrivals import ArrivalModel
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
    states : ndarray of bool, shape (n_states, k)
        Which rows have arrived in each state.
    probability : ndarray, shape (n_states,)
        Probability of each state.
    drawn : bool
        Whether the states are random ones, since there are too many to list.
    left_out : float
        Probability of the states that are too rare to count with.
    energy, coherent : ndarray, shape (m,)
        Gram model of the super-shards.
    basis : ndarray, shape (rank, m)
        Reduced basis of the directions that some state reaches; the identity unless some are never reached.
    pivots : ndarray of int, shape (rank,)
        Its pivot super-shards.
    """

    super_shard: NDArray[np.intp]
    shards: NDArray[np.intp]
    rows: NDArray[np.intp]
    coefficients: Array
    states: NDArray[np.bool_]
    probability: Array
    drawn: bool
    left_out: float
    energy: Array
    coherent: Array
    basis: Array
    pivots: NDArray[np.intp]

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Numbers of rows, super-shards, states and reachable directions."""
        return (*self.coefficients.shape, self.states.shape[0], self.pivots.size)


def find_blocks(
    code: Code, arrivals: ArrivalModel, gram: GramModel, *, draws: int, rng: np.random.Generator
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
        Number of random states of a block with more than 65,536 of them.
    rng : numpy.random.Generator
        Draws them.

    Raises
    ------
    NoUnbiasedDecoderError
        If shards cannot be recovered: nothing that holds them ever arrives, or never apart from others.
    """
    parts, matrix = arrivals.parts(), code.sparse_matrix
    part_of_row = np.empty(code.n_rows, dtype=np.intp)
    for index, part in enumerate(parts):
        part_of_row[part.rows] = index
    copies = matrix.tocoo()
    n_nodes = len(parts) + code.n_shards
    edges = sparse.csr_array(
        (np.ones(matrix.nnz), (part_of_row[copies.coords[0]], len(parts) + copies.coords[1])), shape=(n_nodes, n_nodes)
    )
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
        members = [parts[index] for index in own_parts]
        states, probability, drawn = _states([(part.outcomes, part.probability) for part in members], draws, rng)
        rows = np.concatenate([part.rows for part in members])
        coefficients = matrix[rows][:, shards].toarray()
        blocks.append(
            _block(shards, rows, coefficients, states=states, probability=probability, drawn=drawn, gram=gram)
        )
    return blocks


def _grouped(label: NDArray[np.intp], n_labels: int) -> list[NDArray[np.intp]]:
    order = np.argsort(label, kind="stable")
    ends = np.cumsum(np.bincount(label, minlength=n_labels))
    return np.split(order, ends[:-1])


def _states(
    parts: list[tuple[NDArray[np.bool_], Array]], draws: int, rng: np.random.Generator
) -> tuple[NDArray[np.bool_], Array, bool]:
    """Return the possible combinations of the parts' outcomes, or random ones if there are too many."""
    possible = [(outcomes[probability > 0], probability[probability > 0]) for outcomes, probability in parts]
    total = 1
    for _, probability in possible:
        total *= probability.size
    if total > MOST_STATES:
        picks = [rng.choice(p.size, size=draws, p=p / p.sum()) for _, p in possible]
        states = np.concatenate([outcomes[pick] for (outcomes, _), pick in zip(possible, picks, strict=True)], axis=1)
        return states, np.full(draws, 1.0 / draws), True
    number = np.arange(total)
    columns, weight = [], np.ones(total)
    for outcomes, probability in possible:
        number, pick = np.divmod(number, probability.size)
        columns.append(outcomes[pick])
        weight *= probability[pick]
    return np.concatenate(columns, axis=1), weight, False


def _block(
    shards: NDArray[np.intp],
    rows: NDArray[np.intp],
    coefficients: Array,
    *,
    states: NDArray[np.bool_],
    probability: Array,
    drawn: bool,
    gram: GramModel,
) -> Block:
    rare = probability < _RAREST * probability[np.any(states, axis=1)].sum()
    left_out = float(probability[rare].sum())
    states, probability = states[~rare], probability[~rare]
    seen = coefficients * np.any(states, axis=0)[:, None]
    merged, super_shard = np.unique(seen, axis=1, return_inverse=True)
    super_shard = super_shard.reshape(-1)
    m = merged.shape[1]
    energy = np.bincount(super_shard, gram.incoherent[shards], m).astype(np.float64)
    pivot, reduced = row_space(merged, energy)
    # A vector in the row space is settled by its pivots; all ones must be one of them.
    unreached = np.flatnonzero(~pivot & (np.abs(reduced.sum(axis=0) - 1.0) > 1e-9))
    if unreached.size:
        lost = np.sort(shards[np.isin(super_shard, unreached)])
        raise NoUnbiasedDecoderError(
            f"every shard must be recoverable from some arrivals; got none for shard {', '.join(map(str, lost[:5]))}"
        )
    return Block(
        super_shard=super_shard,
        shards=shards,
        rows=rows,
        coefficients=merged,
        states=states,
        probability=probability,
        drawn=drawn,
        left_out=left_out,
        energy=energy,
        coherent=np.bincount(super_shard, gram.coherent[shards], m).astype(np.float64),
        basis=reduced[pivot],
        pivots=np.flatnonzero(pivot),
    )
