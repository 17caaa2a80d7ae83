"""How many examples shards have, as most nodes say."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray


class TypicalSizes:
    """The median over nodes of the median number of examples of their shards.

    Parameters
    ----------
    claims : mapping of int to (mapping of int to float)
        What nodes have said of the shards, by shard and node id.
    shard_examples : ndarray, shape (n_shards,)
        Known sizes, NaN where not known, in case that no node has said anything.

    Notes
    -----
    Over nodes, since one that holds half of all shards has one voice all the same. Of an even number of nodes the lower
    of the two in the middle counts: to overstate sizes does more harm. Shards without examples do not count.

    Examples
    --------
    >>> typical = TypicalSizes({0: {7: 40.0, 8: 1e9}, 1: {7: 50.0, 8: 1e9}}, np.array([np.nan, np.nan]))
    >>> typical.of_all(), typical.of_others(8, np.array([0, 1]))
    (45.0, 45.0)
    """

    def __init__(self, claims: Mapping[int, Mapping[int, float]], shard_examples: NDArray[np.float64]) -> None:
        self._shard_examples = shard_examples
        said: dict[int, list[float]] = {}
        for of_shard in claims.values():
            for node, count in of_shard.items():
                said.setdefault(node, []).append(count)
        self._of_node = {node: size for node, counts in said.items() if (size := _median(counts)) is not None}
        self._sorted = sorted(self._of_node.values())

    @classmethod
    def of_nodes(cls, of_node: Mapping[int, float], shard_examples: NDArray[np.float64]) -> TypicalSizes:
        """Return the sizes of nodes whose medians are known."""
        typical = cls({}, shard_examples)
        typical._of_node, typical._sorted = dict(of_node), sorted(of_node.values())
        return typical

    @property
    def of_node(self) -> dict[int, float]:
        """The median of each node's shards, of those that have said anything."""
        return dict(self._of_node)

    def set(self, node: int, counts: NDArray[np.float64] | None) -> None:
        """Take note of what a node says of its shards, in place of what it has said before; None is nothing."""
        before, now = self._of_node.pop(node, None), None if counts is None else _median(counts)
        if before is not None:
            del self._sorted[bisect_left(self._sorted, before)]
        if now is not None:
            self._of_node[node] = now
            insort(self._sorted, now)

    def of_all(self) -> float | None:
        """Return the typical size, None if no shard with examples is known."""
        if self._sorted:
            return self._sorted[(len(self._sorted) - 1) // 2]
        return _median(self._shard_examples)

    def of_others(self, node: int, shards: NDArray[np.intp]) -> float | None:
        """Return what is typical of other nodes or, if none has said anything, of other shards than a node's own."""
        others = list(self._sorted)
        if node in self._of_node:
            del others[bisect_left(others, self._of_node[node])]
        return others[(len(others) - 1) // 2] if others else _median(np.delete(self._shard_examples, shards))


def _median(counts: object) -> float | None:
    sizes = np.asarray(counts, dtype=np.float64)
    known = sizes[sizes > 0.0]
    return float(np.median(known)) if known.size else None
