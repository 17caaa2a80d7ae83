"""Shards that a strategy has divided further, on clients whose pace stays what it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np


def fleet_of_pieces(table: Mapping[str, Any], pieces: int) -> dict[str, Any]:
    """Return a fleet's table for shards of one `pieces`-th of the size: all of a shard's take as long as the shard.

    Examples
    --------
    >>> fleet_of_pieces({"preset": "phones", "clients": 3}, 4)
    {'preset': 'phones', 'clients': 3, 'shard_size': 0.25}
    """
    divided = {**table, "shard_size": _divided(table.get("shard_size", 1.0), pieces)}
    for key in ("groups", "client"):
        if key in table:
            divided[key] = [
                {**own, "shard_size": _divided(own["shard_size"], pieces)} if "shard_size" in own else own
                for own in table[key]
            ]
    return divided


def _divided(size: Any, pieces: int) -> Any:  # noqa: ANN401  (one number, or one per client)
    return (np.asarray(size, dtype=np.float64) / pieces).tolist()
