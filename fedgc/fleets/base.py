"""What a fleet is: who answers a message, and after how many seconds."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from fedgc.fleets.cells import Cells, WorkModel, each_chunk
from fedgc.fleets.pace import Pace
from fedgc.fleets.parameters import COMMON, LIMITS, Parameter, Vector
from fedgc.fleets.presence import Presence, stay_prob
from fedgc.fleets.work import WorkDraw
from fedgc.validation import check_indices, check_integer, check_positive, check_vector


class Fleet(ABC):
    """Heterogeneous clients as data: completion times and presence, drawn anew for every (seed, client, round).

    Parameters
    ----------
    n_clients : int
        Number of clients.
    seed : int
        Seed of all draws. Draws are keyed by (seed, client, round, stream), and what persists over rounds or in time by
        (seed, client) or (seed, site), so every strategy that runs on a fleet meets the same ones, in whatever order
        and however often it asks.
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
    A client that answers does so after ``overhead + factor x work(load x shard_size)`` seconds. Work is the model of
    the subclass, linear in the load. The factor is the product of `slow_factor` in slow rounds, `drift` and
    `change_factor` by the round, and a lasting one per client, of spread `spread`. A message without training takes the
    overhead only. When a client does not answer at all is told in :class:`fedgc.fleets.presence.Presence`. With
    persistence, absence and slowness are one state per round; without it, every stream of a round has its own draw.

    Every parameter's unit and meaning stand in ``fedgc/fleets/parameters.py``. To add a fleet model, subclass this in a
    file of its own and add it to ``FLEETS`` in ``fedgc/fleets/build.py``.
    """

    name: ClassVar[str]
    #: Parameters of every fleet; subclasses add their own.
    PARAMETERS: ClassVar[dict[str, Parameter]] = COMMON
    #: Settings that are no numbers per client, given to the constructor by name.
    OPTIONS: ClassVar[tuple[str, ...]] = ("loss_detection",)
    #: What a fleet says by itself is of a random instant. Rounds as they follow each other, where clients come and go,
    #: are for plans (:mod:`fedgc.planning`): working them out takes too long for every round of a run.
    presence: ClassVar[None] = None

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
            name: spec.check(name, parameters.get(name, spec.default), self.n_clients)
            for name, spec in self.PARAMETERS.items()
        }
        self._presence = Presence(self.seed, self.parameters)
        self._pace = Pace(self.seed, self.parameters)
        names = tuple(name for name in self.PARAMETERS if name not in COMMON)
        self._model = WorkModel(names, self._work, self._work_within, self._kinks)

    @property
    def limits(self) -> dict[str, Vector | None]:
        """Limits that a plan has to keep, by name.

        `storage` and `computation` are shards, infinite for clients without a limit, and `site` is a label, -1 for
        clients without a site; each (n_clients,), or None if no client has one.
        """
        given = {name: self.parameters[name] for name in LIMITS}
        return {name: None if (v == self.PARAMETERS[name].default).all() else v for name, v in given.items()}

    def draw(
        self, client: int, server_round: int, *, stream: int = 0, now: float = 0.0, training: bool = True
    ) -> WorkDraw:
        """Return what the client makes of a message in a round, whatever the number of shards.

        Parameters
        ----------
        client : int
            Client index.
        server_round : int
            Round of the message, counted from 0.
        stream : int
            Number of an independent set of draws, for further messages to the same client in the same round.
        now : float
            Virtual seconds since the start of the run at which the client gets the message; sessions and outages
            depend on it.
        training : bool
            Whether the message asks for work on shards; one that does not takes the overhead only.
        """
        own = self.parameters
        # All draws happen in every call, so that the outcome of one does not shift the others.
        gone, slow, u = np.random.default_rng([self.seed, client, server_round, stream]).random(3).tolist()
        left = self._presence.seconds_left(client, server_round, now=now, draw=gone)
        overhead = float(own["overhead"][client])
        work = self._draw_work(client, server_round, u)
        if work is None:
            left, work = 0.0, (0.0, 0.0)
        if not training:
            return WorkDraw(overhead, 0.0, left)
        factor = self._pace.factor(client, server_round, draw=slow)
        return WorkDraw(overhead + factor * work[0], factor * work[1] * float(own["shard_size"][client]), left)

    def completion_time(
        self, client: int, server_round: int, load: float, *, stream: int = 0, now: float = 0.0
    ) -> float:
        """Return the seconds from message to reply, infinite if the client does not answer.

        Parameters
        ----------
        client, server_round, stream, now
            As in :meth:`draw`.
        load : float
            Number of shards to compute; 0 for messages that need no training.
        """
        return self.draw(client, server_round, stream=stream, now=now, training=load > 0).completion_time(load)

    def has_left(self, client: int, server_round: int) -> bool:
        """Return whether the client has gone for good before this round."""
        return bool(server_round > self._presence.last_round[client])

    def straggle_prob(self, deadline: float, load: ArrayLike, *, server_round: int = 0) -> Vector:
        """Return the stationary probability of each client not to answer within `deadline` seconds, (n_clients,).

        Parameters
        ----------
        deadline : float
            Seconds from message to reply.
        load : array_like
            Number of shards, one for all clients or one per client; 0 for messages that need no training.
        server_round : int
            Round, for those who leave and for speeds that change.

        Notes
        -----
        Stationary means that nothing is known of earlier rounds or of the instant. Which clients leave, and their
        lasting factors, are known.
        """
        loads = np.full(self.n_clients, load) if np.ndim(load) == 0 else load
        checked = check_vector("load", loads, length=self.n_clients, low=0.0, who="client")
        return 1.0 - self._answer_prob(deadline, checked[:, None], server_round)[:, 0]

    def reach(self, deadline: float, max_shards: int, *, server_round: int = 0) -> Vector:
        """Return the stationary probability to get k shards done in time, (n_clients, max_shards + 1).

        Parameters
        ----------
        deadline : float
            Seconds from message to deadline.
        max_shards : int
            Largest k.
        server_round : int
            As in :meth:`straggle_prob`.

        Notes
        -----
        Column k is the probability that at least k shards are done by a client that is still there then; column 0 is
        one. For k > 0 it is one minus ``straggle_prob(deadline, k)``.

        Examples
        --------
        >>> from fedgc.fleets import LogNormalFleet
        >>> LogNormalFleet(1, seed=1, dropout=0.2, sigma=0.3).reach(2.0, 3).round(4).tolist()
        [[1.0, 0.7917, 0.4, 0.0706]]
        """
        loads = np.arange(check_integer("max_shards", max_shards, low=0) + 1, dtype=np.float64)[None, :]
        prob = self._answer_prob(deadline, loads, server_round)
        prob[:, 0] = 1.0
        # What comes from quadrature may rise with k by rounding, and differences of columns are probabilities.
        fallen: Vector = np.minimum.accumulate(prob, axis=1, out=prob)
        return fallen

    def partial_reach(self, deadline: float, lengths: ArrayLike, *, server_round: int = 0) -> Vector:
        """Return the stationary probability that at least k shards of a work list count, (n_clients, longest + 1).

        Parameters
        ----------
        deadline : float
            Seconds from message to deadline.
        lengths : array_like of int, shape (n_clients,)
            Number of shards on each client's list.
        server_round : int
            As in :meth:`straggle_prob`.

        Notes
        -----
        A client replies when its list is done, or at the deadline with what is done by then, and what it has done
        counts only if it is still there at that instant. With F_k the probability that k shards take no longer than
        the deadline T, S(T) that of being there until T, and R_L that of finishing and replying in time, this is
        ``R_L + S(T) (F_k - F_L)``. Where clients do not go away while they work, it is :meth:`reach`.

        Examples
        --------
        >>> from fedgc.fleets import LogNormalFleet
        >>> fleet = LogNormalFleet(1, seed=1, sigma=0.0, session_on=100.0, session_off=100.0)
        >>> fleet.reach(50.0, 10)[0, 10].round(2).item(), fleet.partial_reach(50.0, [100])[0, 10].round(2).item()
        (0.45, 0.25)
        """
        length = check_indices("lengths", lengths)
        if length.shape != (self.n_clients,):
            raise ValueError(f"lengths must have shape ({self.n_clients},); got shape {length.shape}")
        most = int(length.max())
        reach = self.reach(deadline, most, server_round=server_round)
        if not self._presence.may_end:
            return reach
        done = self._answer_prob(deadline, np.arange(most + 1.0)[None, :], server_round, may_end=False)
        stays = stay_prob(self.parameters)(np.full(self.n_clients, deadline))
        every = np.arange(self.n_clients)
        prob = reach[every, length][:, None] + stays[:, None] * np.maximum(done - done[every, length][:, None], 0.0)
        prob[:, 0] = 1.0
        fallen: Vector = np.minimum.accumulate(np.minimum(prob, 1.0), axis=1)
        return fallen

    def _answer_prob(self, deadline: float, loads: Vector, server_round: int, *, may_end: bool = True) -> Vector:
        """Return the probability to answer in time, (n_clients, number of loads); `loads` broadcasts against it.

        Without `may_end` a client that is there at first is taken to stay.
        """
        if np.isnan(deadline):
            raise ValueError(f"deadline must be a number; got {deadline!r}")
        usual = self._pace.usual_factors(server_round)[:, None]
        loads = loads * self.parameters["shard_size"][:, None]
        total = np.zeros((self.n_clients, loads.shape[1]))
        for rows in each_chunk(*total.shape):
            own = {name: value[rows, None] for name, value in self.parameters.items()}
            chunk_loads = np.broadcast_to(loads[rows], total[rows].shape)
            for share, slow in ((1.0 - own["slow_prob"], 1.0), (own["slow_prob"], own["slow_factor"])):
                if (share > 0.0).any():
                    ends = may_end and self._presence.may_end
                    cells = Cells(rows, own, usual[rows] * slow, chunk_loads, deadline, ends)
                    total[rows] += share * self._in_time(cells)
        answered: Vector = self._presence.there_prob(server_round)[:, None] * np.minimum(total, 1.0)
        return answered

    def _in_time(self, cells: Cells) -> Vector:
        """Return P(done by the deadline and there until then) of each cell, given that the client is there at first."""
        return cells.in_time(self._model)

    def _draw_work(self, client: int, server_round: int, u: float) -> tuple[float, float] | None:
        """Return the seconds of work before the first shard and per shard; None if the client is missing."""
        fixed, per_shard = self._work({name: float(self.parameters[name][client]) for name in self._model.names}, u)
        return float(fixed), float(per_shard)

    def _kinks(self, own: Mapping[str, Any]) -> list[Vector]:
        """Return the values of u, in increasing order, at which the quantiles of the work are not smooth."""
        return []

    @abstractmethod
    def _work(self, own: Mapping[str, Any], u: Vector | float) -> tuple[Any, Any]:
        """Return the u-quantiles of the seconds of work before the first shard, and per shard.

        Both come from one uniform draw u and increase with it, so that ``fixed + load x per_shard`` is the u-quantile
        of the work of any load.
        """

    @abstractmethod
    def _work_within(self, own: Mapping[str, Any], seconds: Vector, load: Vector) -> Vector:
        """Return the probability to finish ``load > 0`` shards within the given seconds, which may be infinite."""
