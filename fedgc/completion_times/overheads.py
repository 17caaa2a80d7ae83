"""Overheads: the seconds of a round in which a client does not work, and how many of them to leave for its reply."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedgc.validation import check_integer, check_positive

#: Seconds kept per client.
_WINDOW = 32
#: The fleet counts for as much as so many rounds of the client's own.
_FLEET_WEIGHT = 1.0
#: Of the fleet's overheads so many quantiles are looked at.
_QUANTILES = 20
#: Where no overhead that was seen leaves time to work, this share of the deadline is left for it all the same.
_UNHEARD_OF = 0.5
_VERSION = 1


class _HeardWithin(NamedTuple):
    """Overheads to allow for, ascending, and how often each of them was enough, a row per node."""

    row: dict[int | None, int]  # of each node; None for one that was not heard of
    tried: NDArray[np.float64]  # (n, k), infinite beyond the last
    heard: NDArray[np.float64]  # (n, k)


@dataclass(frozen=True)
class Overheads:
    """Overheads of every client in its last 32 replies: waking up, transfer there and back, waiting to be found.

    Parameters
    ----------
    seconds : mapping of int to sequence of float
        By node id, the oldest first.

    Raises
    ------
    ValueError
        If a time is negative or not finite.

    Examples
    --------
    >>> overheads = Overheads().update({7: 0.5, 8: 2.0}).update({7: 0.5})
    >>> overheads.allowance([7, 8, 9], deadline=10.0).tolist()
    [0.5, 2.0, 2.0]
    """

    seconds: Mapping[int, Sequence[float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check what was seen."""
        for node_id, seen in self.seconds.items():
            for value in seen:
                if not 0.0 <= value < np.inf:
                    raise ValueError(f"seconds of node {node_id} must be finite and at least 0; got {value!r}")

    def update(self, seen: Mapping[int, float]) -> Overheads:
        """Return what is known after these seconds, by node id, have been seen."""
        if not seen:
            return self
        newer = {node: (*self.seconds.get(node, ())[1 - _WINDOW :], float(value)) for node, value in seen.items()}
        return Overheads({**self.seconds, **newer})

    def rejoined(self, old: int, new: int) -> Overheads:
        """Return what is known if node `new` is node `old` come back."""
        return Overheads({**self.seconds, new: self.seconds[old]}) if old in self.seconds else self

    def allowance(self, node_ids: Sequence[int], deadline: float) -> NDArray[np.float64]:
        """Return the seconds before the deadline at which each client should stop working, (n_clients,).

        Parameters
        ----------
        node_ids : sequence of int
            The clients; one that was not heard of yet is taken to be like the others.
        deadline : float
            Seconds from the message to the deadline.

        Returns
        -------
        ndarray, shape (n_clients,)
            Seconds, below the deadline; 0 while nothing at all has been seen.

        Notes
        -----
        A client that stops o seconds before the deadline T works for T - o, and is heard if its overhead F is at most
        o. The allowance is the o of the largest ``(T - o) P(F <= o)``, the mean time of work that is heard of, with P
        from the client's own replies and from the fleet's, which count as one more. A fixed quantile in its place would
        leave too little time where overheads vary, and too much where they do not.
        """
        check_positive("deadline", deadline)
        if not self.seconds:
            return np.zeros(len(node_ids))
        table = self._heard_within
        own = np.array([table.row.get(node, table.row[None]) for node in node_ids], dtype=np.intp)
        # All clients at once, as the search for a deadline asks dozens of times; what lies beyond the deadline is last.
        early = table.tried < deadline
        worked = np.where(early, (deadline - np.where(early, table.tried, 0.0)) * table.heard, -1.0)
        best = np.take_along_axis(table.tried, np.argmax(worked, axis=1)[:, None], axis=1)[:, 0]
        return np.asarray(np.where(early[:, 0], best, _UNHEARD_OF * deadline)[own])

    @cached_property
    def _heard_within(self) -> _HeardWithin:
        """What no deadline changes of the search for the allowance."""
        every = [value for seen in self.seconds.values() for value in seen]
        fleet = np.quantile(every, np.arange(1, _QUANTILES + 1) / _QUANTILES, method="inverted_cdf")
        counts = np.array([*(len(seen) for seen in self.seconds.values()), 0])
        own = np.full((counts.size, counts.max()), np.inf)
        own[np.arange(counts.max()) < counts[:, None]] = every
        tried = np.sort(np.hstack([own, np.tile(fleet, (counts.size, 1))]), axis=1)
        heard = np.zeros(tried.shape)
        for seconds in own.T:
            heard += seconds[:, None] <= tried
        heard += _FLEET_WEIGHT * (np.searchsorted(fleet, tried, side="right") / _QUANTILES)
        return _HeardWithin({node: row for row, node in enumerate([*self.seconds, None])}, tried, heard)

    def to_data(self) -> dict[str, Any]:
        """Return the state as plain data that JSON can hold."""
        return {"version": _VERSION, "seconds": {str(node): list(seen) for node, seen in self.seconds.items()}}

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Overheads:
        """Return the state that :meth:`to_data` wrote, or raise ValueError if it did not."""
        if not isinstance(data, Mapping) or data.get("version") != _VERSION or set(data) != {"version", "seconds"}:
            raise ValueError(f"overheads must be what to_data wrote, version {_VERSION}; got {data!r:.80}")
        try:
            seconds = {int(node): tuple(float(value) for value in seen) for node, seen in data["seconds"].items()}
        except (AttributeError, TypeError, ValueError) as error:
            raise ValueError(f"overheads must hold seconds by node id; got {data['seconds']!r:.80}") from error
        for node in seconds:
            check_integer("node id", node, low=-(2**63), high=2**64 - 1)
        return cls(seconds)
