"""Replay of recorded completion times."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from fedgc.errors import ConfigError
from fedgc.fleets.base import Fleet
from fedgc.fleets.cells import Cells
from fedgc.fleets.keys import Purpose, generator
from fedgc.fleets.parameters import Parameter, Vector
from fedgc.fleets.presence import stay_prob
from fedgc.fleets.trace_file import Trace, read_trace

#: Outcomes that are drawn at least where parameters add chance to what was recorded.
_OUTCOMES = 1000


class TraceFleet(Fleet):
    """Clients take as long as they did when a trace was recorded, round by round.

    Parameters
    ----------
    n_clients : int, optional
        Number of clients: the first so many of the trace, by default all.
    trace : str, Path or Trace
        File with the columns client, round and seconds, or what :func:`fedgc.fleets.trace_file.read_trace` made of it.
    seed, loss_detection, **parameters
        As for every fleet. What they add (absence, slow rounds, drift) comes on top of what was recorded.

    Raises
    ------
    ConfigError
        If the trace cannot be used; one line with file, row and reason.

    Notes
    -----
    A recorded time c is that of `load` shards with the overhead in it: with k shards a client takes
    ``overhead + (c - overhead) k / load`` seconds, so that ``k = load`` gives what was recorded. Rounds after the last
    one, and before the first, repeat the trace. ``straggle_prob`` takes each recorded round to be equally likely, and
    is of one client; what clients did together is in :meth:`outcomes`.
    """

    name: ClassVar[str] = "trace"
    PARAMETERS: ClassVar[dict[str, Parameter]] = {
        **Fleet.PARAMETERS,
        "load": Parameter(1.0, low=1e-9),  # shards that the recorded rounds computed
    }
    OPTIONS: ClassVar[tuple[str, ...]] = (*Fleet.OPTIONS, "trace")

    def __init__(
        self,
        n_clients: int | None = None,
        *,
        trace: str | Path | Trace,
        seed: int,
        loss_detection: float = 60.0,
        **parameters: ArrayLike,
    ) -> None:
        recorded = trace if isinstance(trace, Trace) else read_trace(trace)
        available = recorded.seconds.shape[0]
        if n_clients is not None and n_clients > available:
            raise ConfigError(
                f"{recorded.path}: clients must be at most {available}, the clients of the trace; got {n_clients}"
            )
        super().__init__(
            available if n_clients is None else n_clients, seed=seed, loss_detection=loss_detection, **parameters
        )
        self._recorded = recorded.seconds[: self.n_clients]
        self._first_round = recorded.first_round
        overhead = self.parameters["overhead"]
        too_short = (self._recorded < overhead[:, None]).any(axis=1)
        if too_short.any():
            client = int(np.argmax(too_short))
            raise ConfigError(
                f"{recorded.path}: overhead must be at most the recorded seconds, {self._recorded[client].min():g} for "
                f"client {client}; got {overhead[client]:g}"
            )

    @property
    def comes_and_goes(self) -> bool:
        """Whether sessions or outages, in virtual time, come on top of what was recorded: :meth:`outcomes` has none."""
        return self._presence.may_end

    def outcomes(self, server_round: int, most: int) -> Vector:
        """Return what all clients did in each recorded round, (n, 3, n_clients).

        Parameters
        ----------
        server_round : int
            Round whose pace and whose clients are put on the trace, for fleets that change.
        most : int
            Number of recorded rounds at most; of a longer trace so many random ones are taken.

        Returns
        -------
        ndarray
            Seconds before the first shard, seconds per shard, and seconds until the client goes away: 0 where it missed
            the round, infinite elsewhere. With absence or slow rounds on top, every recorded round comes several times,
            each with its own draws.
        """
        own, rng = self.parameters, generator(self.seed, Purpose.OUTCOMES)
        recorded = self._recorded.T
        if recorded.shape[0] > most:
            # Evenly spaced ones might all be of the same hour of a day.
            recorded = recorded[np.sort(rng.choice(recorded.shape[0], most, replace=False))]
        there, slow = self._presence.there_prob(server_round), own["slow_prob"]
        if ((there > 0.0) & (there < 1.0)).any() or ((slow > 0.0) & (slow < 1.0)).any():
            recorded = np.tile(recorded, (-(-min(_OUTCOMES, most) // recorded.shape[0]), 1))
        came = np.isfinite(recorded) & (rng.random(recorded.shape) < there)
        slowness = np.where(rng.random(recorded.shape) < slow, own["slow_factor"], 1.0)
        factor = self._pace.usual_factors(server_round) * slowness
        work = np.where(came, recorded - own["overhead"], 0.0) / own["load"]
        fixed = np.broadcast_to(own["overhead"], recorded.shape)
        return np.stack([fixed, factor * work, np.where(came, np.inf, 0.0)], axis=1)

    def _draw_work(self, client: int, server_round: int, u: float) -> tuple[float, float] | None:
        seconds = float(self._recorded[client, (server_round - self._first_round) % self._recorded.shape[1]])
        if seconds == np.inf:
            return None
        own = self.parameters
        return 0.0, (seconds - float(own["overhead"][client])) / float(own["load"][client])

    def _in_time(self, cells: Cells) -> Vector:
        """Return the mean over the recorded rounds, one by one: no array has one entry per client, load and round."""
        overhead, load = cells.own["overhead"], cells.own["load"]
        recorded = self._recorded[cells.rows]
        stays = stay_prob(cells.own)
        total: Vector = np.zeros(cells.loads.shape)
        for column in range(recorded.shape[1]):
            came = np.isfinite(recorded[:, [column]])
            work = np.where(came, recorded[:, [column]] - overhead, 0.0)
            with np.errstate(over="ignore"):
                seconds = overhead + cells.factor * work / load * cells.loads
            there = stays(seconds) if cells.may_end else 1.0
            total += np.where(came & (seconds <= cells.deadline), there, 0.0)
        total /= recorded.shape[1]
        return total

    def _work(self, own: Mapping[str, Any], u: Vector | float) -> tuple[Any, Any]:
        raise NotImplementedError("a trace has no quantiles: its rounds are replayed")

    def _work_within(self, own: Mapping[str, Any], seconds: Vector, load: Vector) -> Vector:
        raise NotImplementedError("a trace has no distribution function: its rounds are counted")
