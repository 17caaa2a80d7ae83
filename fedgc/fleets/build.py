"""Fleets from data: a table of settings, on its own or on top of a named preset."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

from fedgc.errors import ConfigError
from fedgc.fleets.base import Fleet
from fedgc.fleets.log_normal import LogNormalFleet
from fedgc.fleets.paper import PaperFleet
from fedgc.fleets.pareto import ParetoFleet
from fedgc.fleets.shifted_exponential import ShiftedExponentialFleet
from fedgc.fleets.tables import per_client
from fedgc.fleets.trace import TraceFleet
from fedgc.fleets.trace_file import read_trace
from fedgc.validation import check_integer, did_you_mean, one_of

#: Every fleet model by the name that configurations use.
FLEETS: dict[str, type[Fleet]] = {
    fleet.name: fleet for fleet in (PaperFleet, ShiftedExponentialFleet, LogNormalFleet, ParetoFleet, TraceFleet)
}

#: More clients than this are a slip of the keyboard.
MOST_CLIENTS = 10_000_000


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
        any parameter of the model (a number, or a list with one number per client), and

        - ``groups``: a list of tables with a ``share`` of the clients and the parameters in which they differ from the
          rest. Which clients form a group is drawn from `seed`.
        - ``client``: a list of tables with the ``id`` of a client, from 0 on, and its own parameters. They come after
          the groups. If ``clients`` is left out, there is one table for every client.
        - ``trace``: in the model ``trace``, the file to replay, relative to where the program runs. ``clients`` may
          then be left out.
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
            likely = (f"{key!r}{hint}" for key in settings if (hint := did_you_mean(key, ("model", "preset"))))
            raise ConfigError(f"fleet.model must be given, or preset in its place; got {next(likely, 'neither')}")
        kind = FLEETS[one_of("fleet.model", settings.pop("model"), list(FLEETS))]
        options = {key: settings.pop(key) for key in kind.OPTIONS if key in settings}
        groups, clients = (_tables(key, settings.pop(key, [])) for key in ("groups", "client"))
        n_clients = _number_of_clients(kind, settings.pop("clients", len(clients) or None), options)
        parameters = per_client(kind, settings, groups, clients, n_clients=n_clients, seed=seed)
        return kind(n_clients, seed=seed, **options, **parameters)
    except ConfigError:
        raise
    except (TypeError, ValueError) as error:
        message = str(error)
        raise ConfigError(message if message.startswith("fleet.") else f"fleet.{message}") from None


def _number_of_clients(kind: type[Fleet], given: object, options: dict[str, Any]) -> int:
    if kind is TraceFleet:
        if not isinstance(options.get("trace"), str):
            raise ValueError(f"trace must be the name of a .csv or .parquet file; got {options.get('trace')!r}")
        options["trace"] = read_trace(options["trace"])
        given = options["trace"].seconds.shape[0] if given is None else given
    return check_integer("clients", given, low=1, high=MOST_CLIENTS)


def _tables(key: str, value: object) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise ValueError(f"{key} must be a list of tables; got {value!r}")
    return value
