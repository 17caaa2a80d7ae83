"""The optimal decoder for blocks with any states: partial work, several messages, members that fail together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedgc.arrivals import ArrivalModel
from fedgc.calibration.block_states import Block
from fedgc.calibration.projection import project, row_space
from fedgc.calibration.states import calibrate_states
from fedgc.codes import Code
from fedgc.decoders.decoding import EarlyWeights, SplitWeights
from fedgc.decoders.optimal_base import CalibratedOptimal, Vector, predicted_residual_error
from fedgc.gram import GramModel

#: Rounds drawn to find the variance of the coverage.
_VARIANCE_DRAWS = 500

#: How much more decoding may round where coefficients are other than zero and one, and elimination is not exact.
_GENERAL_COEFFICIENTS = 20.0


class _Stack(NamedTuple):
    """Blocks with equally many rows and super-shards."""

    rows: NDArray[np.intp]  # (n, k)
    coefficients: Vector  # (n, k, m)
    energy: Vector  # (n, m)
    coherent: Vector  # (n, m)
    target: Vector  # (n, m)
    rank: NDArray[np.intp]  # (n,), directions that can arrive at all


class _Singles(NamedTuple):
    """Rows that are one super-shard each, of all blocks that consist of such rows; nothing needs to be solved there."""

    rows: NDArray[np.intp]  # (k,)
    shard: NDArray[np.intp]  # (k,), the super-shard of each row
    energy: Vector  # (m,)
    coherent: Vector  # (m,)
    target: Vector  # (m,)
    n_reachable: int  # super-shards that can arrive

    @classmethod
    def of(cls, blocks: Sequence[Block], targets: Sequence[Vector]) -> _Singles:
        """Collect the blocks; rows that cannot arrive are left out."""
        rows, shard, start = [np.zeros(0, dtype=np.intp)], [np.zeros(0, dtype=np.intp)], 0
        for block in blocks:
            place, column = np.nonzero(block.coefficients)
            rows.append(block.rows[place])
            shard.append(start + column)
            start += block.energy.size
        empty = [np.zeros(0)]
        all_shards = np.concatenate(shard)
        return cls(
            np.concatenate(rows),
            all_shards,
            np.concatenate(empty + [block.energy for block in blocks]),
            np.concatenate(empty + [block.coherent for block in blocks]),
            np.concatenate(empty + list(targets)),
            np.unique(all_shards).size,
        )


class CalibratedForStates(CalibratedOptimal):
    """The optimal decoder over listed, or drawn, states of blocks."""

    def __init__(self, code: Code, blocks: Sequence[Block], gram: GramModel) -> None:
        super().__init__(code)
        target = calibrate_states(blocks)
        self.rounding = target.rounding
        self.bias = np.zeros(code.n_shards)
        excess = np.zeros(code.n_shards)
        for block, values in zip(blocks, target.excess, strict=True):
            excess[block.shards] = values[block.super_shard]
        if not np.isin(code.sparse_matrix.data, (0.0, 1.0)).all():
            self.rounding *= _GENERAL_COEFFICIENTS
        self.residual_error, self.residual_error_rounding = predicted_residual_error(gram, excess, self.rounding)
        targets = [1.0 + values for values in target.excess]
        single = [index for index, block in enumerate(blocks) if block.single]
        self._singles = _Singles.of([blocks[i] for i in single], [targets[i] for i in single])
        by_shape = defaultdict(list)
        for index, block in enumerate(blocks):
            if not block.single:
                by_shape[block.coefficients.shape].append(index)
        self._stacks = [
            _Stack(
                np.stack([blocks[i].rows for i in members]),
                np.stack([blocks[i].coefficients for i in members]),
                np.stack([blocks[i].energy for i in members]),
                np.stack([blocks[i].coherent for i in members]),
                np.stack([targets[i] for i in members]),
                np.array([blocks[i].rank for i in members]),
            )
            for members in by_shape.values()
        ]
        self._place = {
            int(row): (s, n) for s, stack in enumerate(self._stacks) for (n, _), row in np.ndenumerate(stack.rows)
        }

    def split(self, arrived: NDArray[np.bool_]) -> SplitWeights:
        """Return the decoding weights in two parts; see the base class."""
        alone, common = np.zeros(self.code.n_rows), np.zeros(self.code.n_rows)
        one = self._singles
        here = arrived[one.rows]
        copies = np.bincount(one.shard[here], minlength=one.energy.size)
        there, x = copies > 0, one.coherent**2 / one.energy
        missing = float((one.coherent * one.target) @ ~there)
        came = 1.0 + float(x @ there)
        # Copies of a shard are equal: they share its weight.
        share = here / np.maximum(copies, 1)[one.shard]
        alone[one.rows] = share * one.target[one.shard]
        common[one.rows] = share * (one.coherent / one.energy)[one.shard]
        for stack in self._stacks:
            rows = np.where(arrived[stack.rows][..., None], stack.coefficients, 0.0)
            projection = project(rows, stack.energy, stack.coherent)
            missing += float(np.sum(projection.missed * stack.target))
            came += float(projection.x.sum())
            # Rows may repeat each other; of all weights with the same coverage the least are taken, which shares alike.
            back = np.linalg.pinv(np.swapaxes(rows, 1, 2), rcond=1e-11)
            kept = np.einsum("nij,nj->ni", projection.onto, stack.target)
            alone[stack.rows] = np.einsum("nki,ni->nk", back, kept)
            common[stack.rows] = np.einsum("nki,ni->nk", back, projection.z)
        return SplitWeights(np.where(arrived, alone, 0.0), np.where(arrived, common, 0.0), missing / came)

    @cached_property
    def _early_singles(self) -> tuple[dict[int, int], NDArray[np.intp]]:
        """The place of each row among the singles, and the first row of each super-shard: every row that comes asks."""
        one = self._singles
        first = np.full(one.energy.size, self.code.n_rows, dtype=np.intp)
        np.minimum.at(first, one.shard, one.rows)
        return {row: place for place, row in enumerate(one.rows.tolist())}, first

    def early_weights(self, row: int) -> EarlyWeights | None:
        """Return a row's weights if they are known early; see the base class."""
        one = self._singles
        places, first = self._early_singles
        place = places.get(int(row))
        if place is not None:
            shard = one.shard[place]
            alone, common = float(one.target[shard]), float(one.coherent[shard] / one.energy[shard])
            return EarlyWeights(alone, common, int(first[shard]))
        if row not in self._place:
            return None
        index, n = self._place[row]
        stack = self._stacks[index]
        others, own = stack.coefficients[n], stack.coefficients[n][stack.rows[n] == row][0]
        overlapping = (others != 0.0) @ (own != 0.0) > 0
        equal = (others == own).all(axis=1)
        if not own.any() or not (equal | ~overlapping).all():
            return None
        alone = own * stack.energy[n] @ stack.target[n] / (own**2 @ stack.energy[n])
        common = own @ stack.coherent[n] / (own**2 @ stack.energy[n])
        return EarlyWeights(float(alone), float(common), int(stack.rows[n][np.argmax(equal)]))

    def _settled(self, arrived: NDArray[np.bool_]) -> bool:
        one = self._singles
        if np.unique(one.shard[arrived[one.rows]]).size < one.n_reachable:
            return False
        for stack in self._stacks:
            rows = np.where(arrived[stack.rows][..., None], stack.coefficients, 0.0)
            if (row_space(rows, stack.energy).pivot.sum(axis=1) < stack.rank).any():
                return False
        return True

    def estimate_bias(self, arrivals: ArrivalModel, draws: int, rng: np.random.Generator) -> None:
        """Set the standard error of the bias that drawn states leave, from the variance of the coverage.

        To first order the bias is the mean, over the drawn states, of what each block adds to the coverage. Its
        variance is at most that of the coverage over the number of draws, and equal to it for a single block.
        """
        arrived = arrivals.draw(_VARIANCE_DRAWS, rng)
        coverage = np.array([self.decode(one).coverage for one in arrived])
        self.bias = None  # not known any more
        self.bias_standard_error = float(np.sqrt(coverage.var(axis=0, ddof=1).max() / draws))
