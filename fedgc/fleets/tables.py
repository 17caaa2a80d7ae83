"""One number per client, from settings for all, for groups, and for single clients."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fedgc.errors import ConfigError
from fedgc.fleets.parameters import Parameter
from fedgc.validation import did_you_mean

if TYPE_CHECKING:
    from fedgc.fleets.base import Fleet

Table = Mapping[str, Any]

#: Keys of a fleet's table that every model has beside its parameters.
FLEET_KEYS = ("client", "clients", "groups", "model", "preset")

#: Characters of a value that a message shows.
_LONGEST = 60


def per_client(
    kind: type[Fleet],
    settings: Table,
    groups: Sequence[Table],
    clients: Sequence[Table],
    *,
    n_clients: int,
    seed: int,
) -> dict[str, Any]:
    """Return the parameters of every client: the groups' values in place of the rest's, its own in place of both.

    Parameters
    ----------
    kind : type of Fleet
        The model, whose PARAMETERS may be set.
    settings : mapping
        Parameters of all clients: a number, or a list with one number per client.
    groups, clients : sequence of mapping
        As in :func:`fedgc.fleets.build_fleet`.
    n_clients, seed : int
        Number of clients, and the seed that decides who is in which group.

    Raises
    ------
    ValueError
        If a key or a value is wrong; ConfigError, with the position of the table, for those of a single client.

    Examples
    --------
    >>> from fedgc.fleets import LogNormalFleet
    >>> groups, clients = [{"share": 1.0, "sigma": 0.5}], [{"id": 2, "sigma": 0.1}]
    >>> per_client(LogNormalFleet, {"median": 2.0}, groups, clients, n_clients=3, seed=1)
    {'median': 2.0, 'sigma': array([0.5, 0.5, 0.1])}
    """
    parameters: dict[str, Any] = {}
    for key, value in settings.items():
        if key not in kind.PARAMETERS:
            known = [*kind.PARAMETERS, *kind.OPTIONS, *FLEET_KEYS]
            allowed, hint = ", ".join(sorted(known)), did_you_mean(key, known)
            raise ValueError(f"{key} must be one of {allowed} in a {kind.name} fleet; got {key!r}{hint}")
        _check_number(key, value, n_clients)
        parameters[key] = value
    for index, (members, values) in enumerate(_members(groups, n_clients, seed)):
        where = f"groups.{index}"
        for key, value in values.items():
            if key not in kind.PARAMETERS:
                allowed = ", ".join(sorted({*kind.PARAMETERS, "name", "share"}))
                hint = did_you_mean(key, kind.PARAMETERS)
                raise ValueError(f"{where}.{key} must be one of {allowed}; got {key!r}{hint}")
            _check_one(kind.PARAMETERS[key], value, f"{where}.{key}")
            column = _column(parameters, kind.PARAMETERS[key], key, n_clients)
            column[members] = value
    taken: dict[int, int] = {}
    for row, table in enumerate(clients, start=1):
        try:
            client = _client_id(table, taken, n_clients)
            taken[client] = row
            for key, value in table.items():
                if key != "id":
                    _check_own(kind, key, value)
                    _column(parameters, kind.PARAMETERS[key], key, n_clients)[client] = value
        except ValueError as error:
            raise ConfigError(f"client table {row}: {error}") from None
    return parameters


def _members(groups: Sequence[Table], n_clients: int, seed: int) -> list[tuple[Any, dict[str, Any]]]:
    """Return who is in each group, and the group's parameters."""
    order = np.random.default_rng([seed]).permutation(n_clients)
    found, start = [], 0.0
    for index, group in enumerate(groups):
        share = group.get("share")
        if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0.0 < share <= 1.0 - start + 1e-9:
            raise ValueError(f"groups.{index}.share must lie above 0 and leave a total of at most 1; got {share!r}")
        members = order[round(start * n_clients) : round((start + share) * n_clients)]
        start += share
        found.append((members, {key: value for key, value in group.items() if key not in ("name", "share")}))
    return found


def _column(parameters: dict[str, Any], spec: Parameter, key: str, n_clients: int) -> NDArray[np.float64]:
    """Return the parameter as an array with an entry per client, which from now on is what `parameters` holds."""
    if not isinstance(parameters.get(key), np.ndarray):
        base = np.asarray(parameters.get(key, spec.default), dtype=np.float64)
        parameters[key] = np.array(np.broadcast_to(base, n_clients))
    column: NDArray[np.float64] = parameters[key]
    return column


def _client_id(table: Table, taken: Mapping[int, int], n_clients: int) -> int:
    client = table.get("id")
    if isinstance(client, bool) or not isinstance(client, int) or not 0 <= client < n_clients:
        raise ValueError(f"id must be an integer from 0 to {n_clients - 1}; got {client!r}")
    if client in taken:
        raise ValueError(f"id must be given once; client table {taken[client]} has {client} too")
    return client


def _check_own(kind: type[Fleet], key: str, value: object) -> None:
    if key not in kind.PARAMETERS:
        allowed = ", ".join(sorted({*kind.PARAMETERS, "id"}))
        raise ValueError(f"{key} must be one of {allowed}; got {key!r}{did_you_mean(key, kind.PARAMETERS)}")
    _check_one(kind.PARAMETERS[key], value, key)


def _check_one(spec: Parameter, value: object, name: str) -> None:
    """Check the value of one group or client."""
    if not _is_number(value):
        raise ValueError(f"{name} must be a number; got {_shown(value)}")
    _check_number(name, value, 1)
    try:
        spec.check(name, np.float64(value), 1)  # type: ignore[arg-type]
    except ValueError as error:
        raise ValueError(str(error).removesuffix(" for client 0")) from None


def _check_number(key: str, value: object, length: int) -> None:
    items = value if isinstance(value, list) else [value]
    if not all(_is_number(item) for item in items):
        raise ValueError(f"{key} must be a number or a list of numbers; got {_shown(value)}")
    for client, item in enumerate(items):
        if isinstance(item, float) and math.isnan(item):
            who = f" for client {client}" if isinstance(value, list) else ""
            raise ValueError(f"{key} must not be NaN; got nan{who}")
    if isinstance(value, list) and len(value) != length:
        raise ValueError(f"{key} must be one number, or one for each of {length} clients; got {len(value)} numbers")


def _is_number(value: object) -> bool:
    if isinstance(value, int) and not isinstance(value, bool):
        return abs(value) <= sys.float_info.max
    return isinstance(value, float)


def _shown(value: object) -> str:
    """Return the value as it goes into a message, not longer than a line."""
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}... ({len(text)} characters)"
