"""Calibration of the optimal decoder for codes without blocks: over all arrival sets, or over drawn ones."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from fedgc.codes import Code
from fedgc.errors import NoUnbiasedDecoderError
from fedgc.gram import GramModel

#: Up to this many clients all 2^n arrival sets are visited, which takes a few seconds.
MOST_CLIENTS_ENUMERATED = 16
_CHUNK = 2048


def arrival_sets(straggle_prob: NDArray[np.float64]) -> Iterator[tuple[NDArray[np.bool_], NDArray[np.float64]]]:
    """Yield all arrival sets in chunks, (k, n_clients), with their probabilities, (k,)."""
    n_clients = straggle_prob.size
    for start in range(0, 2**n_clients, _CHUNK):
        number = np.arange(start, min(start + _CHUNK, 2**n_clients))
        arrived = (number[:, None] >> np.arange(n_clients)) & 1 == 1
        yield arrived, np.prod(np.where(arrived, 1.0 - straggle_prob, straggle_prob), axis=1)


def drawn_sets(
    straggle_prob: NDArray[np.float64], draws: int, rng: np.random.Generator
) -> Iterator[tuple[NDArray[np.bool_], NDArray[np.float64]]]:
    """Yield `draws` random arrival sets in chunks, each with weight ``1 / draws``."""
    for start in range(0, draws, _CHUNK):
        k = min(_CHUNK, draws - start)
        yield rng.random((k, straggle_prob.size)) >= straggle_prob, np.full(k, 1.0 / draws)


class SetSource:
    """Arrival sets with weights that sum to one, which can be gone through more than once.

    Parameters
    ----------
    straggle_prob : ndarray, shape (n_clients,)
        Probability that each client misses the deadline, independently.
    draws : int or None
        Number of random sets, or None for all there are.
    seed : int
        Seed of the random sets.
    """

    def __init__(self, straggle_prob: NDArray[np.float64], draws: int | None, seed: int) -> None:
        self._straggle_prob, self._draws, self._seed = straggle_prob, draws, seed

    def __call__(self) -> Iterator[tuple[NDArray[np.bool_], NDArray[np.float64]]]:
        """Return an iterator over arrival sets and weights."""
        if self._draws is None:
            return arrival_sets(self._straggle_prob)
        return drawn_sets(self._straggle_prob, self._draws, np.random.default_rng([self._seed]))


class SetCalibration:
    """The target t with ``E[Q_A] t = 1``, for any code.

    Parameters
    ----------
    code : Code
        The code, with n_clients rows.
    gram : GramModel
        Gram model of the shards.
    sets : SetSource
        The arrival sets, gone through twice.

    Attributes
    ----------
    residual_error : float
        ``E[(v - 1)' G (v - 1)] / 1' G 1`` over the given sets.
    second_moment : ndarray, shape (n_shards,)
        ``E[v_j^2]`` over the given sets.

    Raises
    ------
    NoUnbiasedDecoderError
        If some shard never arrives, or never apart from another, so that no weights are unbiased.

    Notes
    -----
    ``Q_A = A'(A G A')^+ A G`` for the rows A that arrived. With ``K = A G A'`` over all clients the pseudo-inverse acts
    on the block of K of those who arrived, so the expectation is taken there, over matrices of size n_clients, and
    ``E[Q_A] = A' E[embedded (K_SS)^+] A G`` follows.
    """

    def __init__(self, code: Code, gram: GramModel, sets: SetSource) -> None:
        matrix = code.encoding_matrix
        projected = matrix * gram.incoherent + np.outer(matrix @ gram.coherent, gram.coherent)  # A G
        self._kernel = projected @ matrix.T
        mean_inverse = np.zeros_like(self._kernel)
        for arrived, weight in sets():
            mean_inverse += np.einsum("s,sij->ij", weight, self._inverses(arrived))
        mean_projection = matrix.T @ mean_inverse @ projected
        ones = np.ones(code.n_shards)
        target = np.linalg.lstsq(mean_projection, ones, rcond=1e-13)[0]
        missed = np.abs(mean_projection @ target - ones)
        if missed.max() > 1e-7:
            raise NoUnbiasedDecoderError(
                f"every shard must be recoverable from some arrivals; got none for shard {int(missed.argmax())}"
            )
        self._aimed = projected @ target
        second, error = np.zeros(code.n_shards), 0.0
        for arrived, weight in sets():
            coverage = np.einsum("sij,j->si", self._inverses(arrived), self._aimed) @ matrix
            second += weight @ coverage**2
            gap = coverage - ones
            error += float(weight @ (gap**2 @ gram.incoherent + (gap @ gram.coherent) ** 2))
        self.second_moment = second
        self.residual_error = error / gram.inner(ones, ones)

    def weights(self, arrived: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Return the decoding weights of one arrival set, (n_clients,)."""
        inverse: NDArray[np.float64] = self._inverses(arrived[None, :])[0]
        return inverse @ self._aimed

    def _inverses(self, arrived: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Return the pseudo-inverses of K on each set, zero elsewhere, (k, n_clients, n_clients)."""
        both = arrived[:, :, None] & arrived[:, None, :]
        return np.linalg.pinv(np.where(both, self._kernel, 0.0), rcond=1e-12, hermitian=True)
