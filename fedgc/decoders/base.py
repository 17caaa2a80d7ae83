"""What a decoder is: calibrated once per round plan, then asked for weights once per set of arrivals."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedgc.codes import Code
from fedgc.gram import GramModel
from fedgc.validation import check_arrived, check_straggle_prob


class DecodingStatus(Enum):
    """How much of the shards the arrivals covered."""

    COMPLETE = "complete"
    PARTIAL = "partial"
    EMPTY = "empty"


@dataclass(frozen=True, eq=False)
class Decoding:
    """The outcome of decoding one set of arrivals.

    Attributes
    ----------
    decoding_weights : ndarray, shape (n_clients,)
        Weight w_i of each client's coded update in the decoded aggregate; zero for clients that did not arrive.
    coverage : ndarray, shape (n_shards,)
        ``v = A' w``: how often each shard's update counts in the aggregate. The target is one everywhere.
    status : DecodingStatus
        Whether every shard, some or none arrived.
    """

    decoding_weights: NDArray[np.float64]
    coverage: NDArray[np.float64]
    status: DecodingStatus


class CalibratedDecoder(ABC):
    """A decoder made ready for one code, one set of straggle probabilities and one Gram model.

    Attributes
    ----------
    code : Code
        The code that is decoded. Rules with fixed weights choose the encoding coefficients too, on the same shards, so
        it may have other coefficients than the code that was given.
    residual_error : float or None
        Predicted ``E[(v - 1)' G (v - 1)] / 1' G 1``, or None if there is no closed form;
        :func:`fedgc.analysis.analyse` then finds it.
    bias : ndarray of shape (n_shards,), or None
        ``E[v] - 1``, likewise.
    bias_standard_error : float
        Largest standard error of a shard's bias, where the calibration drew random arrival sets; else 0.
    """

    residual_error: float | None = None
    bias: NDArray[np.float64] | None = None
    bias_standard_error: float = 0.0

    def __init__(self, code: Code) -> None:
        self.code = code
        self._reach = abs(code.sparse_matrix).T.tocsr()

    def decode(self, arrived: ArrayLike) -> Decoding:
        """Return the decoding weights for the clients that arrived, boolean of shape (n_clients,).

        Raises
        ------
        ValueError
            If `arrived` is not a boolean vector with one entry per client.
        """
        came = check_arrived(arrived, self.code.n_clients)
        weights = self._weights(came)
        coverage = self.code.coverage(weights)
        if came.all() or (self._reach @ came > 0).all():
            status = DecodingStatus.COMPLETE
        else:
            status = DecodingStatus.PARTIAL if came.any() else DecodingStatus.EMPTY
        return Decoding(weights, coverage, status)

    @abstractmethod
    def _weights(self, arrived: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Return the weight of every client, zero for those that did not arrive."""


class Decoder(ABC):
    """A rule that turns arrivals into decoding weights.

    To add a decoder, subclass this in a file of its own and add it to ``DECODERS`` in
    ``fedgc/decoders/__init__.py``. The contract suite in ``tests/test_decoder_contract.py`` picks it up from there.
    """

    name: ClassVar[str]
    #: Whether E[v] = 1 for every code, arrival model and Gram model that the decoder accepts.
    unbiased: ClassVar[bool] = True

    def calibrate(self, code: Code, straggle_prob: ArrayLike, gram: GramModel) -> CalibratedDecoder:
        """Prepare for rounds with this code and these clients.

        Parameters
        ----------
        code : Code
            Who computes which shards.
        straggle_prob : array_like, shape (n_clients,)
            Probability in [0, 1) that each client misses the deadline, independently of the others.
        gram : GramModel
            Model of the Gram matrix of the n_shards weighted shard updates.

        Raises
        ------
        ValueError
            If the sizes do not match, a probability lies outside [0, 1), or the decoder cannot serve the code.
        """
        prob = check_straggle_prob(straggle_prob, code.n_clients)
        if gram.incoherent.size != code.n_shards:
            raise ValueError(f"gram must be of size n_shards = {code.n_shards}; got {gram.incoherent.size}")
        return self._calibrate(code, prob, gram)

    @abstractmethod
    def _calibrate(self, code: Code, straggle_prob: NDArray[np.float64], gram: GramModel) -> CalibratedDecoder:
        """Calibrate with checked arguments."""
