"""The sections of tasks, one for each name that a task may have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from fedgc.experiment.config.keys import Count, Positive, Section

#: Training examples of scikit-learn's digits, so many shards there may be.
_DIGITS = 1437

LearningRate = Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False, strict=True)]


class _Task(Section):
    """What every task has: how its training examples are spread over shards; `alpha` belongs to "dirichlet"."""

    name: str
    shards: Annotated[int, Field(ge=1, le=_DIGITS, strict=True)] = 40
    partition: Literal["dirichlet", "sorted", "iid"] = "dirichlet"
    alpha: Positive = 0.3

    @property
    def options(self) -> dict[str, Any]:
        """All keys but the name: what the task is built with."""
        return self.model_dump(exclude={"name"})


class DigitsConfig(_Task):
    """A small network on scikit-learn's digits, see :class:`fedgc.tasks.DigitsTask` for the keys."""

    name: Literal["digits"] = "digits"
    shards: Annotated[int, Field(ge=1, le=500, strict=True)] = 40
    hidden: Annotated[int, Field(ge=1, le=10_000, strict=True)] = 32
    local_epochs: Count = 1
    batch_size: Count = 16
    learning_rate: LearningRate = 0.1


class DigitsRegressionConfig(_Task):
    """Logistic regression on the digits, see :class:`fedgc.tasks.DigitsRegressionTask`."""

    name: Literal["digits-regression"]
    learning_rate: LearningRate = 1.0


class DigitsConvConfig(_Task):
    """Convolutions on the digits, see :class:`fedgc.tasks.DigitsConvTask`."""

    name: Literal["digits-conv"]
    learning_rate: LearningRate = 0.3


class ImagesConfig(_Task):
    """A larger network on images that are drawn, see :class:`fedgc.tasks.ImagesTask`.

    `device` "auto" is a GPU where there is one; its sums are rounded in another order than those of "cpu".
    """

    name: Literal["images"]
    shards: Annotated[int, Field(ge=1, le=10_000, strict=True)] = 20
    examples: Annotated[int, Field(ge=10, le=100_000, strict=True)] = 2000
    size: Annotated[int, Field(ge=16, le=128, strict=True)] = 32
    width: Annotated[float, Field(ge=0.05, le=2, allow_inf_nan=False, strict=True)] = 0.25
    local_steps: Count = 1
    batch_size: Count = 32
    learning_rate: LearningRate = 0.1
    device: Literal["auto", "cpu"] = "auto"


#: The section of each task by its name; :data:`fedgc.tasks.TASKS` has the tasks themselves.
TASK_SECTIONS: Mapping[str, type[_Task]] = {
    "digits": DigitsConfig,
    "digits-regression": DigitsRegressionConfig,
    "digits-conv": DigitsConvConfig,
    "images": ImagesConfig,
}


def _name_of(given: object) -> object:
    """Return the name of a task; without one it is the digits, and what is no table is for that section to refuse."""
    if isinstance(given, Mapping):
        return given.get("name", "digits")
    return getattr(given, "name", "digits")


TaskConfig = Annotated[
    Annotated[DigitsConfig, Tag("digits")]
    | Annotated[DigitsRegressionConfig, Tag("digits-regression")]
    | Annotated[DigitsConvConfig, Tag("digits-conv")]
    | Annotated[ImagesConfig, Tag("images")],
    Discriminator(_name_of),
]
