"""The target of an experiment: an accuracy to come up to, or a loss to come down to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Target:
    """What a run is to reach.

    Attributes
    ----------
    of : str
        ``"accuracy"``, which must be at least the value, or ``"loss"``, which must be at most the value.
    value : float
        The value.

    Examples
    --------
    >>> Target("loss", 0.2).is_reached(accuracy=0.1, loss=0.19)
    True
    >>> str(Target("loss", 0.2)), str(Target("accuracy", 0.94))
    ('loss 0.2', '94%')
    """

    of: Literal["accuracy", "loss"]
    value: float

    def is_reached(self, *, accuracy: float, loss: float) -> bool:
        """Return whether a model with this accuracy and loss is at the target; one whose loss is NaN is at none."""
        return accuracy >= self.value if self.of == "accuracy" else loss <= self.value

    def __str__(self) -> str:
        return f"{100 * self.value:.10g}%" if self.of == "accuracy" else f"loss {self.value:.10g}"
