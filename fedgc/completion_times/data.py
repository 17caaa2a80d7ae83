"""Completion times as plain data and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from fedgc.completion_times.base import FleetPrior
from fedgc.completion_times.families import FAMILIES
from fedgc.completion_times.history import COLUMNS, FLAGS, History
from fedgc.completion_times.mixing import Mixing
from fedgc.completion_times.model import CompletionTimes

_VERSION = 3
_OPTIONS = ("family", "window", "forgetting", "slow_rounds")


def to_data(times: CompletionTimes) -> dict[str, Any]:
    """Return the state as lists, numbers and strings.

    Notes
    -----
    The observations, the fleet and the scores are the whole state; clients' fits follow from them. Python writes floats
    with all their digits, so that what comes back from JSON is the same to the last bit.

    Examples
    --------
    >>> import json
    >>> from fedgc.completion_times import CompletionTimes, TimeObservation
    >>> times = CompletionTimes(family="weibull").update([TimeObservation(7, shards=2, seconds=9.0)])
    >>> again = CompletionTimes.from_data(json.loads(json.dumps(times.to_data())))
    >>> again.to_data() == times.to_data()
    True
    """
    history = times.history or History.empty(times.window)
    rows: dict[str, list[Any]] = {name: getattr(history, name).tolist() for name in ("shards", "seconds", *FLAGS)}
    rows["fixed_seconds"] = [[None if np.isnan(x) else x for x in row] for row in history.fixed_seconds.tolist()]
    return {
        "version": _VERSION,
        **{name: getattr(times, name) for name in _OPTIONS},
        "node_ids": history.node_ids.tolist(),
        "count": history.count.tolist(),
        "observations": rows,
        "priors": {
            name: {**asdict(p), "mean": list(p.mean), "spread": list(p.spread)} for name, p in times.priors.items()
        },
        "scores": dict(times.scores),
        "log_scores": list(times.mixing.log_scores),
    }


def from_data(data: Mapping[str, Any]) -> CompletionTimes:
    """Return the state that :func:`to_data` wrote.

    Raises
    ------
    ValueError
        If something is missing, of the wrong type or shape, or out of range.
    """
    try:
        if data["version"] != _VERSION:
            found = data["version"]
            raise ValueError(f"completion times must be in format version {_VERSION}; got version {found!r:.20}")
        options = {name: data[name] for name in _OPTIONS}
        CompletionTimes(**options)
        history = _history(data, int(options["window"]))
        priors = {str(name): _prior(name, given) for name, given in data["priors"].items()}
        scores = {str(name): float(score) for name, score in data["scores"].items()}
        mixing = Mixing(tuple(float(score) for score in data["log_scores"]))  # type: ignore[arg-type]
    except (KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"data must be what to_data returns; got {type(error).__name__}: {error}") from error
    if not set(scores) <= set(priors) or not np.isfinite(list(scores.values())).all():
        raise ValueError(f"scores must be finite and of families with a prior; got {scores}")
    if len(mixing.log_scores) != 3 or not np.isfinite(mixing.log_scores).all():
        raise ValueError(f"log_scores must be three finite numbers; got {data['log_scores']!r}")
    return CompletionTimes(**options, history=history, priors=priors, scores=scores, mixing=mixing)


def _history(data: Mapping[str, Any], window: int) -> History:
    node_ids, count = (np.array(data[name], dtype=np.int64) for name in ("node_ids", "count"))
    if node_ids.ndim != 1 or (node_ids[1:] <= node_ids[:-1]).any():
        raise ValueError("node_ids must increase")
    if count.shape != node_ids.shape or (count < 1).any():
        raise ValueError(f"count must hold {node_ids.size} integers of at least 1")
    rows, shape = data["observations"], (node_ids.size, window)
    # None becomes NaN.
    tables = {name: np.array(rows[name], dtype=np.float64).reshape(shape) for name in COLUMNS}
    flags = {}
    for name in FLAGS:
        flags[name] = np.array(rows[name], dtype=None if node_ids.size else np.bool_).reshape(shape)
        if flags[name].dtype != np.bool_:
            raise ValueError(f"{name} must hold true and false; got {flags[name].dtype}")
    for name in ("shards", "seconds"):
        if not (np.isfinite(tables[name]) & (tables[name] > 0.0)).all():
            raise ValueError(f"{name} must be finite and above 0")
    fixed = tables["fixed_seconds"]
    if not (np.isnan(fixed) | ((fixed >= 0.0) & (fixed < tables["seconds"]))).all():
        raise ValueError("fixed_seconds must lie in [0, seconds)")
    return History(node_ids=node_ids, count=count, **tables, **flags)  # type: ignore[arg-type]


def _prior(name: object, given: Mapping[str, Any]) -> FleetPrior:
    if name not in FAMILIES:
        raise ValueError(f"priors must be of {', '.join(sorted(FAMILIES))}; got {name!r}")
    pairs = {key: tuple(float(x) for x in given[key]) for key in ("mean", "spread")}
    numbers = {key: float(given[key]) for key in ("present", "absent", "slow_prob", "slow_factor")}
    if any(len(pair) != 2 for pair in pairs.values()) or not np.isfinite([*pairs["mean"], *numbers.values()]).all():
        raise ValueError(f"priors must hold finite numbers, two each of mean and spread; got {given!r}")
    positive = (*pairs["spread"], numbers["present"], numbers["absent"], numbers["slow_factor"])
    if not all(0.0 < x < np.inf for x in positive) or not 0.0 <= numbers["slow_prob"] < 1.0:
        raise ValueError(f"priors must hold spreads and pseudo-counts above 0, slow_prob in [0, 1); got {given!r}")
    return FleetPrior(**pairs, **numbers)  # type: ignore[arg-type]
