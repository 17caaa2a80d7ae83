"""The optimal unbiased decoder: the least residual error among all unbiased rules that see what arrived."""

from __future__ import annotations

from abc import abstractmethod
from collections import defaultdict
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedgc.arrivals import ArrivalModel, IndependentArrivals
from fedgc.calibration.block_states import Block, find_blocks
from fedgc.calibration.projection import project
from fedgc.calibration.states import calibrate_states
from fedgc.calibration.whole_blocks import calibrate_whole_blocks
from fedgc.codes import Blocks, Code
from fedgc.decoders.base import CalibratedDecoder, Decoder, Decoding, DecodingStatus
from fedgc.gram import GramModel
from fedgc.validation import check_arrived, check_integer

Vector = NDArray[np.float64]

#: Rounds drawn to find the variance of the coverage.
_VARIANCE_DRAWS = 500

#: How much more decoding may round where coefficients are other than zero and one, and elimination is not exact.
_GENERAL_COEFFICIENTS = 20.0

#: The remainder that bounds the bias of one shard is not reached by all at once.
_RELATIVE_ROUNDING = 0.3


class OptimalUnbiasedDecoder(Decoder):
    """Minimum-variance unbiased decoding.

    Exact for any code that falls into blocks with up to 65,536 states each: fractional repetition of any size, work
    lists with partial work and several messages per client, members that fail together, and any code of up to 16
    clients. A block with more states is calibrated on random ones; the standard error of the bias that this leaves is
    in ``bias_standard_error``. Shards with a single holder are blocks of one.

    Parameters
    ----------
    draws : int
        Number of random states of a block whose states are too many to list, at least 100.
    seed : int
        Their seed.

    Raises
    ------
    NoUnbiasedDecoderError
        On calibration, if shards cannot be recovered from any arrivals; the message names them.

    Notes
    -----
    Among all weights with coverage v in the span of what arrived and ``E[v] = 1``, the residual error
    ``E[(v - 1)' G (v - 1)]`` is least for ``v = Q_A t`` where Q_A projects, in the inner product of G, onto the row
    space of the arrived rows A, and the target ``t = E[Q_A]^-1 1`` is the same in every round (the stationarity
    condition of the Lagrangian). The least value is ``1' G t - 1' G 1``.

    With ``G = diag(d) + r r'`` over the blocks and arrival indicators per block this is, by Sherman and Morrison,

        w_g = 1{g arrived} (t_g + (r_g / d_g) R),
        R = sum over missing h of r_h t_h  /  (1 + sum over arrived h of r_h^2 / d_h).

    In words: keep what came, and let it stand in for the missing blocks as far as the blocks are alike. For r = 0 it is
    inverse probability weighting. For d -> 0 what came adds up to the same whole in every round, which is dividing by
    who came where the clients are equally reliable. The target is not one, so the weights of a
    complete round differ from one too: complete rounds make up for incomplete ones.

    A block counts once, however many of its members come; its weight is shared evenly among them, which changes nothing
    when they send the same vector and averages their noise when they do not.

    Examples
    --------
    >>> from fedgc.codes import FractionalRepetition
    >>> code = FractionalRepetition([0, 0, 1, 1], [0, 1])
    >>> calibrated = OptimalUnbiasedDecoder().calibrate(code, [0.5] * 4, GramModel([1.0, 1.0], [0.0, 0.0]))
    >>> calibrated.decode([True, True, False, False]).coverage.round(12).tolist()
    [1.333333333333, 0.0]
    """

    name: ClassVar[str] = "optimal-unbiased"

    def __init__(self, *, draws: int = 4000, seed: int = 0) -> None:
        self._draws = check_integer("draws", draws, low=100)
        self._seed = check_integer("seed", seed, low=0)

    def _calibrate(self, code: Code, arrivals: ArrivalModel, gram: GramModel) -> CalibratedDecoder:
        if code.blocks is not None and isinstance(arrivals, IndependentArrivals):
            return _CalibratedForWholeBlocks(code, code.blocks, arrivals.straggle_prob, gram)
        rng = np.random.default_rng([self._seed])
        blocks = find_blocks(code, arrivals, gram, draws=self._draws, rng=rng)
        calibrated = _CalibratedForStates(code, blocks, gram)
        if any(block.drawn for block in blocks):
            calibrated.estimate_bias(arrivals, self._draws, rng)
        return calibrated


class SplitWeights(NamedTuple):
    """Decoding weights ``alone + common * R``: only the scalar R depends on other blocks.

    Attributes
    ----------
    alone, common : ndarray, shape (n_rows,)
        Zero for rows that did not arrive.
    missing_mass : float
        R, the coherent mass of what is missing over one plus that of what came.
    """

    alone: Vector
    common: Vector
    missing_mass: float


class CalibratedOptimal(CalibratedDecoder):
    """The optimal decoder for one round plan; :class:`fedgc.decoders.StreamingSum` decodes replies as they come."""

    @abstractmethod
    def split(self, arrived: NDArray[np.bool_]) -> SplitWeights:
        """Return the decoding weights in two parts."""

    @abstractmethod
    def early_weights(self, row: int) -> tuple[float, float, int] | None:
        """Return a row's `alone` and `common` and the id it shares with equal rows, or None if they depend on others.

        They are known early if whatever else may arrive of the block has no shard in common with the row, or all.
        """

    def _weights(self, arrived: NDArray[np.bool_]) -> Vector:
        alone, common, mass = self.split(arrived)
        weights: Vector = alone + common * mass
        return weights


class _CalibratedForWholeBlocks(CalibratedOptimal):
    def __init__(self, code: Code, blocks: Blocks, straggle_prob: Vector, gram: GramModel) -> None:
        super().__init__(code)
        self._of_client, of_shard, self._n_blocks = blocks
        with np.errstate(divide="ignore"):  # log 0 of a client that never straggles
            log_missing = np.bincount(self._of_client, np.log(straggle_prob), self._n_blocks)
        merged = gram.merge(of_shard, self._n_blocks)
        excess, self.rounding = calibrate_whole_blocks(np.exp(log_missing), -np.expm1(log_missing), merged)
        self.bias = np.zeros(code.n_shards)
        self.residual_error, self.residual_error_rounding = _residual_error(merged, excess, self.rounding)
        d, r = merged.incoherent, merged.coherent
        self._target = 1.0 + excess
        self._common = r / d
        self._mass = r * self._target
        self._x = r**2 / d

    def split(self, arrived: NDArray[np.bool_]) -> SplitWeights:
        copies = np.bincount(self._of_client[arrived], minlength=self._n_blocks)
        came = copies > 0
        missing_mass = float(self._mass @ ~came) / (1.0 + float(self._x @ came))
        # Copies of a block are equal: shared among them, its weight also averages what noise they have.
        share = arrived / np.maximum(copies, 1)[self._of_client]
        return SplitWeights(self._target[self._of_client] * share, self._common[self._of_client] * share, missing_mass)

    def early_weights(self, row: int) -> tuple[float, float, int] | None:
        block = int(self._of_client[row])
        return float(self._target[block]), float(self._common[block]), block

    def decode(self, arrived: ArrayLike) -> Decoding:
        """Return the decoding weights for the clients that arrived; see the base class. Counts the copies only once."""
        came = check_arrived(arrived, self.code.n_clients)
        copies = np.bincount(self._of_client[came], minlength=self._n_blocks)
        there = copies > 0
        missing_mass = float(self._mass @ ~there) / (1.0 + float(self._x @ there))
        block_weight = (self._target + self._common * missing_mass) / np.maximum(copies, 1)
        status = DecodingStatus.EMPTY
        if there.any():
            status = DecodingStatus.COMPLETE if there.all() else DecodingStatus.PARTIAL
        return Decoding(block_weight[self._of_client] * came, status, self.code)


class _Stack(NamedTuple):
    """Blocks with equally many rows and super-shards."""

    rows: NDArray[np.intp]  # (n, k)
    coefficients: Vector  # (n, k, m)
    energy: Vector  # (n, m)
    coherent: Vector  # (n, m)
    target: Vector  # (n, m)


class _CalibratedForStates(CalibratedOptimal):
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
        self.residual_error, self.residual_error_rounding = _residual_error(gram, excess, self.rounding)
        by_shape = defaultdict(list)
        for index, block in enumerate(blocks):
            by_shape[block.coefficients.shape].append(index)
        self._stacks = [
            _Stack(
                np.stack([blocks[i].rows for i in members]),
                np.stack([blocks[i].coefficients for i in members]),
                np.stack([blocks[i].energy for i in members]),
                np.stack([blocks[i].coherent for i in members]),
                np.stack([1.0 + target.excess[i] for i in members]),
            )
            for members in by_shape.values()
        ]
        self._place = {
            int(row): (s, n) for s, stack in enumerate(self._stacks) for (n, _), row in np.ndenumerate(stack.rows)
        }

    def split(self, arrived: NDArray[np.bool_]) -> SplitWeights:
        alone, common = np.zeros(self.code.n_rows), np.zeros(self.code.n_rows)
        missing, came = 0.0, 1.0
        for stack in self._stacks:
            rows = np.where(arrived[stack.rows][..., None], stack.coefficients, 0.0)
            there = project(rows, stack.energy, stack.coherent)
            missing += float(np.sum(there.missed * stack.target))
            came += float(there.x.sum())
            # Rows may repeat each other; of all weights with the same coverage the least are taken, which shares alike.
            back = np.linalg.pinv(np.swapaxes(rows, 1, 2), rcond=1e-11)
            kept = np.einsum("nij,nj->ni", there.onto, stack.target)
            alone[stack.rows] = np.einsum("nki,ni->nk", back, kept)
            common[stack.rows] = np.einsum("nki,ni->nk", back, there.z)
        return SplitWeights(np.where(arrived, alone, 0.0), np.where(arrived, common, 0.0), missing / came)

    def early_weights(self, row: int) -> tuple[float, float, int] | None:
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
        return float(alone), float(common), int(stack.rows[n][np.argmax(equal)])

    def estimate_bias(self, arrivals: ArrivalModel, draws: int, rng: np.random.Generator) -> None:
        """Set the standard error of the bias that drawn states leave, from the variance of the coverage.

        To first order the bias is the mean, over the drawn states, of what each block adds to the coverage. Its
        variance is at most that of the coverage over the number of draws, and equal to it for a single block.
        """
        arrived = arrivals.draw(_VARIANCE_DRAWS, rng)
        coverage = np.array([self.decode(one).coverage for one in arrived])
        self.bias = None  # not known any more
        self.bias_standard_error = float(np.sqrt(coverage.var(axis=0, ddof=1).max() / draws))


def _residual_error(gram: GramModel, excess: Vector, rounding: float) -> tuple[float, float]:
    """Return ``1' G (t - 1) / 1' G 1`` and how far rounding may have moved it.

    A bias of beta moves it by ``t' G beta / 1' G 1``, since ``G E[Q]`` is symmetric.
    """
    ones = np.ones(excess.size)
    whole = gram.inner(ones, ones)
    target = 1.0 + excess
    slope = float(np.abs(gram.incoherent * target + gram.coherent * (gram.coherent @ target)).sum())
    # Rounding may leave a tiny negative value where nothing straggles.
    return max(0.0, gram.inner(ones, excess) / whole), _RELATIVE_ROUNDING * rounding * slope / whole
