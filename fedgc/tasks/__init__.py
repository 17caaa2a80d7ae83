"""Training tasks: what a shard is, how it is trained on, how the model is tested; one file per task."""

from fedgc.tasks.base import GradientTask, Task
from fedgc.tasks.build import TASKS, build_task
from fedgc.tasks.convolution import DigitsConvTask
from fedgc.tasks.digits import DigitsTask
from fedgc.tasks.images import ImagesTask
from fedgc.tasks.partition import PARTITIONS, Partition, build_shards, dirichlet_shards, iid_shards, sorted_shards
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
    "Task",
    "build_shards",
    "build_task",
    "dirichlet_shards",
    "iid_shards",
    "sorted_shards",
]
