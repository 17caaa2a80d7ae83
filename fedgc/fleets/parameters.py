"""What can be said of every client, whatever its model: names, units, defaults and ranges."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedgc.validation import check_vector

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Parameter:
    """A number per client: its default and the range that it must lie in, closed unless `high_open`.

    Examples
    --------
    >>> Parameter(np.inf, low=1.0, may_be_infinite=True, integer=True).check("storage", 2.5, n_clients=3)
    Traceback (most recent call last):
    ...
    ValueError: storage must be an integer; got 2.5 for client 0
    """

    default: float
    low: float = 0.0
    high: float = np.inf
    high_open: bool = False
    may_be_infinite: bool = False
    integer: bool = False

    def check(self, name: str, value: ArrayLike, n_clients: int) -> Vector:
        """Return the value of every client, (n_clients,), or raise ValueError that names the first bad one."""
        given = np.asarray(value, dtype=np.float64)
        vector = np.full(n_clients, float(given)) if given.ndim == 0 else given.copy()
        # "Never" is a legal round and "no limit" a legal storage, but check_vector asks for finite entries.
        never = np.isposinf(vector) if self.may_be_infinite else np.zeros(vector.shape, dtype=bool)
        finite = np.where(never, self.low, vector)
        check_vector(
            name, finite, length=n_clients, low=self.low, high=self.high, high_open=self.high_open, who="client"
        )
        if self.integer and (finite != np.round(finite)).any():
            first = int(np.argmax(finite != np.round(finite)))
            raise ValueError(f"{name} must be an integer; got {vector[first]:g} for client {first}")
        vector.setflags(write=False)
        return vector


#: Parameters of every fleet; models add their own. Each behaviour is off by default.
COMMON: dict[str, Parameter] = {
    # Messages.
    "overhead": Parameter(0.0),  # seconds per message: waking up, transfer
    # Shards.
    "shard_size": Parameter(1.0, low=1e-6),  # size of a shard, in those that the work's parameters are about
    # Absence, round by round.
    "dropout": Parameter(0.0, high=1.0),  # probability not to answer in a round
    "dropout_persistence": Parameter(0.0, high=1.0, high_open=True),  # lag-one autocorrelation of absence
    # Leaving for good.
    "leave_after": Parameter(np.inf, may_be_infinite=True),  # last round in which the client is there
    "leave_prob": Parameter(0.0, high=1.0),  # probability to leave at a round that the seed draws from 1..leave_by
    "leave_by": Parameter(100.0, low=1.0, integer=True),  # rounds, see leave_prob
    # Slow rounds.
    "slow_prob": Parameter(0.0, high=1.0),  # probability of a slow round
    "slow_factor": Parameter(1.0),  # how many times longer the work takes in a slow round
    "slow_persistence": Parameter(0.0, high=1.0, high_open=True),  # lag-one autocorrelation of slow rounds
    # Sessions, in virtual time.
    "session_on": Parameter(np.inf, low=1e-3, may_be_infinite=True),  # mean seconds that the client stays on
    "session_off": Parameter(0.0),  # mean seconds that it stays off
    "session_jitter": Parameter(0.2, high=1.0),  # lengths are uniform within this share around their mean
    # Outages of whole sites, in virtual time.
    "site": Parameter(-1.0, low=-1.0, high=1e9, integer=True),  # label of the client's site; -1: none
    "outage_fraction": Parameter(0.0, high=1.0, high_open=True),  # share of the time that the site is down
    "outage_seconds": Parameter(60.0, low=1e-3),  # seconds that an outage lasts
    # Speeds that differ between clients, and change.
    "spread": Parameter(0.0),  # standard deviation of the logarithm of a factor per client on the work time
    "drift": Parameter(0.0, low=-0.9, high=10.0),  # relative growth of the work time per round, compounding
    "change_after": Parameter(np.inf, may_be_infinite=True),  # last round before the work time changes abruptly
    "change_factor": Parameter(1.0),  # how many times longer the work takes after that round
    # Limits that a plan has to keep, no part of the draws.
    "storage": Parameter(np.inf, low=0.0, may_be_infinite=True, integer=True),  # shards that fit on the client
    "computation": Parameter(np.inf, low=0.0, may_be_infinite=True, integer=True),  # shards per round at most
}

#: Which of them are limits, see :attr:`fedgc.fleets.Fleet.limits`.
LIMITS = ("storage", "computation", "site")
