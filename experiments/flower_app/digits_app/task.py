"""What both sides of the app share, built from the run config."""

from functools import cache

from flwr.app import UserConfig

from fedgc.fleets import Fleet, build_fleet
from fedgc.tasks import DigitsTask


@cache
def build_task(shards: int, seed: int) -> DigitsTask:
    """Return the task of the quickstart; cached, since a client process serves many messages."""
    return DigitsTask(shards=shards, seed=seed, local_epochs=2, learning_rate=0.5)


def task_of(config: UserConfig) -> DigitsTask:
    """Return the task that the run config asks for."""
    return build_task(int(config["num-shards"]), int(config["seed"]))


def fleet_of(config: UserConfig) -> Fleet:
    """Return the fleet whose stragglers are simulated."""
    return build_fleet({"preset": config["fleet"], "clients": int(config["num-clients"])}, seed=int(config["seed"]))
