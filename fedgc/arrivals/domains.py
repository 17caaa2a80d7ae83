"""Failure domains: clients that go down together, a site or a router say, beside what each misses by itself."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedgc.arrivals.base import ArrivalModel, Part, possible_part
from fedgc.validation import check_indices, check_integer, check_straggle_prob, check_vector

#: Members of a domain up to which all of its outcomes are listed.
_MOST_LISTED = 16


class DomainArrivals(ArrivalModel):
    """Clients of a domain are all silent while it is down, and otherwise miss the deadline independently.

    Parameters
    ----------
    straggle_prob : array_like, shape (n_clients,)
        Probability p_i in [0, 1) that client i misses the deadline while its domain is up.
    domain : array_like of int, shape (n_clients,)
        Each client's domain, 0 .. n_domains - 1.
    outage_prob : array_like, shape (n_domains,)
        Probability in [0, 1) that the domain is down, independently of the others.

    Raises
    ------
    ValueError
        If shapes disagree, an entry is out of range, or a domain has no client.

    Notes
    -----
    ``P(i silent) = o + (1 - o) p_i``, and that of a whole set S of one domain's clients is
    ``o + (1 - o) prod_{i in S} p_i``, which is more than the product of the former: who takes clients with these
    marginal probabilities for independent underestimates how often a block within a domain is lost.
    Up to 16 members have all their outcomes listed, for codes whose blocks and domains overlap; whole blocks that lie
    within domains may have any number.

    Examples
    --------
    >>> model = DomainArrivals([0.5, 0.5], [0, 0], [0.1])
    >>> model.row_probability.tolist()
    [0.45, 0.45]
    >>> np.exp(model.log_silence(np.array([0, 0]), 1)).round(12).tolist()
    [0.325]
    """

    def __init__(self, straggle_prob: ArrayLike, domain: ArrayLike, outage_prob: ArrayLike) -> None:
        self.n_rows = check_integer("number of probabilities in straggle_prob", np.size(straggle_prob), low=1)
        self.straggle_prob = check_straggle_prob(straggle_prob, self.n_rows)
        self.domain = check_indices("domain", domain)
        n_domains = check_integer("number of probabilities in outage_prob", np.size(outage_prob), low=1)
        self.outage_prob = check_vector(
            "outage_prob", outage_prob, length=n_domains, low=0.0, high=1.0, high_open=True, who="domain"
        )
        if self.domain.shape != (self.n_rows,):
            raise ValueError(f"domain must have shape ({self.n_rows},); got shape {self.domain.shape}")
        size = np.bincount(self.domain, minlength=n_domains)
        if size.size != n_domains or (size == 0).any():
            named = np.unique(self.domain).tolist()
            raise ValueError(f"domain must name every domain 0 .. {n_domains - 1} of outage_prob; got {named}")

    def parts(self) -> Sequence[Part]:
        """Return a part for each domain, and for those without outages one for each client.

        Raises
        ------
        ValueError
            If a domain with outages has more than 16 members.
        """
        parts = []
        sizes = np.bincount(self.domain, minlength=self.outage_prob.size)
        by_domain = np.split(np.argsort(self.domain, kind="stable"), np.cumsum(sizes)[:-1])
        for members, outage in zip(by_domain, self.outage_prob, strict=True):
            for together in np.split(members, np.arange(1, members.size)) if outage == 0.0 else [members]:
                parts.append(self._part(together, float(outage)))
        return parts

    def _part(self, members: NDArray[np.intp], outage: float) -> Part:
        if members.size > _MOST_LISTED:
            raise ValueError(
                f"domain must have at most {_MOST_LISTED} clients where blocks cross it; got {members.size}"
            )
        outcomes = np.array(list(itertools.product((False, True), repeat=members.size)))
        missing = self.straggle_prob[members]
        probability = (1.0 - outage) * np.where(outcomes, 1.0 - missing, missing).prod(axis=1)
        probability[0] += outage
        return possible_part(members, outcomes, probability)

    @property
    def row_probability(self) -> NDArray[np.float64]:
        """Probability that each client's update arrives, shape (n_clients,)."""
        return (1.0 - self.outage_prob[self.domain]) * (1.0 - self.straggle_prob)

    def draw(self, n_draws: int, rng: np.random.Generator) -> NDArray[np.bool_]:
        """Return `n_draws` random sets of arrivals, shape (n_draws, n_clients)."""
        up = rng.random((n_draws, self.outage_prob.size)) >= self.outage_prob
        return up[:, self.domain] & (rng.random((n_draws, self.n_rows)) >= self.straggle_prob)

    def log_silence(self, group_of_row: NDArray[np.intp], n_groups: int) -> NDArray[np.float64] | None:
        """Return the log probability that nothing of each group arrives; see the base class."""
        at_risk = self.outage_prob[self.domain] > 0.0
        felt = np.unique(np.column_stack([self.domain, group_of_row])[at_risk], axis=0)
        if np.unique(felt[:, 0]).size < len(felt):
            return None  # the outage of a domain is felt by several groups
        with np.errstate(divide="ignore"):  # log 0 of a client that never straggles, of a domain that is never down
            log_missing, log_outage = np.log(self.straggle_prob), np.log(self.outage_prob)
        # Of no clients at all bincount would return integers.
        silent = np.bincount(group_of_row[~at_risk], log_missing[~at_risk], n_groups).astype(np.float64)
        members = np.bincount(self.domain[at_risk], log_missing[at_risk], self.outage_prob.size)
        together = np.logaddexp(log_outage, np.log1p(-self.outage_prob) + members)
        np.add.at(silent, felt[:, 1], together[felt[:, 0]])
        return silent
