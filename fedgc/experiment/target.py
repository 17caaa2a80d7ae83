"""What a run is to reach: a test accuracy, or a loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


class State(Protocol):
    """What a target is looked for in."""

    @property
    def accuracy(self) -> float:
        """Test accuracy."""
        ...

    @property
    def loss(self) -> float:
        """Loss."""
        ...


@dataclass(frozen=True)
class Target:
    """An accuracy that a run is to rise to, or a loss that it is to fall to.

    Attributes
    ----------
    accuracy : float or None
        Test accuracy; None if it is a loss.
    loss : float or None
        Loss, of what the task says that its loss is of; None if it is an accuracy.

    Examples
    --------
    >>> Target(0.9, None).reached(accuracy=0.95, loss=1.0), Target(None, 0.5).reached(accuracy=0.95, loss=1.0)
    (True, False)
    >>> str(Target(0.9, None)), str(Target(None, 0.5))
    ('90%', 'loss 0.5')
    """

    accuracy: float | None
    loss: float | None

    def reached(self, *, accuracy: float, loss: float) -> bool:
        """Return whether it has been reached."""
        return accuracy >= self.accuracy if self.accuracy is not None else loss <= (self.loss or 0.0)

    def reached_in(self, row: State) -> bool:
        """Return whether a row of results has reached it."""
        return self.reached(accuracy=row.accuracy, loss=row.loss)

    def __str__(self) -> str:
        """Return it for headings."""
        return f"{100 * self.accuracy:.10g}%" if self.accuracy is not None else f"loss {self.loss:.10g}"
