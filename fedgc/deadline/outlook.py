"""What a deadline rule may ask: how long clients take, who is there, and what a plan predicts for its rounds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray


class Presence(Protocol):
    """Who is there when, in a run like those to come, where clients come and go in virtual time.

    Attributes
    ----------
    prob : ndarray, shape (n_clients,)
        Probability of each client to be there at a random instant.
    site : ndarray of int, shape (n_clients,)
        Label of the site whose outages each client shares with others, -1 if none.
    cycle, shortest_cycle : float
        Seconds from one coming to the next, the longest and the shortest mean.
    """

    prob: NDArray[np.float64]
    site: NDArray[np.int64]
    cycle: float
    shortest_cycle: float

    def at(self, instants: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return who is there at each instant, (n_instants, n_clients)."""


class Timing(Protocol):
    """What is known of when clients will have done how much: a fleet, or what a run has learnt of one."""

    @property
    def loss_detection(self) -> float:
        """Seconds after which the network reports a client that has gone; infinite if not known."""

    @property
    def presence(self) -> Presence | None:
        """Who is there when; None if clients do not come and go, or it is not known."""

    def reach(self, deadline: float, max_shards: int) -> NDArray[np.float64]:
        """Return the probability of each client to have done at least k shards by then, (n_clients, max_shards + 1)."""

    def partial_reach(self, deadline: float, lengths: ArrayLike) -> NDArray[np.float64]:
        """Return the same for work lists of these lengths, whose clients reply at the deadline if not before."""

    def straggle_prob(self, deadline: float, load: ArrayLike) -> NDArray[np.float64]:
        """Return the probability of each client not to have done its load by then, (n_clients,)."""


@runtime_checkable
class TimingAtOnce(Protocol):
    """A :class:`Timing` that tells of many deadlines in one call, which takes hardly longer than of one."""

    def straggle_prob_at(self, instants: NDArray[np.float64], load: ArrayLike) -> NDArray[np.float64]:
        """Return what ``straggle_prob`` does for each of these deadlines, (n_instants, n_clients)."""


@dataclass(frozen=True)
class RoundForecast:
    """What a plan predicts for its rounds.

    Attributes
    ----------
    round_time : float
        Mean seconds from sending to decoding, with the early end of rounds in which nothing more could be gained.
    arrivals : float
        Mean number of clients whose update counts.
    residual_error : float
        Predicted ``E|decoded - full|^2 / |full|^2``.
    progress : float
        Mean number of shards that a client has done by the deadline.
    step : float
        How long the step is that the round ends with, relative to the rounds of which the noise sensitivity is known.
    """

    round_time: float
    arrivals: float
    residual_error: float
    progress: float = 1.0
    step: float = 1.0


@dataclass(frozen=True)
class Outlook:
    """What a deadline rule may ask about the coming rounds.

    Attributes
    ----------
    timing : Timing
        What is known of the clients.
    work : ndarray of int, shape (n_clients,)
        Shards that each client is expected to finish: its own share on a work list, all of its block otherwise.
    n_shards : int
        Number of shards in all.
    last : float or None
        Deadline of the last round, None before the first.
    forecast : callable
        Returns the :class:`RoundForecast` for a deadline in seconds.
    noise_sensitivity : float
        What is known of the cost of residual errors, see :func:`fedgc.deadline.time_at_fixed_step`.
    fruitless : float
        The longest deadline of late by which nothing came; 0 if something always has. It is no forecast: where no
        client is ever so fast, what is learnt from those that took longer may say otherwise for long.
    """

    timing: Timing
    work: NDArray[np.intp]
    n_shards: int
    last: float | None
    forecast: Callable[[float], RoundForecast]
    noise_sensitivity: float = 1.0
    fruitless: float = 0.0
