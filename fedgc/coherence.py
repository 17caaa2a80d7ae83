"""How far updates of different blocks point the same way: learnt from round to round, or known."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from fedgc.gram import GramModel
from fedgc.validation import check_positive


@dataclass(frozen=True)
class CoherenceEstimate:
    """Running estimate of the energy of a block update and of how much of it all blocks share.

    Parameters
    ----------
    energy : float
        Smoothed mean squared norm of a block update, per unit of relative size squared.
    overlap : float
        Smoothed mean inner product of two different block updates, in the same unit.
    forgetting : float
        Factor in [0, 1) by which what is known fades with every round; the newest round has weight one minus it.
    observed : bool
        False until the first update has been seen; the start values are then replaced, not smoothed.

    Notes
    -----
    From k arrived updates u_g the unbiased estimates are ``e = mean |u_g|^2`` and
    ``o = (|sum u_g|^2 - sum |u_g|^2) / (k (k - 1))``, which need the norms and the sum but no pairwise products.
    The coherent energy is o clipped to [0, 0.999 e], and the incoherent energy is the rest.

    Examples
    --------
    >>> estimate = CoherenceEstimate().update([1.0, 1.0], sum_energy=3.0)
    >>> estimate.overlap
    0.5
    """

    energy: float = 1.0
    overlap: float = 0.5
    forgetting: float = 0.8
    observed: bool = False

    def __post_init__(self) -> None:
        """Check the start values."""
        check_positive("energy", self.energy)
        if not 0.0 <= self.forgetting < 1.0:
            raise ValueError(f"forgetting must lie in [0, 1); got {self.forgetting}")

    def update(self, energies: ArrayLike, sum_energy: float) -> CoherenceEstimate:
        """Return the estimate after one more round.

        Parameters
        ----------
        energies : array_like, shape (k,)
            Squared norm of each arrived block update, divided by the square of its relative size.
        sum_energy : float
            Squared norm of the sum of the updates, each divided by its relative size.

        Raises
        ------
        ValueError
            If an energy is negative. Energies that are not finite are passed over.
        """
        norms = np.asarray(energies, dtype=np.float64)
        if (norms < 0.0).any() or sum_energy < 0.0:
            raise ValueError(f"energies and sum_energy must be at least 0; got {min(float(norms.min()), sum_energy):g}")
        k = norms.size
        if k == 0 or not np.isfinite(norms).all() or not np.isfinite(sum_energy) or norms.mean() <= 0.0:
            return self
        energy = float(norms.mean())
        past = self.forgetting if self.observed else 0.0
        overlap = self.overlap / self.energy * energy
        if k > 1:
            overlap = (sum_energy - float(norms.sum())) / (k * (k - 1))
        return replace(
            self,
            energy=past * self.energy + (1 - past) * energy,
            overlap=past * self.overlap + (1 - past) * overlap,
            observed=True,
        )

    def update_from_rows(self, energies: ArrayLike, sum_energy: float, shards: ArrayLike) -> CoherenceEstimate:
        """Return the estimate after one more round of which only means over several shards each are known.

        Parameters
        ----------
        energies, sum_energy
            As of :meth:`update`, of the means.
        shards : array_like, shape (k,)
            Number of shards, or pieces, that each mean is over.

        Notes
        -----
        A mean over n updates of energy e and overlap o has the energy ``(e - o) / n + o``; the overlap of means is o.
        """
        norms, over = np.asarray(energies, dtype=np.float64), np.asarray(shards, dtype=np.float64)
        k = norms.size
        if k < 2 or not np.isfinite(norms).all() or not np.isfinite(sum_energy):
            return self.update(norms, sum_energy)
        # As far below zero as chance takes it: clipped in each round it would be too large in the mean.
        shared = (sum_energy - float(norms.sum())) / (k * (k - 1))
        single = max(shared + float((over * (norms - shared)).mean()), float(norms.mean()))
        return self.update(np.full(k, single), max(shared * k * (k - 1) + k * single, 0.0))

    def gram(self, relative_size: ArrayLike) -> GramModel:
        """Return the Gram model of blocks with the given weights, shape (n_blocks,), in units of the mean energy.

        Only ratios matter to a decoder, and updates may become as small as they like.
        """
        size = np.asarray(relative_size, dtype=np.float64)
        shared = float(np.clip(self.overlap / self.energy, 0.0, 0.999))
        return GramModel((1.0 - shared) * size**2, np.sqrt(shared) * size)


@dataclass(frozen=True)
class KnownCoherence(CoherenceEstimate):
    """A coherence between single shards that is given and not learnt: ``overlap / energy``.

    For simulations in which the shards' updates are known to follow the model, and for comparing predictions with what
    they predict. It is of updates as clients compute them: what rounding adds is added to it, see
    :func:`fedgc.round.sizes.shard_gram`.

    Examples
    --------
    >>> known = KnownCoherence(energy=1.0, overlap=0.25)
    >>> known.update([5.0, 7.0], sum_energy=24.0) is known
    True
    """

    def update(self, energies: ArrayLike, sum_energy: float) -> CoherenceEstimate:
        """Return the same coherence."""
        return self
