"""The optimal unbiased decoder: the least residual error among all unbiased rules that see what arrived."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedgc.arrivals import ArrivalModel, IndependentArrivals
from fedgc.calibration.block_states import MOST_STATES, find_blocks
from fedgc.codes import Code
from fedgc.decoders.base import CalibratedDecoder, Decoder
from fedgc.decoders.optimal_base import CalibratedOptimal
from fedgc.decoders.optimal_quantised import CalibratedForQuantised, with_shared_rounding
from fedgc.decoders.optimal_states import CalibratedForStates
from fedgc.decoders.optimal_whole_blocks import CalibratedForWholeBlocks
from fedgc.gram import GramModel
from fedgc.validation import check_integer, check_variance_factor


class OptimalUnbiasedDecoder(Decoder):
    """Minimum-variance unbiased decoding.

    Exact for any code that falls into blocks with up to 65,536 states each: fractional repetition of any size, work
    lists with partial work and several messages per client, members that fail together (whole blocks of any size, where
    who fails together is in one block), and any code of up to 16
    clients. A block with more states is calibrated on random ones; the standard error of the bias that this leaves is
    in ``bias_standard_error``. Shards with a single holder are blocks of one.

    Parameters
    ----------
    draws : int
        Number of random states of a block whose states are too many to list, at least 100.
    most_states : int
        Blocks with more states are calibrated on random ones. Fewer make calibration faster and its result an estimate.
    seed : int
        Their seed.
    variance_factor : float or array_like, shape (n_clients,)
        Of quantised messages, omega_i with ``E|Q(x) - x|^2 = omega_i |x|^2``, see :mod:`fedgc.quantisers`; infinite for
        clients that send nothing. The noise counts as error then, in the weights and in the residual error.
    shared_rounding : bool
        Whether all that carry the same sum round it alike, from one seed, so that copies of it are equal and one of
        them is as good as all. `variance_factor` must then be one number. Otherwise each rounds on its own, and copies
        are weighed by inverse variance.

    Raises
    ------
    ValueError
        If an option is out of range; on calibration, if messages that are rounded apart are not of whole blocks which
        come independently, or, with `shared_rounding`, rows of the code overlap.
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
    knows_own_rounding: ClassVar[bool] = True

    def __init__(
        self,
        *,
        draws: int = 4000,
        most_states: int = MOST_STATES,
        seed: int = 0,
        variance_factor: ArrayLike = 0.0,
        shared_rounding: bool = False,
    ) -> None:
        self._most_states = check_integer("most_states", most_states, low=1)
        self._draws = check_integer("draws", draws, low=100)
        self._seed = check_integer("seed", seed, low=0)
        factors = np.asarray(variance_factor, dtype=np.float64)
        self._factors = check_variance_factor(factors, factors.size if factors.ndim else 1)
        self._shared = shared_rounding
        if shared_rounding and (factors.ndim or not np.isfinite(factors)):
            raise ValueError(f"variance_factor must be one finite number for shared rounding; got {factors.tolist()}")

    def for_own_rounding(self, variance_factor: NDArray[np.float64]) -> OptimalUnbiasedDecoder:
        """Return the rule for messages that each client rounds for itself; see the base class."""
        return OptimalUnbiasedDecoder(
            draws=self._draws, most_states=self._most_states, seed=self._seed, variance_factor=variance_factor
        )

    def _calibrate(self, code: Code, arrivals: ArrivalModel, gram: GramModel) -> CalibratedDecoder:
        if not self._factors.any():
            return self._calibrate_exact(code, arrivals, gram)
        if self._shared:
            noisy, floor = with_shared_rounding(code, gram, float(self._factors[0]))
            calibrated = self._calibrate_exact(code, arrivals, noisy)
            calibrated.add_rounding(floor)
            return calibrated
        if code.blocks is None or not isinstance(arrivals, IndependentArrivals):
            raise ValueError(
                f"variance_factor needs whole blocks that come independently, or shared rounding; got "
                f"{type(code).__name__} and {type(arrivals).__name__}"
            )
        factors = check_variance_factor(self._factors if self._factors.size > 1 else self._factors[0], code.n_clients)
        return CalibratedForQuantised(code, code.blocks, arrivals.straggle_prob, gram, factors)

    def _calibrate_exact(self, code: Code, arrivals: ArrivalModel, gram: GramModel) -> CalibratedOptimal:
        log_missing = None if code.blocks is None else arrivals.log_silence(code.blocks[0], code.blocks[2])
        # A block of which nothing ever comes is found, and named, where states are listed.
        if code.blocks is not None and log_missing is not None and (log_missing < 0.0).all():
            return CalibratedForWholeBlocks(code, code.blocks, log_missing, gram)
        rng = np.random.default_rng([self._seed])
        blocks = find_blocks(code, arrivals, gram, most_states=self._most_states, draws=self._draws, rng=rng)
        calibrated = CalibratedForStates(code, blocks, gram)
        if any(block.drawn for block in blocks):
            calibrated.estimate_bias(arrivals, self._draws, rng)
        return calibrated
