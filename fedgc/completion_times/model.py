"""Completion times: what past rounds say about when a client will have done how much."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, reduce
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedgc.completion_times.base import FleetPrior
from fedgc.completion_times.clients import (
    FittedClients,
    check_loads,
    check_seconds,
    chunks,
    fit_clients,
    fleet_rows,
)
from fedgc.completion_times.families import FAMILIES, fit_fleets
from fedgc.completion_times.fixed_part import FixedPart, fixed_part
from fedgc.completion_times.fleet import first_prior
from fedgc.completion_times.goodness_of_fit import GoodnessOfFit, goodness_of_fit
from fedgc.completion_times.history import History, as_ids
from fedgc.completion_times.mixing import Mixing
from fedgc.completion_times.observation import TimeObservation
from fedgc.completion_times.sample import Sample, Vector
from fedgc.completion_times.tabulated import TabulatedClients
from fedgc.completion_times.timeline import Timeline, read_rounds
from fedgc.validation import check_integer, check_vector, one_of


@dataclass(frozen=True, eq=False)
class CompletionTimes:
    """Learnt distributions of every client's completion time; state goes in, state comes out.

    Parameters
    ----------
    family : str
        Distribution of the seconds per shard: `log-normal`, `shifted-exponential`, `weibull`, or `auto` for the one
        that describes the fleet best.
    window : int
        Number of observations kept per client.
    forgetting : float
        Factor in (0, 1] by which an observation's weight falls with every newer one of its client.
    slow_rounds : bool
        Whether to allow for rounds that take a multiple of the usual time, with a probability and a factor that the
        fleet shares.
    history : History, optional
        The observations; empty at first.
    priors : mapping of str to FleetPrior
        The fleet as each family sees it.
    scores : mapping of str to float
        Score of each family on the fleet, see :func:`fit_fleets`.
    mixing : Mixing
        How well models and clients' own frequencies have predicted who comes in time.

    Raises
    ------
    ValueError
        If a parameter is out of range.

    Notes
    -----
    A round with k shards takes ``T(k) = fixed + k x`` seconds. x is drawn anew in every round from the client's own
    distribution, whose parameters are shrunk towards the fleet's; with probability 1 - presence the client does not
    answer at all, and who was away in the last round may be likelier to be away in the next, as far as that is what the
    fleet has shown. Probabilities are averaged over what is still uncertain about the client, so that a new client gets
    the distribution over the whole fleet. They are mixed with the client's own frequency, which no law can mislead, by
    how well either has predicted so far; for times that the client was never waited for, the model goes on from there.

    Subclasses of :class:`TimeFamily` say how a client is fitted, :func:`fixed_part` and :func:`fit_fleet` what clients
    share, :func:`fit_fleets` how the family is chosen, :class:`PersistentPresence` who comes, :class:`OwnFrequency` and
    :class:`Mixing` what else is believed.

    Examples
    --------
    >>> times = CompletionTimes().update(
    ...     [TimeObservation(7, shards=2, seconds=4.0 + 0.1 * k, fixed_seconds=1.0) for k in range(10)]
    ... )
    >>> times.in_time_prob([7], load=2, deadline=6.0).round(1).tolist()
    [1.0]
    >>> times.seconds_per_shard([7]).round(1).tolist(), times.fixed_seconds([7]).tolist()
    ([1.7], [1.0])
    """

    family: str = "auto"
    window: int = 32
    forgetting: float = 0.99
    slow_rounds: bool = True
    history: History | None = None
    priors: Mapping[str, FleetPrior] = field(default_factory=dict)
    scores: Mapping[str, float] = field(default_factory=dict)
    mixing: Mixing = field(default_factory=Mixing)

    def __post_init__(self) -> None:
        one_of("family", self.family, ["auto", *FAMILIES])
        check_integer("window", self.window, low=1)
        if isinstance(self.forgetting, bool) or not 0.0 < self.forgetting <= 1.0:
            raise ValueError(f"forgetting must lie in (0, 1]; got {self.forgetting!r}")
        if not isinstance(self.slow_rounds, bool):
            raise ValueError(f"slow_rounds must be True or False; got {self.slow_rounds!r}")
        if self.history is None:
            object.__setattr__(self, "history", History.empty(self.window))
        elif self.history.window != self.window:
            raise ValueError(f"window must be that of the history, {self.history.window}; got {self.window}")

    def update(self, observations: Sequence[TimeObservation]) -> CompletionTimes:
        """Return the state after `observations`, oldest first; those of a client are in the order of its rounds.

        Raises
        ------
        ValueError
            If an entry is not a TimeObservation.
        """
        for seen in observations:
            if not isinstance(seen, TimeObservation):
                raise ValueError(f"observations must be TimeObservation; got {type(seen).__name__}")
        if not len(observations):
            return self
        grown = replace(self, history=self._history.append(observations), mixing=self._scored(observations))
        kept = np.minimum(grown._history.count, self.window).sum()
        names = list(FAMILIES) if self.family == "auto" else [self.family]
        new, sample = len(observations) / float(kept), grown._fleet_sample()
        priors, scores = fit_fleets(names, sample, self.priors, slow_rounds=self.slow_rounds, new=new)
        done = replace(grown, priors=priors, scores=scores)
        done.__dict__.update(_weight=grown._weight, _fixed=grown._fixed)  # they follow from the history alone
        return done

    def noting(self, observations: Sequence[TimeObservation]) -> CompletionTimes:
        """Return what to predict with after `observations` that come too soon for an update; not a state to keep.

        Only who is there has changed: everything else is as it was at the last update.
        """
        if not observations or not self.priors:
            return self
        rounds = read_rounds(observations, self._history, self._fit.fixed_seconds)
        noted = replace(self)
        noted.__dict__.update(_fit=reduce(FittedClients.after, rounds, self._fit))
        return noted

    def tabulated(self, node_ids: ArrayLike) -> CompletionTimes:
        """Return what to predict with when much is asked of these clients and no others; not a state to keep.

        Chances come from tables, see :class:`TabulatedClients`: those of times that are wrong by a hundredth or so.

        Examples
        --------
        >>> times = CompletionTimes().update([TimeObservation(7, 2, 4.0 + 0.1 * k) for k in range(10)])
        >>> off = times.tabulated([7]).in_time_prob([7], 2, 4.3) - times.in_time_prob([7], 2, 4.3)
        >>> (abs(off) < 0.02).tolist()
        [True]
        """
        rows = self._history.rows(node_ids)
        made: tuple[NDArray[np.intp], CompletionTimes] | None = self.__dict__.get("_tabulated")
        if made is None or not np.array_equal(made[0], rows):
            tables = replace(self)
            tables.__dict__.update(_fit=TabulatedClients.of(self._fit, rows))
            made = rows, tables
            self.__dict__.update(_tabulated=made)
        return made[1]

    @property
    def chosen_family(self) -> str:
        """Name of the family in use."""
        if self.family != "auto":
            return self.family
        return max(self.scores, key=lambda name: self.scores[name]) if self.scores else "log-normal"

    @property
    def prior(self) -> FleetPrior:
        """The fleet as the family in use sees it."""
        known = self.priors.get(self.chosen_family)
        return known or first_prior(self._fleet_sample(), FAMILIES[self.chosen_family], slow_rounds=False)

    def in_time_prob(
        self,
        node_ids: ArrayLike,
        load: ArrayLike,
        deadline: float,
        *,
        given_present: bool = False,
        strangers: ArrayLike = False,
    ) -> Vector:
        """Return the probability of each client to have done `load` shards by the deadline, (n,).

        Parameters
        ----------
        node_ids : array_like of int, shape (n,)
            The clients; unknown ones are like the fleet.
        load : float or array_like, shape (n,)
            Number of shards, at least 0.
        deadline : float
            Seconds from the message to the deadline, at least 0; may be infinite.
        given_present : bool
            Whether the client is known to take part in the round.
        strangers : bool or array_like of bool, shape (n,)
            Clients that are taken to be like the fleet, whatever has been seen of them.
        """
        rows = np.where(strangers, self._history.n_clients, self._history.rows(node_ids))
        prob = self._fit.in_time(rows, check_loads(load, rows.size), check_seconds("deadline", deadline))
        return np.minimum(prob / self._fit.presence_with(rows), 1.0) if given_present else prob

    def in_time_prob_at(
        self, node_ids: ArrayLike, load: ArrayLike, instants: Vector, *, given_present: bool = False
    ) -> Vector:
        """Return what :meth:`in_time_prob` does for each of many deadlines, (n_instants, n).

        Examples
        --------
        >>> times = CompletionTimes().update([TimeObservation(7, 2, 4.0 + 0.1 * k) for k in range(10)])
        >>> at_once = times.in_time_prob_at([7], 2, np.array([4.3, 4.6]))
        >>> at_once.ravel().tolist() == [float(times.in_time_prob([7], 2, seconds)[0]) for seconds in (4.3, 4.6)]
        True
        """
        rows = self._history.rows(node_ids)
        loads = check_loads(load, rows.size)
        for instant in instants:
            check_seconds("instants", instant)
        prob = np.empty((instants.size, rows.size))
        for part in chunks(instants.size, rows.size):
            times = instants[part]
            each, work = np.tile(rows, times.size), np.tile(loads, times.size)
            prob[part] = self._fit.in_time(each, work, np.repeat(times, rows.size)).reshape(times.size, rows.size)
        return np.minimum(prob / self._fit.presence_with(rows), 1.0) if given_present else prob

    def reach(
        self, node_ids: ArrayLike, max_shards: int, deadline: float, *, allowance: ArrayLike | None = None
    ) -> Vector:
        """Return the probability of each client to have done at least k shards, (n, max_shards + 1).

        Parameters
        ----------
        node_ids : array_like of int, shape (n,)
            The clients; unknown ones are like the fleet.
        max_shards : int
            The largest k.
        deadline : float
            Seconds from the message to the deadline, at least 0; may be infinite.
        allowance : array_like, shape (n,), optional
            Seconds before the deadline at which each client stops working, see :meth:`Overheads.allowance`; by default
            its fixed seconds, as if it knew when to stop.
        """
        rows = self._history.rows(node_ids)
        check_integer("max_shards", max_shards, low=0)
        time = check_seconds("deadline", deadline)
        work = None
        if allowance is not None:
            left = check_vector("allowance", allowance, length=rows.size, low=0.0, who="client")
            work = time - np.maximum(left, self._fit.fixed_seconds[rows])
        reached = np.ones((rows.size, max_shards + 1))
        for part in chunks(max_shards, rows.size):
            shards = np.arange(1.0, max_shards + 1.0)[part]
            each, load = np.tile(rows, shards.size), np.repeat(shards, rows.size)
            if work is None:
                done = self._fit.in_time(each, load, time)
            else:
                done = self._fit.in_time_after(each, load, np.tile(work, shards.size))
            reached[:, 1:][:, part] = done.reshape(shards.size, rows.size).T
        # Rounding must not make more work likelier than less.
        return np.minimum.accumulate(reached, axis=1)

    def progress_prob(self, node_ids: ArrayLike, lengths: ArrayLike, deadline: float) -> list[Vector]:
        """Return each client's probabilities to have done exactly 0, 1, .., all shards of a list by the deadline.

        Parameters
        ----------
        node_ids : array_like of int, shape (n,)
            The clients.
        lengths : int or array_like of int, shape (n,)
            Length L_i of each client's work list.
        deadline : float
            Seconds from the message to the deadline.

        Returns
        -------
        list of ndarray, shape (L_i + 1,)
            They sum to one; absence counts as 0 shards.
        """
        nodes = as_ids(node_ids)
        each = np.broadcast_to(np.asarray(lengths), nodes.shape)
        if each.size and (not np.issubdtype(each.dtype, np.integer) or (each < 0).any()):
            raise ValueError(f"lengths must be integers of at least 0; got {each.tolist()}")
        reached = self.reach(nodes, int(each.max(initial=0)), deadline)
        return [-np.diff(np.append(own[: length + 1], 0.0)) for own, length in zip(reached, each.tolist(), strict=True)]

    def seconds_per_shard(self, node_ids: ArrayLike) -> Vector:
        """Return the median seconds per shard of each client in a usual round, (n,)."""
        family = FAMILIES[self.chosen_family]
        return family.quantile(0.5, *family.natural(self._fit.estimate.coordinates[self._history.rows(node_ids)]))

    def fixed_seconds(self, node_ids: ArrayLike) -> Vector:
        """Return the seconds of each client that do not depend on the load, (n,)."""
        return self._fit.fixed_seconds[self._history.rows(node_ids)]

    def presence(self, node_ids: ArrayLike) -> Vector:
        """Return the probability of each client to answer the coming round at all, however long one waits, (n,)."""
        return self._fit.presence_with(self._history.rows(node_ids))

    def heard(self, node_ids: ArrayLike) -> NDArray[np.bool_]:
        """Return whether any observation that is kept shows the client to take part, (n,); else it has been silent.

        Examples
        --------
        >>> seen = [TimeObservation(7, 1, 4.0), TimeObservation(8, 1, 4.0, censored=True)]
        >>> CompletionTimes().update(seen).heard([7, 8, 9]).tolist()
        [True, False, False]
        """
        there = (self._history.there & (self._history.age() >= 0)).any(axis=1)
        return np.append(there, False)[self._history.rows(node_ids)]

    def miss_prob_given_silent_until(
        self, node_ids: ArrayLike, load: ArrayLike, seconds: float, deadline: float
    ) -> Vector:
        """Return the probability to miss the deadline, given that nothing came in the first `seconds`, (n,).

        It is what a round that ended early says about a client that had not answered by then.

        Notes
        -----
        ``(1 - p(deadline)) / (1 - p(seconds))``, p being the probability to be in time; 1 from the deadline on.
        """
        rows = self._history.rows(node_ids)
        work, late = check_loads(load, rows.size), check_seconds("deadline", deadline)
        waits = (min(check_seconds("seconds", seconds), late), late)
        silent, missed = (1.0 - self._fit.in_time(rows, work, time) for time in waits)
        return np.minimum(missed / np.maximum(silent, np.finfo(np.float64).tiny), 1.0)

    def rejoined(self, old: int, new: int) -> CompletionTimes:
        """Return the state in which node `new` has all that is known of node `old`: a client that came back.

        Examples
        --------
        >>> times = CompletionTimes().update([TimeObservation(7, shards=2, seconds=9.0)]).rejoined(7, 9)
        >>> times.history.node_ids.tolist()
        [7, 9]
        """
        return replace(self, history=self._history.copy_row(old, new))

    def goodness_of_fit(self) -> tuple[GoodnessOfFit, ...]:
        """Return how well each family that is fitted describes the fleet, on at most 400 of its clients."""
        sample = self._fleet_sample()
        return tuple(goodness_of_fit(FAMILIES[name], prior, sample) for name, prior in self.priors.items())

    def to_data(self) -> dict[str, Any]:
        """Return the state as plain data that JSON can hold."""
        from fedgc.completion_times.data import to_data  # noqa: PLC0415 - it builds what this file defines

        return to_data(self)

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> CompletionTimes:
        """Return the state that :meth:`to_data` wrote, or raise ValueError if it did not."""
        from fedgc.completion_times.data import from_data  # noqa: PLC0415 - it builds what this file defines

        return from_data(data)

    @property
    def _history(self) -> History:
        assert self.history is not None  # set when the object is made
        return self.history

    @cached_property
    def _weight(self) -> Vector:
        return self._history.weight(self.forgetting)

    @cached_property
    def _fixed(self) -> FixedPart:
        return fixed_part(self._history, self._weight)

    @cached_property
    def _fit(self) -> FittedClients:
        timeline = Timeline.of(self._history, self._weight, self._fixed.seconds)
        family, share = FAMILIES[self.chosen_family], self.mixing.frequency_share
        return fit_clients(family, self.prior, timeline, self._fixed, share)

    def _fleet_sample(self) -> Sample:
        rows = fleet_rows(self._history)
        return Timeline.of(self._history, self._weight, self._fixed.seconds, rows).sample()

    def _scored(self, observations: Sequence[TimeObservation]) -> Mixing:
        """Return the scores of what was predicted of the clients that the fleet is learnt from, before each round."""
        if not self.priors:
            return self.mixing
        fit, mixing, fleet = self._fit, self.mixing, fleet_rows(self._history)
        asked = fit.timeline.asked(fleet)
        for seen in read_rounds(observations, self._history, fit.fixed_seconds):
            mixing, fit = mixing.observe(fit, seen.take(np.isin(seen.rows, fleet)), asked), fit.after(seen)
        return mixing
