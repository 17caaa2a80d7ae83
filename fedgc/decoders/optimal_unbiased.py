"""The optimal unbiased decoder: the least residual error among all unbiased rules that see who arrived."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fedgc.codes import Blocks, Code
from fedgc.decoders.base import CalibratedDecoder, Decoder
from fedgc.decoders.block_calibration import calibrate_blocks
from fedgc.decoders.set_calibration import MOST_CLIENTS_ENUMERATED, SetCalibration, SetSource
from fedgc.gram import GramModel
from fedgc.validation import check_integer


class OptimalUnbiasedDecoder(Decoder):
    """Minimum-variance unbiased decoding.

    Exact for codes with blocks of any number, and by enumeration for other codes of up to 16 clients; beyond,
    calibrated on random arrival sets, with the standard error of the bias that this leaves in ``bias_standard_error``.

    Parameters
    ----------
    draws : int
        Number of random arrival sets where enumeration is out of reach, at least 100.
    seed : int
        Their seed.

    Raises
    ------
    NoUnbiasedDecoderError
        On calibration, if a shard cannot be recovered from any arrivals.

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
    inverse probability weighting; for d -> 0 it divides by who came. The target is not one, so the weights of a
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

    def _calibrate(self, code: Code, straggle_prob: NDArray[np.float64], gram: GramModel) -> CalibratedDecoder:
        if code.blocks is not None:
            return _CalibratedForBlocks(code, code.blocks, straggle_prob, gram)
        draws = None if code.n_clients <= MOST_CLIENTS_ENUMERATED else self._draws
        return _CalibratedForSets(code, SetSource(straggle_prob, draws, self._seed), gram, draws)


class _CalibratedForBlocks(CalibratedDecoder):
    def __init__(self, code: Code, blocks: Blocks, straggle_prob: NDArray[np.float64], gram: GramModel) -> None:
        super().__init__(code)
        self._of_client, of_shard, self._n_blocks = blocks
        missing_prob = np.ones(self._n_blocks)
        np.multiply.at(missing_prob, self._of_client, straggle_prob)
        self._gram = gram.merge(of_shard, self._n_blocks)
        self._target = calibrate_blocks(missing_prob, self._gram)
        self.bias = np.zeros(code.n_shards)
        ones = np.ones(self._n_blocks)
        # Rounding may leave a tiny negative value where nothing straggles.
        gain = self._gram.inner(ones, self._target - ones)
        self.residual_error = max(0.0, gain / self._gram.inner(ones, ones))

    def _weights(self, arrived: NDArray[np.bool_]) -> NDArray[np.float64]:
        copies = np.bincount(self._of_client, arrived, self._n_blocks)
        came = copies > 0
        d, r, t = self._gram.incoherent, self._gram.coherent, self._target
        missing_mass = float(r[~came] @ t[~came])
        common = missing_mass / (1.0 + float(np.sum(r[came] ** 2 / d[came])))
        block_weight = np.where(came, t + r / d * common, 0.0) / np.maximum(copies, 1)
        return np.where(arrived, block_weight[self._of_client], 0.0)


class _CalibratedForSets(CalibratedDecoder):
    def __init__(self, code: Code, sets: SetSource, gram: GramModel, draws: int | None) -> None:
        super().__init__(code)
        self._calibration = SetCalibration(code, gram, sets)
        self.residual_error = self._calibration.residual_error
        self.bias = np.zeros(code.n_shards)
        if draws is not None:
            # The weights are unbiased over the drawn sets; over all sets a bias of this size remains.
            variance = np.maximum(self._calibration.second_moment - 1.0, 0.0)
            self.bias_standard_error = float(np.sqrt(variance.max() / draws))

    def _weights(self, arrived: NDArray[np.bool_]) -> NDArray[np.float64]:
        return self._calibration.weights(arrived)
