"""Control variates: remember what each part of the data last contributed, and decode only what has changed since."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from fedgc.codes import Code
from fedgc.memory.store import MemoryStore
from fedgc.updates import Arrays, Combination, Update, add_scaled, zero_update

#: Rows of an encoding matrix.
Rows = sparse.csr_array[np.float64] | NDArray[np.float64]

#: Rounding of a projection, where coefficients are about one.
_ROUNDING = 1e-12


@dataclass(frozen=True, eq=False)
class UpdateMemory:
    """The last recovered update of every unit, a set of shards that only ever arrive summed.

    Attributes
    ----------
    unit_of_shard : ndarray of int, shape (n_shards,)
        The unit that each shard belongs to, from 0 on.
    updates : mapping of int to (dict of str to ndarray)
        H_u, the last known sum of number of examples x update over the unit's shards. A unit that is not there has
        never been recovered and counts as zero.
    store : MemoryStore
        Where updates are kept; by default in memory, as they are.

    Notes
    -----
    With coverage v and sums ``s_i = (A U)_i`` that arrived, the decoded sum is

        ``sum_u H_u + sum_i w_i (s_i - (A H)_i) = sum_i w_i s_i + sum_u (1 - v_u) H_u``,

    which is unbiased for whatever H was known before the round if the weights are (E[v] = 1 over all rounds, those in
    which nothing arrives and memory alone is left among them: see :func:`fedgc.round.finish_round`), and whose error
    ``(v - 1)' G (v - 1)`` has the Gram matrix G of the *changes* since. These vanish as training converges, and with
    them the noise that stragglers cause: a constant step reaches the optimum, as SAGA does, and MIFA and FedVARP do
    without a code. Biased weights lose their bias with the changes too (SAG).

    References
    ----------
    A. Defazio, F. Bach, S. Lacoste-Julien, "SAGA", NeurIPS 2014; X. Gu et al., "Fast federated learning in the presence
    of arbitrary device unavailability" (MIFA), NeurIPS 2021; D. Jhunjhunwala et al., "FedVARP", UAI 2022.

    Examples
    --------
    >>> memory = UpdateMemory.empty(2).refresh(np.eye(2), [{"w": np.array([4.0])}, {"w": np.array([6.0])}])
    >>> memory.rest([1.5, 0.0], {"w": np.zeros(1)})
    {'w': array([4.])}
    """

    unit_of_shard: NDArray[np.intp]
    updates: Mapping[int, Arrays] = field(default_factory=dict)
    store: MemoryStore = field(default_factory=MemoryStore)

    @classmethod
    def empty(cls, n_shards: int, store: MemoryStore | None = None) -> UpdateMemory:
        """Return a memory of nothing, each shard a unit."""
        return cls(np.arange(n_shards), {}, store or MemoryStore())

    @property
    def n_units(self) -> int:
        """Number of units."""
        return int(self.unit_of_shard.max()) + 1

    def for_units(self, unit_of_shard: NDArray[np.intp], shard_sizes: ArrayLike) -> UpdateMemory:
        """Return the memory for other units; what a unit had is divided among its shards by their sizes.

        Parameters
        ----------
        unit_of_shard : ndarray of int, shape (n_shards,)
            The new unit of each shard.
        shard_sizes : array_like, shape (n_shards,)
            Sizes of the shards, positive, in any unit.
        """
        if np.array_equal(unit_of_shard, self.unit_of_shard):
            return self
        if not self.updates:
            return replace(self, unit_of_shard=unit_of_shard)
        size = np.asarray(shard_sizes, dtype=np.float64)
        share = size / np.bincount(self.unit_of_shard, size)[self.unit_of_shard]
        shares = sparse.coo_array((share, (unit_of_shard, self.unit_of_shard))).tocsr()
        moved: dict[int, Arrays] = {}
        for new, (start, end) in enumerate(itertools.pairwise(shares.indptr.tolist())):
            parts = dict(zip(shares.indices[start:end].tolist(), shares.data[start:end].tolist(), strict=True))
            known = [unit for unit in parts if unit in self.updates]
            if known:
                moved[new] = combined(self.store, [parts[unit] for unit in known], [self.updates[u] for u in known])
        return replace(self, unit_of_shard=unit_of_shard, updates=moved)

    def of_units(self, matrix: Rows) -> sparse.csr_array[np.float64]:
        """Return rows over shards, which weigh all shards of a unit alike, as rows over units, (n_rows, n_units)."""
        first = np.unique(self.unit_of_shard, return_index=True)[1]
        return sparse.csr_array(sparse.csr_array(matrix)[:, first])

    def parts_of(self, shards: NDArray[np.intp], coefficients: NDArray[np.float64]) -> list[tuple[float, Arrays]]:
        """Return coefficients and updates that add up to ``(A H)_i``, what a row would bring if nothing had changed.

        Parameters
        ----------
        shards, coefficients : ndarray, shape (n_held,)
            The row of the encoding matrix.
        """
        if shards.size == 1:  # as with one shard for each client, where to sort takes longer than all else here
            unit = int(self.unit_of_shard[shards[0]])
            return [(float(coefficients[0]), self.updates[unit])] if unit in self.updates else []
        units, first = np.unique(self.unit_of_shard[shards], return_index=True)
        pairs = zip(units.tolist(), coefficients[first].tolist(), strict=True)
        return [(coefficient, self.updates[unit]) for unit, coefficient in pairs if unit in self.updates]

    def rest(self, coverage: ArrayLike, arrays: Arrays) -> Update:
        """Return ``sum_u (1 - v_u) H_u``, what memory adds to the decoded sum.

        Parameters
        ----------
        coverage : array_like, shape (n_shards,)
            v, how often each shard counts in what was decoded.
        arrays : mapping of str to ndarray
            Arrays of the model; only names and shapes are used.
        """
        of_unit = np.zeros(self.n_units)
        of_unit[self.unit_of_shard] = np.asarray(coverage, dtype=np.float64)
        total = zero_update(arrays)
        for unit, update in self.updates.items():
            if of_unit[unit] != 1.0:
                add_scaled(total, 1.0 - float(of_unit[unit]), update)
        return total

    def refresh(self, rows: Rows, sums: Sequence[Arrays], energy: ArrayLike | None = None) -> UpdateMemory:
        """Return the memory after sums have come: the smallest change that agrees with them.

        Parameters
        ----------
        rows : sparse array or ndarray, shape (n_rows, n_shards)
            The rows of the encoding matrix that came; a row weighs all shards of a unit alike.
        sums : list of (mapping of str to ndarray)
            What came, a sum per row. Rows that repeat each other count with their mean.
        energy : array_like, shape (n_shards,), optional
            How much each shard's update tends to change, squared; all alike by default.

        Notes
        -----
        With D the energies of the units, ``H + D A' (A D A')^+ (s - A H)``, a system for each set of rows that share
        units. A unit that comes by itself takes the value that came.
        """
        if not sums:
            return self
        matrix = self.of_units(rows)
        updates = dict(self.updates)
        alone = np.diff(matrix.indptr) == 1
        # The usual case: every row is about one unit, perhaps several times.
        if alone.all():
            for unit in np.unique(matrix.indices).tolist():
                own = np.flatnonzero(matrix.indices == unit)
                factors = matrix.data[own] / np.sum(matrix.data[own] ** 2)
                updates[unit] = combined(self.store, factors.tolist(), [sums[row] for row in own.tolist()])
            return replace(self, updates=updates)
        weight = np.bincount(self.unit_of_shard, None if energy is None else np.asarray(energy, dtype=np.float64))
        _, part_of = connected_components(matrix @ matrix.T, directed=False)
        for part in range(int(part_of.max()) + 1):
            own = np.flatnonzero(part_of == part)
            few = matrix[own]
            units = np.unique(few.indices)
            a = few[:, units].toarray()
            scatter = weight[units, None] * a.T
            gain = scatter @ np.linalg.pinv(a @ scatter, rcond=1e-12, hermitian=True)
            # H + C (s - A H) = (I - C A) H + C s; what is recovered keeps nothing of what it was, not even by rounding.
            keep = np.eye(units.size) - gain @ a
            keep[np.abs(keep) < _ROUNDING] = 0.0
            known = [place for place, unit in enumerate(units.tolist()) if unit in self.updates]
            parts = [sums[row] for row in own.tolist()] + [self.updates[int(units[place])] for place in known]
            for place, unit in enumerate(units.tolist()):
                factors = np.concatenate([gain[place], keep[place, known]])
                updates[unit] = combined(self.store, factors.tolist(), parts)
        return replace(self, updates=updates)


def combined(store: MemoryStore, factors: Sequence[float], updates: Sequence[Arrays]) -> Arrays:
    """Return the sum of factor times update as it is kept; a single update itself, since updates are never changed."""
    if list(factors) == [1.0]:
        return store.keep(updates[0])
    return store.keep(Combination(factors, updates))


def units_of(code: Code) -> NDArray[np.intp]:
    """Return the unit of each shard: shards that every row weighs alike are one unit, (n_shards,).

    Examples
    --------
    >>> from fedgc.codes import FractionalRepetition
    >>> units_of(FractionalRepetition([0, 1, 0, 1], [0, 0, 1, 1, 1])).tolist()
    [0, 0, 1, 1, 1]
    """
    if code.blocks is not None and (code.sparse_matrix.data == 1.0).all():
        return np.unique(code.blocks.of_shard, return_inverse=True)[1].astype(np.intp)
    columns = sparse.csc_array(code.sparse_matrix)
    columns.sort_indices()
    known: dict[tuple[bytes, bytes], int] = {}
    units = np.empty(code.n_shards, dtype=np.intp)
    for shard, (start, end) in enumerate(zip(columns.indptr[:-1], columns.indptr[1:], strict=True)):
        column = (columns.indices[start:end].tobytes(), columns.data[start:end].tobytes())
        units[shard] = known.setdefault(column, len(known))
    return units
