"""The optimal decoder for messages that are rounded to a few bits, of blocks that arrive whole or not at all."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fedgc.calibration.quantised_blocks import calibrate_quantised_blocks, noise_states
from fedgc.codes import Blocks, Code
from fedgc.decoders.decoding import EarlyWeights, SplitWeights
from fedgc.decoders.optimal_base import CalibratedOptimal, Vector
from fedgc.errors import NoUnbiasedDecoderError
from fedgc.gram import GramModel

#: Noise is taken to be at least this share of a block's energy, which changes no weight by more.
_LEAST_NOISE = 1e-13


class CalibratedForQuantised(CalibratedOptimal):
    """The optimal decoder over independent blocks whose members round their messages on their own.

    Parameters
    ----------
    code : Code
        A code of blocks with equal rows.
    blocks : Blocks
        Its blocks.
    straggle_prob : ndarray, shape (n_clients,)
        Probability of each client to miss the deadline.
    gram : GramModel
        Gram model of the shards.
    variance_factor : ndarray, shape (n_clients,)
        Of each client's quantiser; infinite for one that sends nothing.

    Notes
    -----
    The residual error has the noise of the rounding in it: ``E|decoded - full|^2 / |full|^2``, with a floor that is
    left when everything has come. See :func:`fedgc.calibration.quantised_blocks.calibrate_quantised_blocks`.
    """

    def __init__(
        self, code: Code, blocks: Blocks, straggle_prob: Vector, gram: GramModel, variance_factor: Vector
    ) -> None:
        super().__init__(code)
        self._of_client, of_shard, self._n_blocks = blocks
        merged = gram.merge(of_shard, self._n_blocks)
        self._d, self._r = merged.incoherent, merged.coherent
        energy = (self._d + self._r**2)[self._of_client]
        noise = np.maximum(variance_factor, _LEAST_NOISE) * energy
        states = noise_states(self._of_client, straggle_prob, noise, self._n_blocks)
        if (lost := np.bincount(states.block, minlength=self._n_blocks) == 0).any():
            shards = np.flatnonzero(lost[of_shard])[:5]
            raise NoUnbiasedDecoderError(
                f"every shard must be sent by a client; got none for shard {', '.join(map(str, shards))}"
            )
        self._inverse = 1.0 / noise
        self._mu, self.rounding = calibrate_quantised_blocks(states, merged)
        self.bias = np.zeros(code.n_shards)
        ones = np.ones(self._n_blocks)
        whole = merged.inner(ones, ones)
        self.residual_error = max(0.0, (float(self._mu.sum()) - whole) / whole)
        self.residual_error_rounding = self.rounding * float(np.abs(self._mu).sum()) / whole

    def split(self, arrived: NDArray[np.bool_]) -> SplitWeights:
        """Return the decoding weights in two parts; see the base class. The scalar is C."""
        inverse = np.bincount(self._of_client, self._inverse * arrived, self._n_blocks)
        there = inverse > 0.0
        energy = self._d + 1.0 / np.where(there, inverse, 1.0)
        share = arrived * self._inverse / np.where(there, inverse, 1.0)[self._of_client]
        came = 1.0 + float((self._r**2 / energy) @ there)
        scalar = float((self._r * self._mu / energy) @ there) / came
        return SplitWeights(
            share * (self._mu / energy)[self._of_client], -share * (self._r / energy)[self._of_client], scalar
        )

    def early_weights(self, row: int) -> EarlyWeights | None:
        """Return the weights of a row that is alone in its block; others depend on what else comes of it."""
        block = int(self._of_client[row])
        if self._inverse[row] == 0.0 or ((self._of_client == block) & (self._inverse > 0.0)).sum() > 1:
            return None
        energy = float(self._d[block] + 1.0 / self._inverse[row])
        return EarlyWeights(float(self._mu[block]) / energy, -float(self._r[block]) / energy, row)


def with_shared_rounding(code: Code, gram: GramModel, variance_factor: float) -> tuple[GramModel, float]:
    """Return the Gram model in which rounding that all holders share is energy, and this energy over ``1' G 1``.

    Parameters
    ----------
    code : Code
        A code whose rows are each equal to another or have no shard in common with it.
    gram : GramModel
        Gram model of the shards.
    variance_factor : float
        Of the quantiser, omega.

    Raises
    ------
    ValueError
        If rows overlap: their messages are rounded apart then, and what they carry is not the same.

    Notes
    -----
    Where all that carry a block round it alike, what arrives of it is one message with the noise ``n_g = omega e_g``,
    ``e_g`` the energy of what it carries, and the weight v_g is that of the block. Because ``E[v] = 1``,

        E[(v - 1)' G (v - 1)] + E[sum_g v_g^2 n_g]  =  E[(v - 1)' (G + diag(n)) (v - 1)] + sum_g n_g,

    so that rounding is nothing but incoherent energy: any calibration is exact for it as it stands. And the energies of
    messages that have been received have it in them already.

    Examples
    --------
    >>> from fedgc.codes import FractionalRepetition
    >>> gram, floor = with_shared_rounding(FractionalRepetition([0, 0], [0]), GramModel([1.0], [1.0]), 0.5)
    >>> gram.incoherent.tolist(), floor
    ([2.0], 0.5)
    """
    noise, ones = rounding_energy(code, gram, variance_factor), np.ones(code.n_shards)
    return GramModel(gram.incoherent + noise, gram.coherent), float(noise.sum()) / gram.inner(ones, ones)


def rounding_energy(code: Code, gram: GramModel, variance_factor: float) -> Vector:
    """Return what rounding that all holders share adds to the energy of each shard, (n_shards,).

    See :func:`with_shared_rounding` for the parameters and errors.
    """
    matrix = code.sparse_matrix
    noise, row_of_shard = np.zeros(code.n_shards), np.full(code.n_shards, -1)
    known: dict[bytes, int] = {}
    for row in range(code.n_rows):
        inside = slice(*matrix.indptr[row : row + 2])
        shards, own = matrix.indices[inside], matrix.data[inside]
        if shards.size == 0:
            continue
        first = known.setdefault(shards.tobytes() + own.tobytes(), row)
        if ((row_of_shard[shards] != -1) & (row_of_shard[shards] != first)).any():
            raise ValueError(f"rows of the code must be equal or have no shard in common; got others with row {row}")
        if first == row:
            energy = float(own**2 @ gram.incoherent[shards] + (own @ gram.coherent[shards]) ** 2)
            # Shards of a row never come apart, so that it does not matter how it is divided among them.
            noise[shards] = variance_factor * energy / (shards.size * own**2)
            row_of_shard[shards] = row
    return noise


def noisy_gram(code: Code, gram: GramModel, variance_factor: float) -> GramModel | None:
    """Return the Gram model with the rounding in it that all holders share, None where the rows of a code overlap.

    See :func:`with_shared_rounding`.
    """
    try:
        return GramModel(gram.incoherent + rounding_energy(code, gram, variance_factor), gram.coherent)
    except ValueError:
        return None


def errors_with_rounding(
    code: Code,
    gram: GramModel,
    factors: Sequence[float],
    coverage: Vector,
    *,
    predicted: float | None,
    observed: float,
    told: float | None = None,
) -> tuple[float | None, float]:
    """Return residual errors with the noise of rounding in them, of messages that were rounded alike.

    Parameters
    ----------
    code : Code
        The round's code.
    gram : GramModel
        Gram model of the messages as they were received, noise and all.
    factors : sequence of float
        The variance factors of the messages, of which the mean counts; none if nothing was rounded, or nothing came.
    coverage : ndarray, shape (n_shards,)
        The round's coverage v.
    predicted, observed : float
        ``E[(v - 1)' G (v - 1)] / 1' G 1``, None if not known, and the same for this v. Both are returned as they are
        for codes whose rows overlap.
    told : float, optional
        The variance factor of the noise that the Gram model has been told of, which is then what is expected; if not
        given, it has been learnt with that of the messages.

    Returns
    -------
    predicted, observed : float
        ``E|decoded - full|^2 / |full|^2`` before anything came, and over the rounding of what did.

    Examples
    --------
    >>> from fedgc.codes import FractionalRepetition
    >>> code, gram = FractionalRepetition([0], [0]), GramModel([1.5], [0.0])
    >>> errors_with_rounding(code, gram, [0.5], np.ones(1), predicted=0.0, observed=0.0)
    (0.5, 0.5)
    """
    mean = sum(factors) / len(factors) if factors else told
    if mean is None:
        return predicted, observed
    inside = mean if told is None else told
    try:
        noise = rounding_energy(code, gram, inside / (1.0 + inside))
        energy = noise / inside if inside > 0.0 else rounding_energy(code, gram, 1.0)
    except ValueError:
        return predicted, observed
    ones = np.ones(code.n_shards)
    noisy, added = gram.inner(ones, ones), float(noise.sum())
    clean = noisy - added
    expected = None if predicted is None else (predicted * noisy + added) / clean
    # Of what came the noise is known, and need not be what was expected.
    more = 0.0 if mean == inside else (mean - inside) * float(coverage**2 @ energy)
    return expected, (observed * noisy + 2.0 * float((coverage - 1.0) @ noise) + added + more) / clean
