"""What a fleet is: who answers a message, and after how many seconds."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedgc.validation import check_integer, check_positive, check_vector

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Parameter:
    """A number per client: its default and the closed range that it must lie in."""

    default: float
    low: float = 0.0
    high: float = np.inf
    may_be_infinite: bool = False


class Fleet(ABC):
    """Heterogeneous clients as data: completion times and drop-out, drawn anew for every (seed, client, round).

    Parameters
    ----------
    n_clients : int
        Number of clients.
    seed : int
        Seed of all draws. Draws are keyed by (seed, client, round), so every strategy that runs on a fleet meets the
        same ones, in whatever order and however often it asks.
    loss_detection : float
        Seconds after which the network reports a client that has gone as unavailable.
    **parameters : array_like
        The parameters listed in the class's PARAMETERS, each a scalar for all clients or one value per client.

    Raises
    ------
    ValueError
        If a parameter is unknown or out of range.

    Notes
    -----
    A client that answers does so after ``overhead + slowdown x work(load)`` seconds, where slowdown is `slow_factor`
    with probability `slow_prob` and else one, and work is the model of the subclass. It does not answer at all with
    probability `dropout`, independently in every round, nor in any round after `leave_after`.

    To add a fleet model, subclass this in a file of its own and add it to ``FLEETS`` in ``fedgc/fleets/build.py``.
    """

    name: ClassVar[str]
    #: Parameters of every fleet; subclasses add their own.
    PARAMETERS: ClassVar[dict[str, Parameter]] = {
        "overhead": Parameter(0.0),  # seconds per message: waking up, transfer
        "dropout": Parameter(0.0, high=1.0),  # probability not to answer a message
        "leave_after": Parameter(np.inf, may_be_infinite=True),  # last round in which the client is there
        "slow_prob": Parameter(0.0, high=1.0),  # probability of a slow round
        "slow_factor": Parameter(1.0),  # how many times longer the work takes in a slow round
    }

    def __init__(self, n_clients: int, *, seed: int, loss_detection: float = 60.0, **parameters: ArrayLike) -> None:
        self.n_clients = check_integer("clients", n_clients, low=1)
        self.seed = check_integer("seed", seed, low=0)
        self.loss_detection = check_positive("loss_detection", loss_detection)
        unknown = sorted(set(parameters) - set(self.PARAMETERS))
        if unknown:
            raise ValueError(
                f"{unknown[0]} must be one of {', '.join(sorted(self.PARAMETERS))} in a {self.name} fleet; "
                f"got {unknown[0]!r}"
            )
        self.parameters: Mapping[str, Vector] = {
            name: _per_client(name, parameters.get(name, spec.default), spec, self.n_clients)
            for name, spec in self.PARAMETERS.items()
        }

    def completion_time(self, client: int, server_round: int, load: float, *, stream: int = 0) -> float:
        """Return the seconds from message to reply, infinite if the client does not answer.

        Parameters
        ----------
        client : int
            Client index.
        server_round : int
            Round of the message.
        load : float
            Number of shards to compute; 0 for messages that need no training.
        stream : int
            Number of an independent set of draws, for further messages to the same client in the same round.
        """
        own = {name: float(value[client]) for name, value in self.parameters.items()}
        rng = np.random.default_rng([self.seed, client, server_round, stream])
        # All draws happen in every call, so that the outcome of one does not shift the others.
        gone, slow = rng.random(), rng.random()
        work = self._draw_work(own, load, rng)
        if gone < own["dropout"] or self.has_left(client, server_round):
            return np.inf
        return own["overhead"] + (own["slow_factor"] if slow < own["slow_prob"] else 1.0) * work

    def has_left(self, client: int, server_round: int) -> bool:
        """Return whether the client has gone for good before this round."""
        return bool(server_round > self.parameters["leave_after"][client])

    def straggle_prob(self, deadline: float, load: float, *, server_round: int = 0) -> Vector:
        """Return the exact probability of each client to miss `deadline` seconds with `load` shards, (n_clients,)."""
        own = self.parameters
        time_left = deadline - own["overhead"]
        in_time = (1.0 - own["slow_prob"]) * self._work_within(time_left, load)
        with np.errstate(divide="ignore", invalid="ignore"):
            in_time += own["slow_prob"] * self._work_within(time_left / own["slow_factor"], load)
        present = np.where(server_round > own["leave_after"], 0.0, 1.0 - own["dropout"])
        return 1.0 - present * np.where(time_left >= 0.0, in_time, 0.0)

    @abstractmethod
    def _draw_work(self, own: Mapping[str, float], load: float, rng: np.random.Generator) -> float:
        """Return the seconds of work of one client in one round."""

    @abstractmethod
    def _work_within(self, seconds: Vector, load: float) -> Vector:
        """Return the probability of each client to finish its work within the given seconds, (n_clients,)."""


def _per_client(name: str, value: ArrayLike, spec: Parameter, n_clients: int) -> Vector:
    given = np.asarray(value, dtype=np.float64)
    vector = np.full(n_clients, float(given)) if given.ndim == 0 else given
    if spec.may_be_infinite and np.isposinf(vector).any():
        # "Never" is a legal round, but check_vector asks for finite entries.
        finite = np.where(np.isposinf(vector), spec.low, vector)
        check_vector(name, finite, length=n_clients, low=spec.low, high=spec.high, who="client")
        return vector
    return check_vector(name, vector, length=n_clients, low=spec.low, high=spec.high, who="client")
