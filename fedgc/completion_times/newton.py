"""Sums of a log posterior over clients, and the Newton step that they give."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedgc.completion_times.sample import Vector


@dataclass
class Sums:
    """Log posterior, gradient and negative Hessian of each client, and P(X > bound) of each silent entry."""

    value: Vector
    g1: Vector
    g2: Vector
    j11: Vector
    j12: Vector
    j22: Vector
    longer: Vector

    def replace(self, other: Sums, better: NDArray[np.bool_], owner: NDArray[np.intp]) -> None:
        """Take over the clients that are better in `other`."""
        for name in ("value", "g1", "g2", "j11", "j12", "j22"):
            np.copyto(getattr(self, name), getattr(other, name), where=better)
        np.copyto(self.longer, other.longer, where=better[owner])

    def take(self, keep: NDArray[np.bool_], owner: NDArray[np.intp]) -> Sums:
        """Return the sums of some clients."""
        numbers = {name: getattr(self, name)[keep] for name in ("value", "g1", "g2", "j11", "j12", "j22")}
        return Sums(**numbers, longer=self.longer[keep[owner]])


def precision(sums: Sums) -> tuple[Vector, Vector, Vector]:
    """Return the negative Hessian, replaced by the absolute values of its diagonal where it is not positive."""
    j11, j12, j22 = sums.j11, sums.j12, sums.j22
    fine = (j11 > 0.0) & (j22 > 0.0) & (j11 * j22 - j12**2 > 1e-6 * np.abs(j11 * j22))
    return (
        np.where(fine, j11, np.maximum(np.abs(j11), 1e-9)),
        np.where(fine, j12, 0.0),
        np.where(fine, j22, np.maximum(np.abs(j22), 1e-9)),
    )


def newton_step(sums: Sums, scale_pull: Vector, damping: Vector, scale: Vector) -> tuple[Vector, Vector]:
    """Return the damped step, bounded, and how far from the optimum it starts, in squared posterior widths.

    `scale_pull` is added to the gradient of the log scale.
    """
    j11, j12, j22 = precision(sums)
    a, b = j11 * (1.0 + damping), j22 * (1.0 + damping)
    determinant = a * b - j12**2
    g1, g2 = sums.g1, sums.g2 + scale_pull
    first, second = (b * g1 - j12 * g2) / determinant, (a * g2 - j12 * g1) / determinant
    bound = np.maximum(1.0, 3.0 * scale)
    step = np.stack([np.clip(first, -bound, bound), np.clip(second, -1.0, 1.0)], axis=1)
    return step, np.abs(g1 * first + g2 * second)
