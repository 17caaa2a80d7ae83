"""Training tasks: what a shard is, how it is trained on, how the model is tested; one file per task."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fedgc.tasks.base import GradientTask, RowTask, Task
from fedgc.tasks.build import TASKS, build_task
from fedgc.tasks.partition import PARTITIONS, Partition, build_shards, dirichlet_shards, iid_shards, sorted_shards

if TYPE_CHECKING:
    from fedgc.tasks.convolution import DigitsConvTask
    from fedgc.tasks.digits import DigitsTask
    from fedgc.tasks.images import ImagesTask
    from fedgc.tasks.regression import DigitsRegressionTask

__all__ = [
    "PARTITIONS",
    "TASKS",
    "DigitsConvTask",
    "DigitsRegressionTask",
    "DigitsTask",
    "GradientTask",
    "ImagesTask",
    "Partition",
    "RowTask",
    "Task",
    "build_shards",
    "build_task",
    "dirichlet_shards",
    "iid_shards",
    "sorted_shards",
]

# Imported when asked for: logistic regression need not wait a second for torch, which the others train with.
_MODULES = {
    "DigitsConvTask": "convolution",
    "DigitsRegressionTask": "regression",
    "DigitsTask": "digits",
    "ImagesTask": "images",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
