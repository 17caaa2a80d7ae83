"""What a decoder is: calibrated once per round plan, then asked for weights once per set of arrivals."""

from __future__ import annotations

from abc import ABC, abstractmethod
from copy import copy
from functools import cached_property
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from fedgc.arrivals import ArrivalModel, IndependentArrivals, as_arrival_model
from fedgc.codes import Code, mean_over_places
from fedgc.decoders.decoding import CalibrationStatus, Decoding, DecodingStatus, EarlyWeights, SplitWeights
from fedgc.errors import NoUnbiasedDecoderError
from fedgc.gram import GramModel
from fedgc.validation import check_arrived

#: Bias up to which a calibration counts as exact; error of the residual error, absolute and relative.
_EXACT_BIAS = 1e-10
_EXACT_ERROR = (1e-14, 1e-9)


class CalibratedDecoder(ABC):
    """A decoder made ready for one code, one arrival model and one Gram model.

    Attributes
    ----------
    code : Code
        The code that is decoded. Rules with fixed weights choose the encoding coefficients too, on the same shards, so
        it may have other coefficients than the code that was given.
    residual_error : float or None
        Predicted ``E[(v - 1)' G (v - 1)] / 1' G 1``, or None if there is no closed form;
        :func:`fedgc.analysis.analyse` then finds it.
    bias : ndarray of shape (n_shards,), or None
        ``E[v] - 1``, likewise; None also if the calibration drew random arrivals. Of shards that change places, the
        mean over the places.
    bias_standard_error : float
        Largest standard error of a shard's bias, where the calibration drew random arrivals; else 0.
    rounding : float
        Bound of the bias that rounding may leave, where the calibration solves for its weights; else 0.
    residual_error_rounding : float
        Likewise for the residual error; and how much too large it may be where shards that differ change places.
    """

    residual_error: float | None = None
    bias: NDArray[np.float64] | None = None
    bias_standard_error: float = 0.0
    rounding: float = 0.0
    residual_error_rounding: float = 0.0

    def __init__(self, code: Code) -> None:
        self.code = code

    @property
    def status(self) -> CalibrationStatus:
        """Whether the decoder is as exact as it says."""
        enough = max(_EXACT_ERROR[0], _EXACT_ERROR[1] * (self.residual_error or 0.0))
        if not (self.rounding <= _EXACT_BIAS and self.residual_error_rounding <= enough):
            return CalibrationStatus.INACCURATE
        return CalibrationStatus.ESTIMATED if self.bias_standard_error > 0.0 else CalibrationStatus.EXACT

    def with_places(self, shard_at: NDArray[np.intp]) -> CalibratedDecoder:
        """Return the decoder for a round in which shard ``shard_at[j]`` is in the place of shard j.

        Weights go by the rows of the encoding matrix, which keep their numbers, so nothing is calibrated anew.
        """
        other = copy(self)
        other.__dict__.pop("_reach", None)
        other.code = self.code.with_places(shard_at)
        return other

    def take_the_mean_over_places(self, labels: NDArray[np.intp], gram: GramModel) -> None:
        """Turn bias and residual error, found for ``gram.averaged(labels)``, into those over all places, under `gram`.

        The error is then a bound from above, see :meth:`fedgc.gram.GramModel.averaged`. With s^2 the spread that was
        added to energies d it is too large by at most ``s^2 / (d + s^2)`` of itself.
        """
        if self.bias is not None:
            self.bias = mean_over_places(self.bias, labels)
        if self.residual_error is None:
            return
        ones, averaged = np.ones(labels.size), gram.averaged(labels)
        scale = averaged.inner(ones, ones) / gram.inner(ones, ones)
        mean = mean_over_places(gram.incoherent, labels)
        slack = float((1.0 - mean / averaged.incoherent).max())
        self.residual_error *= scale
        self.residual_error_rounding = self.residual_error_rounding * scale + max(slack, 0.0) * self.residual_error

    def decode(self, arrived: ArrayLike) -> Decoding:
        """Return the decoding weights for the coded updates that arrived, boolean of shape (n_rows,).

        Raises
        ------
        ValueError
            If `arrived` is not a boolean vector with one entry per row of the encoding matrix.
        """
        came = check_arrived(arrived, self.code.n_rows)
        if not came.any():
            status = DecodingStatus.EMPTY
        else:
            status = DecodingStatus.COMPLETE if self._complete(came) else DecodingStatus.PARTIAL
        return Decoding(self._weights(came), status, self.code)

    def split(self, arrived: NDArray[np.bool_]) -> SplitWeights:
        """Return the decoding weights in two parts, of which the first may be known before the round ends."""
        weights = self._weights(arrived)
        return SplitWeights(weights, np.zeros_like(weights), 0.0)

    def early_weights(self, row: int) -> EarlyWeights | None:
        """Return a row's weights if they do not depend on what else comes, else None.

        :class:`fedgc.decoders.StreamingSum` then adds it to its sums at once and need not keep it.
        """
        return None

    def settled(self, arrived: ArrayLike) -> bool:
        """Return whether the coverage is what it would be with everything, so that waiting longer buys nothing.

        A rule in which every arrival counts, even a further copy, is never settled before all have come.

        Raises
        ------
        ValueError
            If `arrived` is not a boolean vector with one entry per row of the encoding matrix.
        """
        return self._settled(check_arrived(arrived, self.code.n_rows))

    @property
    def ends_early(self) -> bool:
        """Whether :meth:`settled` may be true before everything has come."""
        return type(self)._settled is not CalibratedDecoder._settled

    def _settled(self, arrived: NDArray[np.bool_]) -> bool:
        return False

    def _complete(self, arrived: NDArray[np.bool_]) -> bool:
        """Return whether every shard is in something that arrived."""
        return bool(arrived.all()) or bool((self._reach @ arrived > 0).all())

    @cached_property
    def _reach(self) -> sparse.csr_array[np.float64]:
        return abs(self.code.sparse_matrix).T.tocsr()

    @abstractmethod
    def _weights(self, arrived: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Return the weight of every coded update, zero for those that did not arrive."""


class Decoder(ABC):
    """A rule that turns arrivals into decoding weights.

    To add a decoder, subclass this in a file of its own and add it to ``DECODERS`` in
    ``fedgc/decoders/__init__.py``. The contract suite in ``tests/test_decoder_contract.py`` picks it up from there.
    """

    name: ClassVar[str]
    #: Whether E[v] = 1 for every code, arrival model and Gram model that the decoder accepts.
    unbiased: ClassVar[bool] = True
    #: Whether what arrives has a weight of its own, settled before the round, whatever else arrives.
    weights_settled: ClassVar[bool] = False
    #: What clients may send of a work list ("whole", "share", "shard") for the rule to decode what they get done of it;
    #: nothing for a rule that knows whole updates only.
    partial_work: ClassVar[tuple[str, ...]] = ("whole", "share", "shard")
    #: Whether the rule knows of messages that each client rounds for itself; see :meth:`for_own_rounding`.
    knows_own_rounding: ClassVar[bool] = False

    def calibrate(self, code: Code, arrivals: ArrivalModel | ArrayLike, gram: GramModel) -> CalibratedDecoder:
        """Prepare for rounds with this code and these clients.

        Parameters
        ----------
        code : Code
            Who computes which shards.
        arrivals : ArrivalModel, or array_like of shape (n_clients,)
            What comes by the deadline, and how likely. Numbers in [0, 1) are the probabilities that each client misses
            it, independently of the others.
        gram : GramModel
            Model of the Gram matrix of the n_shards weighted shard updates.

        Raises
        ------
        ValueError
            If the sizes do not match, a probability lies outside [0, 1), or the decoder cannot serve the code.
        NoUnbiasedDecoderError
            If all holders of a shard are certain to miss.
        """
        if not isinstance(arrivals, ArrivalModel):
            _refuse_unserved(code, np.asarray(arrivals, dtype=np.float64))
        model = as_arrival_model(arrivals, code.n_rows)
        if gram.incoherent.size != code.n_shards:
            raise ValueError(f"gram must be of size n_shards = {code.n_shards}; got {gram.incoherent.size}")
        calibrated = self._calibrate(code, model, gram.averaged(code.interchangeable))
        if code.interchangeable is not None:
            calibrated.take_the_mean_over_places(code.interchangeable, gram)
        return calibrated

    def for_own_rounding(self, variance_factor: NDArray[np.float64]) -> Decoder:
        """Return the rule for messages of whole blocks that each client rounds for itself.

        Parameters
        ----------
        variance_factor : ndarray, shape (n_clients,)
            omega_i with ``E|Q(x) - x|^2 = omega_i |x|^2`` of each client.

        Raises
        ------
        ValueError
            If the rule knows of no rounding.
        """
        raise ValueError(f"decoder must know of each client's rounding; got {self.name!r}, which does not")

    @abstractmethod
    def _calibrate(self, code: Code, arrivals: ArrivalModel, gram: GramModel) -> CalibratedDecoder:
        """Calibrate with checked arguments."""

    def _straggle_prob(self, arrivals: ArrivalModel) -> NDArray[np.float64]:
        """Return the clients' straggle probabilities, for rules that know whole updates only."""
        if not isinstance(arrivals, IndependentArrivals):
            raise ValueError(
                f"arrivals must be IndependentArrivals for decoder {self.name!r}; got {type(arrivals).__name__}"
            )
        return arrivals.straggle_prob


def refuse_unheld(code: Code) -> None:
    """Raise NoUnbiasedDecoderError if some shard has no holder, for rules that divide each shard among its holders."""
    held = np.bincount(code.sparse_matrix.indices, minlength=code.n_shards)
    if (held == 0).any():
        raise NoUnbiasedDecoderError(f"every shard must be held by a client; got none for shard {int(held.argmin())}")


def _refuse_unserved(code: Code, straggle_prob: NDArray[np.float64]) -> None:
    if straggle_prob.shape != (code.n_rows,) or not (straggle_prob == 1.0).any():
        return
    unserved = abs(code.sparse_matrix).T @ (straggle_prob < 1.0) == 0.0
    if unserved.any():
        raise NoUnbiasedDecoderError(
            "straggle_prob must lie in [0, 1) for a holder of every shard; "
            f"got 1 for all that hold shard {int(np.argmax(unserved))}, which cannot be served"
        )
