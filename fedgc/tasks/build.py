"""Build a task by its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fedgc.tasks.base import Task
from fedgc.validation import one_of

# Each task is imported as it is built: most need torch, which takes a second to load, and a run has but one.


def _digits(**options: Any) -> Task:  # noqa: ANN401  (each task checks its own)
    from fedgc.tasks.digits import DigitsTask  # noqa: PLC0415

    return DigitsTask(**options)


def _digits_regression(**options: Any) -> Task:  # noqa: ANN401
    from fedgc.tasks.regression import DigitsRegressionTask  # noqa: PLC0415

    return DigitsRegressionTask(**options)


def _digits_conv(**options: Any) -> Task:  # noqa: ANN401
    from fedgc.tasks.convolution import DigitsConvTask  # noqa: PLC0415

    return DigitsConvTask(**options)


def _images(**options: Any) -> Task:  # noqa: ANN401
    from fedgc.tasks.images import ImagesTask  # noqa: PLC0415

    return ImagesTask(**options)


#: All tasks, by the name that a configuration gives. Their keys are in :mod:`fedgc.experiment.config.tasks`.
TASKS: Mapping[str, Callable[..., Task]] = {
    "digits": _digits,
    "digits-regression": _digits_regression,
    "digits-conv": _digits_conv,
    "images": _images,
}

#: Those that are trained without torch.
WITHOUT_TORCH = ("digits-regression",)


def build_task(name: str, *, seed: int, **options: Any) -> Task:  # noqa: ANN401  (each task checks its own)
    """Return a task.

    Parameters
    ----------
    name : str
        One of :data:`TASKS`.
    seed : int
        Seed of the shards and of the initial model.
    **options
        The task's own.

    Raises
    ------
    ValueError
        If there is no such task, or an option is not what it must be.

    Examples
    --------
    >>> sum(build_task("digits-regression", seed=1, shards=8).shard_examples)
    1437
    """
    return TASKS[one_of("task.name", name, tuple(TASKS))](seed=seed, **options)
