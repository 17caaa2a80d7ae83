"""What both sides share."""

from functools import cache

from flwr.app import UserConfig

from fedgc.tasks import DigitsTask


@cache
def build_task(shards: int) -> DigitsTask:
    """Return the digits, in so many shards."""
    return DigitsTask(shards=shards, seed=1, local_epochs=2, learning_rate=0.5)


def task_of(config: UserConfig) -> DigitsTask:
    """Return the task that the run config asks for."""
    return build_task(int(config["num-shards"]))
