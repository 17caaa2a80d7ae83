"""What a rival is, and what it is built from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from flwr.serverapp.strategy import Strategy

from fedgc.deadline import DeadlineRule, Timing
from fedgc.validation import check_positive

#: What the server does with the aggregate, as Flower's FedAvgM calls it. Every rival may be given it: a method that
#: averages more noise, or less, is at its best with another step and another momentum.
SERVER_STEP = ("server_learning_rate", "server_momentum")
#: The code in which every client has its own shards and nobody else has.
UNCODED = "uncoded"


@dataclass(frozen=True)
class RivalOptions:
    """What a rival is built from.

    Attributes
    ----------
    num_shards : int
        Number of shards.
    deadline : float, DeadlineRule or None
        Seconds that a round lasts at most, for rivals that have one; None to wait for everyone.
    load : int
        Copies of each shard, for codes that leave the choice.
    shard_examples : sequence of int, optional
        Number of examples of each shard, if known.
    timing : Timing, optional
        The clients' completion times, if they are known; else probabilities to miss a deadline are learnt.
    seed : int
        Seed of random codes, and of the clients' randomness.
    inner : mapping
        Options of the FedAvg that is used or extended.
    own : mapping
        Options of the rival itself: over_selection, buffer_size, proximal_mu; and of the server's step, which all have:
        see :data:`SERVER_STEP`.
    """

    num_shards: int
    deadline: float | DeadlineRule | None = None
    load: int = 2
    shard_examples: Sequence[int] | None = None
    timing: Timing | None = None
    seed: int = 0
    inner: dict[str, Any] = field(default_factory=dict)
    own: dict[str, Any] = field(default_factory=dict)

    @property
    def averaging(self) -> dict[str, Any]:
        """Options of Flower's FedAvgM: those of FedAvg, and of the server's step."""
        step = self.own.get("server_learning_rate", 1.0), self.own.get("server_momentum", 0.0)
        check_positive("server_learning_rate", step[0])
        if not 0.0 <= step[1] < 1.0:
            raise ValueError(f"server_momentum must be at least 0 and below 1; got {step[1]}")
        return self.inner | {key: value for key, value in self.own.items() if key in SERVER_STEP}

    @property
    def others(self) -> dict[str, Any]:
        """The rival's own options, without those of the server's step."""
        return {key: value for key, value in self.own.items() if key not in SERVER_STEP}


@dataclass(frozen=True)
class Rival:
    """A method that others have published.

    Attributes
    ----------
    name : str
        Its name in configurations.
    title : str
        Its name in tables and figures.
    source : str
        Where it is from, and in which of its forms.
    build : callable
        Returns the strategy for given options.
    own : tuple of str
        Options of its own that it heeds.
    coded : bool
        Whether its load is a choice.
    needs_deadline : bool
        Whether it makes no sense without one.
    """

    name: str
    title: str
    source: str
    build: Callable[[RivalOptions], Strategy]
    own: tuple[str, ...] = ()
    coded: bool = False
    needs_deadline: bool = True

    @property
    def own_data(self) -> bool:
        """Whether a client trains on its own shards as one data set: where nothing is coded."""
        return getattr(self.build, "code", UNCODED) == UNCODED
