"""Exact expectations over all arrival sets, the yardstick of every decoder test."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedgc.arrivals import ArrivalModel
from fedgc.codes import Code
from fedgc.decoders import CalibratedDecoder, Decoder
from fedgc.gram import GramModel


def arrival_sets(straggle_prob: NDArray[np.float64]) -> Iterator[tuple[NDArray[np.bool_], float]]:
    """Yield every arrival set of the clients with its probability."""
    for bits in itertools.product((False, True), repeat=len(straggle_prob)):
        arrived = np.array(bits)
        yield arrived, float(np.prod(np.where(arrived, 1 - straggle_prob, straggle_prob)))


@dataclass(frozen=True)
class Moments:
    """Exact mean coverage and residual error of a decoder."""

    coverage: NDArray[np.float64]
    residual_error: float

    @property
    def bias(self) -> float:
        return float(np.abs(self.coverage - 1).max())


def exact_moments(
    calibrated: CalibratedDecoder, arrivals: ArrivalModel | NDArray[np.float64], gram: GramModel
) -> Moments:
    """Enumerate all arrival sets; coverage is recomputed from the weights, not taken from the decoder."""
    matrix = calibrated.code.encoding_matrix
    coverage, error = np.zeros(matrix.shape[1]), 0.0
    sets = joint_sets(arrivals) if isinstance(arrivals, ArrivalModel) else arrival_sets(arrivals)
    for arrived, probability in sets:
        v = matrix.T @ calibrated.decode(arrived).decoding_weights
        coverage += probability * v
        error += probability * gram.residual_error(v)
    return Moments(coverage, error)


def joint_sets(arrivals: ArrivalModel) -> Iterator[tuple[NDArray[np.bool_], float]]:
    """Yield every combination of the parts' outcomes with its probability."""
    parts = arrivals.parts()
    for chosen in itertools.product(*(range(part.probability.size) for part in parts)):
        arrived, probability = np.zeros(arrivals.n_rows, dtype=bool), 1.0
        for part, outcome in zip(parts, chosen, strict=True):
            arrived[part.rows] = part.outcomes[outcome]
            probability *= float(part.probability[outcome])
        yield arrived, probability


def assert_unbiased(decoder: Decoder, code: Code, straggle_prob: NDArray[np.float64], gram: GramModel) -> None:
    """The heart of the contract, to 1e-12; a biased decoder must fail here."""
    moments = exact_moments(decoder.calibrate(code, straggle_prob, gram), straggle_prob, gram)
    assert moments.bias < 1e-12, f"{type(decoder).__name__}: bias {moments.bias:.3g}"
