"""Which clients go down together, and what that makes of the arrivals of a round."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fedgc.arrivals import ArrivalModel, DomainArrivals, IndependentArrivals
from fedgc.codes import Code

#: Clients of a code whose blocks cross domains, up to which all of their states are listed: 65,536.
_MOST_LISTED = 16
#: A client whose silence outages explain altogether is thought to miss so much by itself, or all if it misses less.
_LEAST_MISS, _LARGEST_MISS = 1e-3, 1.0 - 1e-12

Vector = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class FailureDomains:
    """The failure domains of clients, by number.

    Attributes
    ----------
    of_client : ndarray of int, shape (n_clients,)
        The domain of each client, -1 for none.
    n_domains : int
        How many there are; those of which no client is among these count too.
    """

    of_client: NDArray[np.intp]
    n_domains: int

    @classmethod
    def named(cls, labels: Sequence[Hashable] | NDArray[np.generic]) -> FailureDomains:
        """Return the domains that are meant by a label for each client, numbered as they are first named.

        Parameters
        ----------
        labels : sequence of hashable, shape (n_clients,)
            Any labels, None for a client that goes down with no other. A label that only one client has is no domain:
            an outage and the client's own silence would be the same.

        Raises
        ------
        ValueError
            If it is no such sequence, or no two clients share a label.

        Examples
        --------
        >>> FailureDomains.named(["lab", "home", "lab", None, "roof", "roof"]).of_client.tolist()
        [0, -1, 0, -1, 1, 1]
        """
        if isinstance(labels, str) or not isinstance(labels, Sequence | np.ndarray):
            raise ValueError(f"failure_domains must be one label for each client; got {labels!r:.80}")
        given = labels.tolist() if isinstance(labels, np.ndarray) else list(labels)
        try:
            members: dict[Hashable, list[int]] = {}
            for client, label in enumerate(given):
                members.setdefault(label, []).append(client)
        except TypeError:
            raise ValueError(f"failure_domains must be labels, numbers or names say; got {given!r:.80}") from None
        shared = [own for label, own in members.items() if label is not None and len(own) > 1]
        if not shared:
            raise ValueError(f"failure_domains must have a label that two clients share; got {given!r:.80}")
        of_client = np.full(len(given), -1, dtype=np.intp)
        for number, own in enumerate(shared):
            of_client[own] = number
        return cls(of_client, len(shared))

    def for_nodes(self, everyone: Sequence[int | None], nodes: Iterable[int]) -> FailureDomains:
        """Return the domains of nodes, `everyone` being whom they are stated for; others are in none."""
        place = {node: index for index, node in enumerate(everyone) if node is not None}
        own = [self.of_client[place[node]] if node in place else -1 for node in nodes]
        return replace(self, of_client=np.array(own, dtype=np.intp))


def arrivals_with_outages(
    code: Code, prob: Vector, domain: NDArray[np.intp], outage_prob: Vector, *, includes_outages: bool
) -> ArrivalModel:
    """Return the arrivals of a code whose clients send one update each, or go down with their domain.

    Parameters
    ----------
    code : Code
        The code.
    prob : ndarray, shape (n_clients,)
        Probability of each client to miss the deadline.
    domain : ndarray of int, shape (n_clients,)
        Domain of each client, -1 for none.
    outage_prob : ndarray, shape (n_domains,)
        Probability of each domain to be down.
    includes_outages : bool
        Whether `prob` is of all rounds, P, or of those in which the client's domain is up, p: with the probability o of
        an outage ``P = o + (1 - o) p``. Either is made into the other, so that what outages explain is not counted
        twice.

    Notes
    -----
    Where blocks are whole, a domain is either within one of them, or a code has at most 16 clients, the arrivals are
    those of :class:`fedgc.arrivals.DomainArrivals`, and decoders that go by them are exact. The states of blocks that
    are tied to each other by domains are too many to list else. Clients of a domain that crosses blocks then count as
    independent, each with its P: copies at different sites are what makes outages cost little, and with them the
    bias that is left is small (``experiments/neighbours/outages.py`` measures it).

    Examples
    --------
    >>> from fedgc.codes import FractionalRepetition
    >>> model = arrivals_with_outages(
    ...     FractionalRepetition([0, 0, 1], [0, 1]), np.array([0.55, 0.55, 0.2]), np.array([0, 0, -1]), np.array([0.1]),
    ...     includes_outages=True,
    ... )
    >>> model.straggle_prob.round(12).tolist(), model.row_probability.round(12).tolist()
    ([0.5, 0.5, 0.2], [0.45, 0.45, 0.8])
    """
    down = np.where(domain >= 0, outage_prob[domain] if outage_prob.size else 0.0, 0.0)
    up = np.maximum((prob - down) / (1.0 - down), np.minimum(prob, _LEAST_MISS)) if includes_outages else prob
    up = np.clip(up, 0.0, _LARGEST_MISS)
    together = (domain >= 0) & ~np.isin(domain, taken_for_independent(code, domain))
    if not together.any():
        return IndependentArrivals(np.clip(down + (1.0 - down) * up, 0.0, _LARGEST_MISS))
    up = np.where(together, up, down + (1.0 - down) * up)
    # Everyone else is a domain of its own without outages, numbered behind the others.
    number = np.where(together, domain, outage_prob.size + np.arange(domain.size))
    present, dense = np.unique(number, return_inverse=True)
    outages = np.where(present < outage_prob.size, outage_prob[np.minimum(present, outage_prob.size - 1)], 0.0)
    return DomainArrivals(np.clip(up, 0.0, _LARGEST_MISS), dense.astype(np.intp), outages)


def taken_for_independent(code: Code, domain: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return the domains whose clients count as independent, since too many states would have to be listed.

    Examples
    --------
    >>> from fedgc.codes import FractionalRepetition
    >>> pairs = FractionalRepetition(np.arange(20) // 2, np.arange(10))
    >>> taken_for_independent(pairs, np.r_[0, 0, 1, 2, 1, 2, np.full(14, -1)]).tolist()
    [1, 2]
    """
    if code.blocks is None:
        return np.unique(domain[domain >= 0])
    if code.n_clients <= _MOST_LISTED:
        return np.zeros(0, dtype=np.intp)
    felt = np.unique(np.column_stack([domain, code.blocks.of_client]), axis=0)[:, 0]
    number, blocks = np.unique(felt[felt >= 0], return_counts=True)
    return number[blocks > 1]
