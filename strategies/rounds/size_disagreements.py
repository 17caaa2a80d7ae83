"""Holders of a shard that say different numbers of examples of it: what the log tells of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

#: Shards that a line in the log names.
_NAMED = 5


@dataclass(frozen=True, order=True)
class SizeDisagreement:
    """Two nodes that said different numbers of examples of a shard in the same round."""

    shard: int
    nodes: tuple[int, int]
    sizes: tuple[float, float]


def size_lines(disagreements: Sequence[SizeDisagreement]) -> list[str]:
    """Return one line for each pair of nodes that disagree, with the shards that they disagree on.

    Examples
    --------
    >>> size_lines([SizeDisagreement(shard, (7, 9), (50.0, 150.0)) for shard in (1, 4)])
    ['nodes 7 and 9 say different numbers of examples: 50 and 150 of shard 1, 50 and 150 of shard 4']
    """
    of_pair: dict[tuple[int, int], list[SizeDisagreement]] = {}
    for one in sorted(disagreements):
        of_pair.setdefault(one.nodes, []).append(one)
    lines = []
    for nodes, shards in of_pair.items():
        told = [f"{first.sizes[0]:g} and {first.sizes[1]:g} of shard {first.shard}" for first in shards[:_NAMED]]
        more = [f"and so on, of {len(shards)} shards"] if len(shards) > _NAMED else []
        lines.append(f"nodes {nodes[0]} and {nodes[1]} say different numbers of examples: {', '.join(told + more)}")
    return lines
