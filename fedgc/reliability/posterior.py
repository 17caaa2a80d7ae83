"""The reliability posterior: state in, outcomes of a round, state out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from numbers import Real
from typing import Any

import numpy as np
from scipy.special import betaincinv

from fedgc.reliability import storage
from fedgc.reliability.change import ALARM, cusum, recent_counts
from fedgc.reliability.clients import NEVER, ClientReliability, Clients, read_missed, read_node_ids
from fedgc.reliability.counts import Index, Vector
from fedgc.reliability.fleet_belief import FleetBelief
from fedgc.reliability.fleet_prior import BetaPrior
from fedgc.reliability.persistence import CONDITIONAL, UNCONDITIONAL, log_odds_ratio
from fedgc.reliability.prediction import Prediction, inside, predict
from fedgc.reliability.shift import believed, filter_shifts, widen
from fedgc.validation import check_positive

_FORMAT = "fedgc-reliability-2"
_OPTIONS = ("prior_arrivals", "prior_misses", "forgetting", "conditional")


@dataclass(frozen=True, eq=False)
class ReliabilityPosterior:
    """Posterior of each client's probability to miss the deadline, given what it did in its last round.

    Parameters
    ----------
    prior_arrivals, prior_misses : float, optional
        Pseudo-counts of a Beta prior, both above 0. If neither is given, the prior is learnt from the fleet.
    forgetting : float
        Factor f in (0, 1] by which past evidence fades with every round that the client takes part in; 1 keeps it for
        ever. The default remembers about 100 rounds.
    conditional : bool
        Whether the last outcome may make a difference. If it does in the fleet at hand is learnt.
    clients, memory
        What past rounds left; not for callers to give.

    Raises
    ------
    ValueError
        If a number lies outside its range, or only one of the prior's pseudo-counts is given.

    Notes
    -----
    After the last outcome s the probability to miss has the posterior ``Beta(b_s + k_s, a_s + n_s - k_s)``, where n_s
    counts the rounds that followed outcome s, and others as far as they are borrowed, k_s the misses among them, both
    scaled to what discounted evidence is worth (:mod:`fedgc.reliability.counts`), and a_s, b_s are the fleet's prior
    (:mod:`fedgc.reliability.fleet_prior`). How much is borrowed differs between the models that are mixed
    (:mod:`fedgc.reliability.persistence`); one of them ignores the last outcome, so that fleets without persistence
    lose little. The models' weights follow from how probable they made the fleet's outcomes before they were seen.

    Where recent rounds speak against a client's slowly fading counts, the probability moves away from them as far as
    a shift is likely (:mod:`fedgc.reliability.shift`), and the old counts are dropped for good when it must have
    changed (:mod:`fedgc.reliability.change`). Half of the way to the new probability is made within 10 rounds where
    these tell it clearly from the old one, as from 0.1 to 0.5 or from 0.6 to 0.05; changes such as 0.5 to 0.1 or 0.3 to
    0.7 take up to 20 rounds, and smaller ones longer. From 0.5 to 0.2, nothing could be half-way after 10 rounds that
    errs as little on clients that stay (:func:`fedgc.reliability.shift.filter_shifts`).

    The result is used for round t + 1 before that round's outcome is known: weights that depended on the outcome they
    weigh would bias the decoder.

    Examples
    --------
    >>> posterior = ReliabilityPosterior(1.0, 1.0, conditional=False).update({7: True, 8: False})
    >>> posterior.straggle_prob([7, 8, 9]).round(2).tolist()
    [0.33, 0.67, 0.5]
    """

    prior_arrivals: float | None = None
    prior_misses: float | None = None
    forgetting: float = 0.99
    conditional: bool = True
    clients: Clients = field(default_factory=Clients.empty, repr=False)
    memory: FleetBelief | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Check the options."""
        if (self.prior_arrivals is None) != (self.prior_misses is None):
            raise ValueError(
                "prior_arrivals and prior_misses must be given together; "
                f"got {self.prior_arrivals!r} and {self.prior_misses!r}"
            )
        if self.prior_arrivals is not None:
            check_positive("prior_arrivals", self.prior_arrivals)
            check_positive("prior_misses", self.prior_misses)
        number = isinstance(self.forgetting, Real) and not isinstance(self.forgetting, bool)
        if not number or not 0.0 < self.forgetting <= 1.0:
            raise ValueError(f"forgetting must lie in (0, 1]; got {self.forgetting!r}")
        if not isinstance(self.conditional, bool):
            raise ValueError(f"conditional must be True or False; got {self.conditional!r}")

    @cached_property
    def fleet(self) -> FleetBelief:
        """What is known of the fleet as a whole."""
        if self.memory is not None:
            return self.memory
        learnt = self.prior_misses is None or self.prior_arrivals is None
        prior = BetaPrior(float(self.prior_misses or 1.0), float(self.prior_arrivals or 1.0))
        models = CONDITIONAL if self.conditional else (UNCONDITIONAL,)
        return FleetBelief(models, (0.0,) * len(models), (prior, prior, prior), learnt)

    @cached_property
    def _predicted(self) -> dict[bytes, Prediction]:
        """Predictions that have been made, by rows of the table: a round is planned, judged and learnt from by one."""
        return {}

    @cached_property
    def theta(self) -> float:
        """The fleet's log odds ratio of a miss after a miss against a miss after an arrival."""
        return log_odds_ratio(self.clients.slow) if self.conditional else 0.0

    def update(self, arrived: Mapping[int, bool | float]) -> ReliabilityPosterior:
        """Return the posterior after a round.

        Parameters
        ----------
        arrived : mapping of int to bool or float
            Outcome of each participant by node id: True or False, or the probability that it would have come by the
            deadline, for clients that an early end of the round has cut off. What is known of other clients stays as
            it is.

        Raises
        ------
        ValueError
            If a node id is not an integer, or an outcome is not one; nothing changes then.

        Notes
        -----
        An outcome in probability, c, counts as 1 - c of a miss. It is right in the mean if c is, and takes the place
        of a seen outcome in the length of memory, but is no evidence for the change detector and the models' weights.
        """
        nodes = read_node_ids(arrived)
        missed = read_missed(arrived)
        if not nodes:
            return self
        clients = self.clients.grow(nodes)
        rows = clients.rows(nodes)
        prediction = self._predict(clients, rows)
        weights = self.fleet.weights
        last, before, rounds = clients.last[rows], clients.before[rows], clients.rounds[rows] + 1
        slow = clients.slow.take(rows).observe(last, before, missed, self.forgetting)
        mean, _ = prediction.mixture(weights)
        score = cusum(clients.score[rows], mean, prediction.recent(weights), missed)
        shift = filter_shifts(clients.shift[rows], mean, missed)
        fast = recent_counts(clients.fast.take(rows), score, last, before, missed)
        changed = score > ALARM
        alarms = np.flatnonzero(changed)
        if alarms.size:
            slow = slow.put(alarms, fast.take(alarms))
        clients = clients.replace_rows(
            rows,
            last=missed,
            before=last,
            rounds=rounds,
            score=np.where(changed, 0.0, score),
            shift=np.where(changed[:, None], 0.0, shift),
            resets=clients.resets[rows] + changed,
            changed_at=np.where(changed, rounds, clients.changed_at[rows]),
            slow=slow,
            fast=fast,
        )
        # Many changes at once change the fleet, and its prior with it.
        many = alarms.size > 0.01 * len(clients.index)
        fleet = self.fleet.observe(prediction.mean, missed).refit(clients.slow, at_once=many)
        return replace(self, clients=clients, memory=fleet)

    def rejoined(self, old: int, new: int) -> ReliabilityPosterior:
        """Return the posterior in which node `new` has all that is known of node `old`: a client that came back.

        Examples
        --------
        >>> posterior = ReliabilityPosterior(1.0, 1.0).update({7: False}).rejoined(7, 9)
        >>> bool(posterior.straggle_prob([9]) == posterior.straggle_prob([7]))
        True
        """
        if old not in self.clients.index:
            return self
        clients = self.clients.grow([new])
        return replace(self, clients=clients.copy_row(old, new), memory=self.fleet)

    def straggle_prob(self, node_ids: Iterable[int]) -> Vector:
        """Return the probability to miss the coming deadline, one entry per node id, strictly inside (0, 1).

        A client that has not been seen gets the fleet's mean.
        """
        mean, _, shift = self._predict_nodes(read_node_ids(node_ids))
        return inside(believed(shift, mean))

    def credible_interval(self, node_ids: Iterable[int], level: float = 0.9) -> tuple[Vector, Vector]:
        """Return limits between which each client's probability to miss lies with probability `level`.

        Parameters
        ----------
        node_ids : iterable of int
            The clients.
        level : float
            In (0, 1).

        Returns
        -------
        low, high : ndarray, shape (n_clients,)
            Quantiles ``(1 -+ level) / 2`` of the Beta distribution with the posterior's mean and variance, given that
            the client may have shifted (:func:`fedgc.reliability.shift.widen`).

        Examples
        --------
        >>> low, high = ReliabilityPosterior(1.0, 1.0).credible_interval([1])
        >>> low.round(3).tolist(), high.round(3).tolist()
        ([0.05], [0.95])
        """
        if isinstance(level, bool) or not isinstance(level, Real) or not 0.0 < level < 1.0:
            raise ValueError(f"level must lie in (0, 1); got {level!r}")
        mean, variance, shift = self._predict_nodes(read_node_ids(node_ids))
        # A strength beyond 1e15 could not be told from certainty.
        strength = np.minimum(mean * (1.0 - mean) / np.maximum(variance, 1e-300) - 1.0, 1e15)
        misses, arrivals = strength * mean, strength * (1.0 - mean)
        low = inside(betaincinv(misses, arrivals, 0.5 * (1.0 - level)))
        high = inside(betaincinv(misses, arrivals, 0.5 * (1.0 + level)))
        low, high = widen(shift, low, high, float(level))
        # A rare shift may move the mean beyond the quantiles of a narrow posterior.
        estimate = believed(shift, mean)
        return np.minimum(low, estimate), np.maximum(high, estimate)

    def describe(self, node_ids: Iterable[int]) -> list[ClientReliability]:
        """Return what is known of each client, with a 90 % credible interval."""
        nodes = read_node_ids(node_ids)
        mean, (low, high) = self.straggle_prob(nodes), self.credible_interval(nodes)
        return self.clients.describe(nodes, mean, low, high)

    def to_data(self) -> dict[str, Any]:
        """Return the posterior as a dict of plain lists, numbers and strings, which JSON can hold.

        Examples
        --------
        >>> posterior = ReliabilityPosterior().update({7: True})
        >>> ReliabilityPosterior.from_data(posterior.to_data()).straggle_prob([7]) == posterior.straggle_prob([7])
        array([ True])
        """
        return {
            "format": _FORMAT,
            **{name: getattr(self, name) for name in _OPTIONS},
            "clients": storage.clients_to_data(self.clients),
            "fleet": storage.fleet_to_data(self.fleet),
        }

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> ReliabilityPosterior:
        """Return the posterior that :meth:`to_data` wrote, equal in every number.

        Raises
        ------
        ValueError
            If a key is unknown or missing, or a value is not what it must be.
        """
        given = storage.check_keys("data", data, ("format", *_OPTIONS, "clients", "fleet"))
        if given["format"] != _FORMAT:
            raise ValueError(f"format must be {_FORMAT!r}; got {given['format']!r}")
        start = cls(**{name: given[name] for name in _OPTIONS})
        clients = storage.clients_from_data(given["clients"])
        return replace(start, clients=clients, memory=storage.fleet_from_data(given["fleet"], start.fleet))

    def _predict(self, clients: Clients, rows: Index) -> Prediction:
        """Return every model's prediction of the clients in some rows of the table; row -1 is an unseen client."""
        key = rows.tobytes()
        if clients is self.clients and key in self._predicted:
            return self._predicted[key]
        seen = rows >= 0
        last, changed = np.full(rows.size, NEVER), np.zeros(rows.size, dtype=np.bool_)
        last[seen], changed[seen] = clients.last[rows[seen]], clients.resets[rows[seen]] > 0
        made = predict(
            clients.slow.take(rows), clients.fast.take(rows), last, changed=changed, fleet=self.fleet, theta=self.theta
        )
        if clients is self.clients:
            self._predicted[key] = made
        return made

    def _predict_nodes(self, nodes: list[int]) -> tuple[Vector, Vector, Vector]:
        """Return mean and variance that the long memory says, and the probability of each shift, a row per node id."""
        rows = self.clients.rows(nodes)
        seen = rows >= 0
        shift = np.zeros((rows.size, self.clients.shift.shape[1]))
        shift[seen] = self.clients.shift[rows[seen]]
        return *self._predict(self.clients, rows).mixture(self.fleet.weights), shift
