"""The Gram matrix of the shard updates: how large they are, and how far they point the same way."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedgc.validation import check_integer, check_vector

#: Energies are kept within a hundred orders of one, so that their ratios stay finite.
_LEAST = 1e-100


@dataclass(frozen=True, eq=False)
class GramModel:
    """Diagonal plus rank one: ``G = diag(incoherent) + coherent coherent'``.

    Row j of U is shard j's weighted update, and ``G = U U'``. Shards with different labels point in different
    directions (coherent part small); identically distributed shards share one direction (coherent part dominates).

    Parameters
    ----------
    incoherent : array_like, shape (n_shards,)
        Energy d_j of the part of update j that no other shard shares, from 1e-100 to 1e100.
    coherent : array_like, shape (n_shards,)
        Length r_j of the part along the common direction, from 0 to 1e50.

    Notes
    -----
    A decoder that is unbiased for one positive definite G is unbiased for all of them: a wrong Gram model costs
    variance, never bias.

    Examples
    --------
    >>> GramModel([1.0, 1.0], [1.0, 1.0]).residual_error([1.0, 0.0])
    0.3333333333333333
    """

    incoherent: NDArray[np.float64]
    coherent: NDArray[np.float64]

    def __init__(self, incoherent: ArrayLike, coherent: ArrayLike) -> None:
        n_shards = np.size(np.asarray(incoherent))
        object.__setattr__(
            self, "incoherent", check_vector("incoherent", incoherent, length=n_shards, low=_LEAST, high=1 / _LEAST)
        )
        object.__setattr__(self, "coherent", check_vector("coherent", coherent, length=n_shards, low=0.0, high=1e50))

    @classmethod
    def uniform(cls, n_shards: int, coherence: float) -> GramModel:
        """Return ``coherence 11' + (1 - coherence) I``, the model of equally sized and equally similar updates.

        Raises
        ------
        ValueError
            If n_shards is not an integer of at least 1, or coherence does not lie in [0, 1).
        """
        check_integer("n_shards", n_shards, low=1)
        if not 0.0 <= coherence < 1.0:
            raise ValueError(f"coherence must lie in [0, 1); got {coherence}")
        return cls(np.full(n_shards, 1.0 - coherence), np.full(n_shards, np.sqrt(coherence)))

    @property
    def matrix(self) -> NDArray[np.float64]:
        """The dense matrix, shape (n_shards, n_shards)."""
        return np.diag(self.incoherent) + np.outer(self.coherent, self.coherent)

    def merge(self, block_of_shard: NDArray[np.intp], n_blocks: int) -> GramModel:
        """Return the model of the block sums: shards that only ever arrive summed together are one super-shard."""
        return GramModel(
            np.bincount(block_of_shard, self.incoherent, n_blocks),
            np.bincount(block_of_shard, self.coherent, n_blocks),
        )

    def averaged(self, labels: NDArray[np.intp] | None) -> GramModel:
        """Return the model for shards that change places with those of the same label, (n_shards,); itself for None.

        Every place then has the mean coherent part r of its shards, and their variance s^2 (over one less than their
        number) adds to its mean incoherent energy.

        Notes
        -----
        The exact mean over places has ``- s^2 / L`` between the L shards of a label beside that, which no model of this
        form can hold. So ``e' G e`` is a bound from above: exact where the shards of a label are alike, or their errors
        sum to zero. :meth:`error_over_places` is the exact mean.

        Examples
        --------
        >>> GramModel([1.0, 1.0, 5.0], [1.0, 3.0, 0.0]).averaged(np.array([0, 0, 1])).incoherent.tolist()
        [3.0, 3.0, 5.0]
        """
        if labels is None:
            return self
        count = np.bincount(labels)
        incoherent, coherent = (np.bincount(labels, part) / count for part in (self.incoherent, self.coherent))
        return GramModel((incoherent + self._spread(labels))[labels], coherent[labels])

    def differs_within(self, labels: NDArray[np.intp]) -> bool:
        """Return whether shards of the same label, (n_shards,), have different energies.

        Examples
        --------
        >>> model = GramModel([1.0, 1.0, 5.0], [1.0, 1.0, 0.0])
        >>> model.differs_within(np.array([0, 0, 1])), model.differs_within(np.array([0, 0, 0]))
        (False, True)
        """
        order = np.argsort(labels, kind="stable")
        same = np.diff(labels[order]) == 0
        return any(bool((np.diff(part[order])[same] != 0.0).any()) for part in (self.incoherent, self.coherent))

    def error_over_places(self, coverage: NDArray[np.float64], labels: NDArray[np.intp] | None) -> float:
        """Return the mean of :meth:`residual_error` over all places that shards of the same label may change to."""
        if labels is None:
            return self.residual_error(coverage)
        ones, gap = np.ones(labels.size), coverage - 1.0
        common = self._spread(labels) @ (np.bincount(labels, gap) ** 2 / np.bincount(labels))
        return (self.averaged(labels).inner(gap, gap) - float(common)) / self.inner(ones, ones)

    def _spread(self, labels: NDArray[np.intp]) -> NDArray[np.float64]:
        """Return the variance of the coherent parts by label."""
        count = np.bincount(labels)
        mean = np.bincount(labels, self.coherent) / count
        square = np.bincount(labels, (self.coherent - mean[labels]) ** 2)
        return np.asarray(square / np.maximum(count - 1, 1), dtype=np.float64)

    def inner(self, left: NDArray[np.float64], right: NDArray[np.float64]) -> float:
        """Return ``left' G right`` without forming G."""
        return float(left @ (self.incoherent * right) + (self.coherent @ left) * (self.coherent @ right))

    def residual_error(self, coverage: ArrayLike) -> float:
        """Return ``(v - 1)' G (v - 1) / 1' G 1`` for the coverage v, shape (n_shards,)."""
        ones = np.ones(self.incoherent.size)
        gap = check_vector("coverage", coverage, length=ones.size) - ones
        return self.inner(gap, gap) / self.inner(ones, ones)
