"""Outages: sites whose clients are down together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fedgc.fleets.keys import Purpose
from fedgc.fleets.parameters import Vector
from fedgc.fleets.renewal import AlternatingProcess, Periods, alternate


def site_outages(seed: int, parameters: Mapping[str, Vector]) -> AlternatingProcess:
    """Return the outages of every site, keyed by the site's label.

    Parameters
    ----------
    seed : int
        Seed of the fleet.
    parameters : mapping of str to ndarray, shape (n_clients,)
        `site`, `outage_fraction` and `outage_seconds`.

    Raises
    ------
    ValueError
        If two clients of a site differ in how often or how long it is down.

    Notes
    -----
    A site is down for `outage_seconds` at a time and up for exponential times, whose mean makes it down for
    `outage_fraction` of the time. At instant 0 the process is in its stationary state.
    """
    site = parameters["site"]
    labels, first, which = np.unique(site, return_index=True, return_inverse=True)
    for name in ("outage_fraction", "outage_seconds"):
        value = parameters[name]
        differs = (site >= 0) & (value != value[first][which])
        if differs.any():
            client = int(np.argmax(differs))
            raise ValueError(
                f"{name} must be the same for all clients of site {site[client]:g}; "
                f"got {value[first][which][client]:g} and {value[client]:g}"
            )
    member = {int(label): int(client) for label, client in zip(labels, first, strict=True)}

    def periods(label: int, draws: Vector) -> Periods:
        own = {name: float(parameters[name][member[label]]) for name in ("site", "outage_fraction", "outage_seconds")}
        up = -mean_up_seconds(own) * np.log1p(-draws[2:])
        on_first = bool(draws[0] >= own["outage_fraction"])
        # An exponential time starts afresh whenever one looks; of an outage under way a uniform share is left.
        rest = float(up[0]) if on_first else float(draws[1]) * own["outage_seconds"]
        return alternate(on_first, rest, up[1:], np.full(up.size - 1, own["outage_seconds"]))

    return AlternatingProcess(seed, Purpose.OUTAGES, periods)


def mean_up_seconds(own: Mapping[str, Any]) -> Vector:
    """Return the mean seconds between two outages of a site, infinite if it has none."""
    fraction = np.asarray(own["outage_fraction"], dtype=np.float64)
    with np.errstate(divide="ignore"):
        up: Vector = np.asarray(own["outage_seconds"] * (1.0 - fraction) / fraction)
    return np.where(np.asarray(own["site"]) < 0, np.inf, up)


def site_stay_prob(own: Mapping[str, Any]) -> Callable[[Vector], Vector]:
    """Return the stationary probability that a client's site is up and stays up, as a function of seconds.

    Parameters
    ----------
    own : mapping of str to array_like
        `site`, `outage_fraction`, `outage_seconds`, broadcast against the seconds, which are finite and at least 0.

    Notes
    -----
    With f = outage_fraction this is ``(1 - f) exp(-t / u)``, u = outage_seconds (1 - f) / f the mean time between
    outages. The probability is that of one client: those of a site are down together, so the events of two of its
    clients are not independent.

    Examples
    --------
    >>> stay_prob = site_stay_prob({"site": 0.0, "outage_fraction": 0.05, "outage_seconds": 30.0})
    >>> stay_prob(np.array([0.0, 57.0])).round(4).tolist()
    [0.95, 0.8596]
    """
    mean_up = mean_up_seconds(own)
    share = np.where(np.isinf(mean_up), 1.0, 1.0 - own["outage_fraction"])
    return lambda seconds: share * np.exp(-seconds / mean_up)
