"""The sites of an experiment's fleet: who goes down together, and shards that stay where they are."""

from __future__ import annotations

import numpy as np

from fedgc.assignment import AssignmentConstraints
from fedgc.fleets import Fleet


def site_labels(fleet: Fleet) -> list[int | None]:
    """Return the site of each client, None for one without.

    Examples
    --------
    >>> from fedgc.fleets import build_fleet
    >>> site_labels(build_fleet({"model": "log-normal", "clients": 3, "site": [4, -1, 4]}, seed=1))
    [4, None, 4]
    """
    return [int(site) if site >= 0 else None for site in fleet.parameters["site"].tolist()]


def shards_at_sites(fleet: Fleet, n_shards: int) -> AssignmentConstraints:
    """Return where shards may live if each stays at a site, which has as many as its part of the clients.

    Raises
    ------
    ValueError
        If a client has no site, or there are fewer shards than sites.

    Examples
    --------
    >>> from fedgc.fleets import build_fleet
    >>> fleet = build_fleet({"model": "log-normal", "clients": 3, "site": [4, 7, 4]}, seed=1)
    >>> shards_at_sites(fleet, 6).residency
    [([0, 1, 2, 3], [0, 2]), ([4, 5], [1])]
    """
    labels = site_labels(fleet)
    if None in labels:
        raise ValueError(f"residency must be left out unless each client has a site; got none for {labels.index(None)}")
    sites, members = np.unique(np.array(labels), return_counts=True)
    if n_shards < sites.size:
        raise ValueError(f"residency must be left out with fewer shards than sites; got {n_shards} and {sites.size}")
    # Each site has one, and of the rest the part of the clients that it has, rounded where the sum is.
    ends = np.arange(1, sites.size + 1) + np.rint((n_shards - sites.size) * np.cumsum(members) / members.sum())
    shards = np.split(np.arange(n_shards), ends[:-1].astype(np.intp))
    clients = [np.flatnonzero(np.array(labels) == site).tolist() for site in sites]
    rules = [(own.tolist(), holders) for own, holders in zip(shards, clients, strict=True)]
    return AssignmentConstraints(residency=rules)
