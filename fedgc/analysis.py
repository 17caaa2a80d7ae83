"""What to expect of a code and a decoder: residual error, bias and load, exactly where possible."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedgc.arrivals import ArrivalModel, as_arrival_model
from fedgc.codes import Code, mean_over_places
from fedgc.decoders.base import CalibratedDecoder
from fedgc.errors import NoUnbiasedDecoderError
from fedgc.gram import GramModel
from fedgc.validation import check_integer, check_straggle_prob

#: Up to this many sets of arrivals are visited one by one.
MOST_SETS_ENUMERATED = 4096


@dataclass(frozen=True, eq=False)
class Analysis:
    """Moments of a decoder.

    Attributes
    ----------
    load : float
        Number of shard copies per shard.
    residual_error : float
        ``E[(v - 1)' G (v - 1)] / 1' G 1``.
    bias : ndarray, shape (n_shards,)
        ``E[v] - 1``, of shards that change places the mean over the places; from random arrivals, where
        `standard_error` is above 0.
    standard_error : float
        Standard error of the residual error; 0 where it is exact.
    """

    load: float
    residual_error: float
    bias: NDArray[np.float64]
    standard_error: float


def analyse(
    calibrated: CalibratedDecoder,
    arrivals: ArrivalModel | ArrayLike,
    gram: GramModel,
    *,
    rng: np.random.Generator,
    draws: int = 1000,
) -> Analysis:
    """Return residual error, bias and load of a calibrated decoder.

    In closed form if the decoder has one, by enumeration of up to 4096 sets of arrivals, else from random
    ones.

    Parameters
    ----------
    calibrated : CalibratedDecoder
        The decoder, calibrated for its code; not necessarily with the arguments that follow.
    arrivals : ArrivalModel, or array_like of shape (n_clients,)
        The arrival model, or straggle probabilities in [0, 1), that `calibrated` was made with.
    gram : GramModel
        The Gram model that `calibrated` was made with.
    rng : numpy.random.Generator
        Source of random arrival sets, if they are needed.
    draws : int
        Number of random arrival sets.

    Examples
    --------
    >>> from fedgc.codes import Uncoded
    >>> from fedgc.decoders import ScaledMeanDecoder
    >>> code, gram = Uncoded(2, 2), GramModel.uniform(2, 0.0)
    >>> calibrated = ScaledMeanDecoder().calibrate(code, [0.5, 0.5], gram)
    >>> analysis = analyse(calibrated, [0.5, 0.5], gram, rng=np.random.default_rng(0))
    >>> analysis.bias.tolist(), analysis.standard_error
    ([-0.25, -0.25], 0.0)
    """
    model = as_arrival_model(arrivals, calibrated.code.n_rows)
    check_integer("draws", draws, low=2)
    load = calibrated.code.load
    if gram.incoherent.size != calibrated.code.n_shards:
        raise ValueError(f"gram must be of size n_shards = {calibrated.code.n_shards}; got {gram.incoherent.size}")
    if calibrated.residual_error is not None and calibrated.bias is not None:
        return Analysis(load, calibrated.residual_error, calibrated.bias, 0.0)
    labels = calibrated.code.interchangeable
    n_shards = calibrated.code.n_shards
    mean, error = np.zeros(n_shards), 0.0
    if model.n_sets <= MOST_SETS_ENUMERATED:
        for chunk, weights in model.sets():
            for arrived, weight in zip(chunk, weights, strict=True):
                coverage = calibrated.decode(arrived).coverage
                mean += weight * coverage
                error += weight * gram.error_over_places(coverage, labels)
        return Analysis(load, error, mean_over_places(mean, labels) - 1.0, 0.0)
    coverages = np.array([calibrated.decode(arrived).coverage for arrived in model.draw(draws, rng)])
    errors = np.array([gram.error_over_places(coverage, labels) for coverage in coverages])
    standard_error = float(errors.std(ddof=1) / np.sqrt(draws))
    bias = mean_over_places(coverages.mean(axis=0), labels) - 1.0
    return Analysis(load, float(errors.mean()), bias, standard_error)


def orthogonal_lower_bound(code: Code, straggle_prob: ArrayLike, energy: ArrayLike) -> float:
    """Return the least residual error of any linear unbiased code and decoder on these shard copies, if r = 0.

    Parameters
    ----------
    code : Code
        The assignment.
    straggle_prob : array_like, shape (n_clients,)
        Probability in [0, 1) that each client misses the deadline.
    energy : array_like, shape (n_shards,)
        Energy of each shard's update, above 0.

    Returns
    -------
    float
        ``sum_j d_j P_j / (1 - P_j) / sum_j d_j`` with P_j the probability that all holders of shard j miss. Fractional
        repetition attains it.

    Examples
    --------
    >>> from fedgc.codes import FractionalRepetition
    >>> orthogonal_lower_bound(FractionalRepetition([0, 0], [0, 0]), [0.5, 0.5], [1.0, 1.0])
    0.3333333333333333
    """
    prob = check_straggle_prob(straggle_prob, code.n_clients)
    d = GramModel(energy, np.zeros(code.n_shards)).incoherent
    copies = code.sparse_matrix.tocoo()
    holder, shard = copies.coords
    missing = np.ones(code.n_shards)
    np.multiply.at(missing, shard, prob[holder])
    if (missing == 1.0).any():
        raise NoUnbiasedDecoderError(
            f"every shard must be held by a client; got none for shard {int(missing.argmax())}"
        )
    return float(np.sum(d * missing / (1.0 - missing)) / d.sum())
