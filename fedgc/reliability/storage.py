"""The posterior as plain lists, numbers and strings, and back: what came from outside is checked entry by entry."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import fields
from typing import Any

import numpy as np

from fedgc.reliability.clients import COLUMNS, NEVER, Clients
from fedgc.reliability.counts import Counts, Vector
from fedgc.reliability.fleet_belief import FleetBelief
from fedgc.reliability.fleet_prior import BetaPrior
from fedgc.reliability.shift import SHIFTS
from fedgc.validation import check_integer

_COUNTS = tuple(column.name for column in fields(Counts))
_RANGES = {"last": (NEVER, 1.0), "before": (NEVER, 1.0), "shift": (0.0, 1.0)}
_WHOLE = ("rounds", "resets", "changed_at")
#: Discounted sums may differ from their limits by rounding.
_ROUNDING = 1e-9


def clients_to_data(clients: Clients) -> dict[str, Any]:
    """Return the table of clients as a JSON-serialisable dict."""
    columns = {name: getattr(clients, name).tolist() for name in COLUMNS}
    counts = {
        name: {column: getattr(getattr(clients, name), column).tolist() for column in _COUNTS}
        for name in ("slow", "fast")
    }
    return {"node_ids": list(clients.index), **columns, **counts}


def clients_from_data(data: object) -> Clients:
    """Return the table of clients, or raise ValueError for the first thing that is wrong with `data`."""
    given = check_keys("clients", data, ("node_ids", *COLUMNS, "slow", "fast"))
    nodes = given["node_ids"]
    if not isinstance(nodes, list) or not all(type(node) is int for node in nodes):
        raise ValueError("node_ids must be a list of integers")
    if len(set(nodes)) != len(nodes):
        raise ValueError(f"node_ids must be distinct; got {len(nodes)} of which {len(set(nodes))} differ")
    n = len(nodes)
    columns: dict[str, Any] = {}
    for name in COLUMNS:
        low, high = _RANGES.get(name, (0.0, np.inf))
        column = numbers(name, given[name], (n, len(SHIFTS)) if name == "shift" else (n,), low, high)
        if name == "shift" and (column.sum(axis=1) > 1.0).any():
            raise ValueError(f"shift must hold probabilities of sum at most 1; got {column.sum(axis=1).max():g}")
        if name in {"last", "before"} and ((column < 0.0) & (column != NEVER)).any():
            raise ValueError(f"{name} must hold probabilities, or {NEVER:g} for none; got {column.min():g}")
        if name in _WHOLE:
            if (column != np.rint(column)).any() or (column > 2.0**53).any():
                raise ValueError(f"{name} must be a list of integers from 0 to 2^53")
            columns[name] = column.astype(np.int64)
        else:
            columns[name] = column
    columns |= {name: _counts_from_data(name, given[name], n) for name in ("slow", "fast")}
    return Clients(index={node: row for row, node in enumerate(nodes)}, **columns)


def fleet_to_data(fleet: FleetBelief) -> dict[str, Any]:
    """Return what is known of the fleet as a JSON-serialisable dict; models follow from the posterior's options."""
    return {
        "log_scores": list(fleet.log_scores),
        "priors": [[prior.misses, prior.arrivals, prior.doubt] for prior in fleet.priors],
        "updates": fleet.updates,
        "fitted_at": fleet.fitted_at,
    }


def fleet_from_data(data: object, start: FleetBelief) -> FleetBelief:
    """Return what is known of the fleet, `start` being a fleet with the same options, or raise ValueError."""
    given = check_keys("fleet", data, ("log_scores", "priors", "updates", "fitted_at"))
    scores = numbers("log_scores", given["log_scores"], (len(start.models),), -np.inf, 0.0)
    priors = numbers("priors", given["priors"], (3, 3), 0.0, np.inf)
    if (priors[:, :2] <= 0.0).any():
        raise ValueError(f"priors must have pseudo-counts above 0; got {priors[:, :2].min():g}")
    updates = check_integer("updates", given["updates"], low=0)
    return FleetBelief(
        models=start.models,
        log_scores=tuple(scores.tolist()),
        priors=(BetaPrior(*priors[0].tolist()), BetaPrior(*priors[1].tolist()), BetaPrior(*priors[2].tolist())),
        learnt=start.learnt,
        updates=updates,
        fitted_at=check_integer("fitted_at", given["fitted_at"], low=0, high=updates),
    )


def check_keys(name: str, data: object, keys: Collection[str]) -> Mapping[str, Any]:
    """Return `data` if it is a mapping with exactly these keys, or raise ValueError that names one that is off.

    Examples
    --------
    >>> check_keys("fleet", {"updates": 1, "x": 2}, ("updates",))
    Traceback (most recent call last):
    ...
    ValueError: fleet must have no key but updates; got 'x'
    """
    if not isinstance(data, Mapping):
        raise ValueError(f"{name} must be a mapping; got {type(data).__name__}")
    for key in data:
        if key not in keys:
            raise ValueError(f"{name} must have no key but {', '.join(keys)}; got {key!r}")
    for key in keys:
        if key not in data:
            raise ValueError(f"{name} must have the key {key!r}; got {', '.join(map(str, data)) or 'none'}")
    return data


def _counts_from_data(name: str, data: object, n: int) -> Counts:
    given = check_keys(name, data, _COUNTS)
    rounds, squares, misses = (
        numbers(f"{name} {column}", given[column], (n, 3), 0.0, np.inf) for column in _COUNTS[:3]
    )
    alternations = numbers(f"{name} alternations", given["alternations"], (n,), 0.0, np.inf)
    for column, values in (("squares", squares), ("misses", misses)):
        if (values > rounds * (1.0 + _ROUNDING)).any():
            raise ValueError(f"{name} {column} must be at most {name} rounds")
    return Counts(rounds, squares, misses, alternations)


def numbers(name: str, value: object, shape: tuple[int, ...], low: float, high: float) -> Vector:
    """Return a list, perhaps of lists, as an array of this shape, or raise ValueError for the first thing wrong."""
    try:
        array = np.asarray(value if value != [] else np.zeros((0, *shape[1:])))
    except (TypeError, ValueError):
        array = np.asarray(None)
    if not isinstance(value, list) or array.dtype.kind not in "iuf":
        raise ValueError(f"{name} must be a list of numbers")
    if array.shape != shape:
        raise ValueError(f"{name} must have shape {shape}; got shape {array.shape}")
    vector = array.astype(np.float64)
    good = np.isfinite(vector) & (vector >= low) & (vector <= high)
    if not good.all():
        raise ValueError(f"{name} must be finite and lie in [{low:g}, {high:g}]; got {vector[~good][0]:g}")
    return vector
