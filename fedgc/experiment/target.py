"""What a run is to reach: a test accuracy, or a loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol


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
    """A test accuracy to come up to, or a loss to come down to.

    Attributes
    ----------
    quantity : {"accuracy", "loss"}
        What is to reach it; the task says what its loss is of: the test set, or all training examples.
    value : float
        The target.

    Examples
    --------
    >>> Target("accuracy", 0.9).reached(accuracy=0.95, loss=1.0), Target("loss", 0.5).reached(accuracy=0.95, loss=1.0)
    (True, False)
    >>> str(Target("accuracy", 0.9)), str(Target("loss", 0.5))
    ('90%', 'loss 0.5')
    """

    quantity: Literal["accuracy", "loss"]
    value: float

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Target:
        """Return the target of an experiment's configuration: its ``target_loss``, if it has one, else its accuracy.

        Examples
        --------
        >>> Target.of({"target_accuracy": 0.9, "target_loss": None}), Target.of({"target_loss": 0.25})
        (Target(quantity='accuracy', value=0.9), Target(quantity='loss', value=0.25))
        """
        loss = config.get("target_loss")
        return cls("accuracy", float(config["target_accuracy"])) if loss is None else cls("loss", float(loss))

    def reached(self, *, accuracy: float, loss: float) -> bool:
        """Return whether it has been reached."""
        return accuracy >= self.value if self.quantity == "accuracy" else loss <= self.value

    def reached_in(self, row: State) -> bool:
        """Return whether a row of results has reached it."""
        return self.reached(accuracy=row.accuracy, loss=row.loss)

    @property
    def text(self) -> str:
        """The target in words.

        Examples
        --------
        >>> Target("accuracy", 0.94).text, Target("loss", 0.25).text
        ('94 % test accuracy', 'a loss of 0.25')
        """
        return f"{self.short} test accuracy" if self.quantity == "accuracy" else f"a loss of {self.short}"

    @property
    def short(self) -> str:
        """The value alone, as it stands beside its line."""
        return f"{self.value:g}" if self.quantity == "loss" else f"{100.0 * self.value:.6g} %"

    def __str__(self) -> str:
        """Return it for headings."""
        return f"{100.0 * self.value:.10g}%" if self.quantity == "accuracy" else f"loss {self.value:.10g}"
