"""Build a task by its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fedgc.tasks.base import Task
from fedgc.tasks.convolution import DigitsConvTask
from fedgc.tasks.digits import DigitsTask
from fedgc.tasks.images import ImagesTask
from fedgc.tasks.regression import DigitsRegressionTask
from fedgc.validation import one_of

#: All tasks, by the name that a configuration gives. Their keys are in :mod:`fedgc.experiment.config.tasks`.
TASKS: Mapping[str, Callable[..., Task]] = {
    "digits": DigitsTask,
    "digits-regression": DigitsRegressionTask,
    "digits-conv": DigitsConvTask,
    "images": ImagesTask,
}


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
