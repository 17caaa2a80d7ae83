"""Fleets from data: a table of settings, on its own or on top of a named preset."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

import numpy as np

from fedgc.errors import ConfigError
from fedgc.fleets.base import Fleet
from fedgc.fleets.log_normal import LogNormalFleet
from fedgc.fleets.paper import PaperFleet
from fedgc.fleets.shifted_exponential import ShiftedExponentialFleet
from fedgc.validation import check_integer, one_of

#: Every fleet model by the name that configurations use.
FLEETS: dict[str, type[Fleet]] = {fleet.name: fleet for fleet in (PaperFleet, ShiftedExponentialFleet, LogNormalFleet)}


@cache
def presets() -> dict[str, dict[str, Any]]:
    """Return the named fleets that ship with the package, as tables."""
    text = resources.files("fedgc.fleets").joinpath("presets.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def build_fleet(table: Mapping[str, Any], *, seed: int) -> Fleet:
    """Build a fleet from a table.

    Parameters
    ----------
    table : mapping
        ``clients`` (number of clients), ``preset`` or ``model`` (a name), optionally ``loss_detection`` (seconds),
        any parameter of the model (a number, or a list with one number per client), and ``groups``: a list of tables
        with a ``share`` of the clients and the parameters in which they differ from the rest. Which clients form a
        group is drawn from `seed`.
    seed : int
        Seed of the fleet's draws.

    Raises
    ------
    ConfigError
        If a key is unknown, a value impossible, or a name not known; one line that names the key.

    Examples
    --------
    >>> fleet = build_fleet({"preset": "phones", "clients": 20}, seed=1)
    >>> sorted(set(fleet.parameters["median"].tolist()))
    [2.9, 8.2]
    """
    settings = dict(table)
    try:
        if "preset" in settings:
            preset = presets()[one_of("fleet.preset", settings.pop("preset"), list(presets()))]
            settings = {**preset, **settings}
        if "model" not in settings:
            raise ConfigError("fleet.model or fleet.preset must be given; got neither")
        kind = FLEETS[one_of("fleet.model", settings.pop("model"), list(FLEETS))]
        n_clients = check_integer("clients", settings.pop("clients", None), low=1, high=10_000_000)
        groups = settings.pop("groups", [])
        if not isinstance(groups, list) or not all(isinstance(group, dict) for group in groups):
            raise ValueError(f"groups must be a list of tables; got {groups!r}")
        options = {key: settings.pop(key) for key in ("loss_detection",) if key in settings}
        parameters = _spread_groups(kind, settings, groups, n_clients, seed)
        return kind(n_clients, seed=seed, **options, **parameters)
    except ConfigError:
        raise
    except (TypeError, ValueError) as error:
        message = str(error)
        raise ConfigError(message if message.startswith("fleet.") else f"fleet.{message}") from None


def _spread_groups(
    kind: type[Fleet], settings: dict[str, Any], groups: list[dict[str, Any]], n_clients: int, seed: int
) -> dict[str, Any]:
    """Return the parameters per client, the groups' values in place of the rest's."""
    parameters = {**settings}
    for key, value in parameters.items():
        if key not in kind.PARAMETERS:
            allowed = ", ".join(sorted(kind.PARAMETERS))
            raise ValueError(f"{key} must be one of {allowed} in a {kind.name} fleet; got {key!r}")
        _check_number(key, value, n_clients)
    order = np.random.default_rng([seed]).permutation(n_clients)
    start = 0.0
    for index, group in enumerate(groups):
        where = f"groups.{index}"
        values = {key: value for key, value in group.items() if key not in ("name", "share")}
        share = group.get("share")
        if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0.0 < share <= 1.0 - start + 1e-9:
            raise ValueError(f"{where}.share must lie above 0 and leave a total of at most 1; got {share!r}")
        members = order[round(start * n_clients) : round((start + share) * n_clients)]
        start += share
        for key, value in values.items():
            if key not in kind.PARAMETERS:
                allowed = ", ".join(sorted({*kind.PARAMETERS, "name", "share"}))
                raise ValueError(f"{where}.{key} must be one of {allowed}; got {key!r}")
            _check_number(f"{where}.{key}", value, 1)
            base = parameters.get(key, kind.PARAMETERS[key].default)
            column = np.full(n_clients, base) if np.ndim(base) == 0 else np.array(base, dtype=np.float64)
            column[members] = value
            parameters[key] = column
    return parameters


def _check_number(key: str, value: object, length: int) -> None:
    items = value if isinstance(value, list) else [value]
    if not all(isinstance(item, (int, float)) and not isinstance(item, bool) for item in items):
        raise ValueError(f"{key} must be a number or a list of numbers; got {value!r}")
    if isinstance(value, list) and len(value) != length:
        raise ValueError(f"{key} must be one number, or one for each of {length} clients; got {len(value)} numbers")
