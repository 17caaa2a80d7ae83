"""What a run is to reach, and in which unit the way there is counted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from fedgc.strategies.reporting.page.text import percent

#: Units of the way to a target: rounds, or virtual seconds.
Unit = Literal["rounds", "seconds"]
UNITS: tuple[Unit, ...] = get_args(Unit)

#: The units as axes name them.
AXIS = {"rounds": "rounds", "seconds": "virtual seconds"}


@dataclass(frozen=True)
class Target:
    """A test accuracy to come up to, or a test loss to come down to.

    Attributes
    ----------
    quantity : {"accuracy", "loss"}
        What is to reach it.
    value : float
        The target.
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

    @property
    def text(self) -> str:
        """The target in words.

        Examples
        --------
        >>> Target("accuracy", 0.94).text, Target("loss", 0.25).text
        ('94 % test accuracy', 'a test loss of 0.25')
        """
        return f"{self.short} test accuracy" if self.quantity == "accuracy" else f"a test loss of {self.short}"

    @property
    def short(self) -> str:
        """The value alone, as it stands beside its line."""
        if self.quantity == "loss":
            return f"{self.value:g}"
        whole = percent(self.value)
        return whole if abs(100.0 * self.value - round(100.0 * self.value)) < 1e-9 else f"{100.0 * self.value:.6g} %"
