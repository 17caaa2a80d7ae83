"""Fleets from files."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from fedgc.errors import ConfigError
from fedgc.fleets.base import Fleet
from fedgc.fleets.build import build_fleet, presets
from fedgc.validation import did_you_mean


def load_fleet(source: str | Path, *, clients: int | None = None, seed: int) -> Fleet:
    """Build a fleet from a preset's name or from a TOML file.

    Parameters
    ----------
    source : str or Path
        Name of a preset, or a TOML file that holds the table of :func:`fedgc.fleets.build_fleet`, at its top level or
        under ``[fleet]``; what stands beside ``[fleet]`` and ``[[client]]`` then belongs to others.
    clients : int, optional
        Number of clients, in place of the file's.
    seed : int
        Seed of the fleet's draws.

    Returns
    -------
    Fleet
        With the limits for a planner in ``fleet.limits``.

    Raises
    ------
    ConfigError
        If the file cannot be read, or a key or value is wrong; one line with file, row and reason.

    Notes
    -----
    A fleet file, with keys for all clients first, then for groups, then for single clients::

        model = "log-normal"       # paper, shifted-exponential, log-normal, pareto, trace; or preset = "phones"
        clients = 3                # may be left out if every client has a table, or with a trace
        median = 2.9               # parameters of the model, in seconds
        dropout = 0.05             # and of every fleet, see fedgc/fleets/parameters.py

        [[groups]]
        share = 0.5                # of the clients, drawn from the seed
        slow_prob = 0.2

        [[client]]                 # client table 1
        id = 0                     # from 0 on, each once
        median = 8.2               # parameters of its own
        storage = 40               # shards that fit on it
        computation = 4            # shards per round at most
        site = 2                   # label of where it stands: clients of a site fail together

    A trace to replay is named relative to the file::

        model = "trace"
        trace = "recorded.csv"     # columns client, round, seconds; a number or the word missed
        load = 2                   # shards that the recorded rounds computed

    Examples
    --------
    >>> load_fleet("phones", clients=10, seed=1).n_clients
    10
    """
    if isinstance(source, str) and source in presets():
        return build_fleet({"preset": source} | ({} if clients is None else {"clients": clients}), seed=seed)
    path = Path(source)
    table = _read(path)
    if clients is not None:
        table["clients"] = clients
    if isinstance(table.get("trace"), str):
        table["trace"] = str(path.parent / table["trace"])
    try:
        return build_fleet(table, seed=seed)
    except ConfigError as error:
        message = str(error).removeprefix("fleet.")
        # What is wrong with a trace names the trace's file.
        own = "trace" in table and message.startswith((f"{table['trace']}:", f"{table['trace']},"))
        raise ConfigError(message if own else f"{path}: {message}") from None


def _read(path: Path) -> dict[str, Any]:
    try:
        # Some editors begin a file with a byte order mark, which CSV traces may have too.
        raw = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        names = ", ".join(sorted(presets()))
        raise ConfigError(
            f"fleet must be one of the presets {names} or a readable TOML file; got {str(path)!r} ({error.strerror})"
            f"{did_you_mean(path.name, presets())}"
        ) from None
    except RecursionError:
        raise ConfigError(f"{path}: must be valid TOML; got tables or lists nested too deeply") from None
    except ValueError as error:  # also bytes that are not UTF-8, and integers of thousands of digits
        raise ConfigError(f"{path}: must be valid TOML; {error}") from None
    if "fleet" not in raw:
        return raw
    if not isinstance(raw["fleet"], dict):
        raise ConfigError(f"{path}: fleet must be a table; got {raw['fleet']!r}")
    table = dict(raw["fleet"])
    if "client" in raw:
        if "client" in table:
            raise ConfigError(f"{path}: client tables must stand in one place; got [[client]] and [[fleet.client]]")
        table["client"] = raw["client"]
    return table
