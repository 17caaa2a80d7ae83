"""Set aside: nodes that keep sending what cannot be used are not asked for a while."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType

from fedgc.validation import check_integer

#: So many rounds a node is set aside at most, so that one that has been mended comes back.
_LONGEST = 32


class SetAside:
    """Counts bad replies by node.

    Parameters
    ----------
    after : int
        Bad replies in a row, without a good one between them, after which a node is set aside: for one round at first,
        then for twice as many each time. A good reply makes up for all of them.

    Raises
    ------
    ValueError
        If `after` is not an integer of at least 1.

    Notes
    -----
    A node whose every reply is left out would otherwise be planned with for ever: its share of the work is computed and
    sent in vain, and a decoder that believes in it waits for what it holds. That a node does not answer is nothing bad
    in this sense; that is what decoding is for.

    Examples
    --------
    >>> aside = SetAside(after=2)
    >>> for server_round in (1, 2):
    ...     aside.note(server_round, good=[1], bad=[7])
    >>> [aside.among([1, 7], server_round) for server_round in (3, 4)]
    [[7], []]
    """

    def __init__(self, after: int = 3) -> None:
        self._after = check_integer("after", after, low=1)
        self._bad: dict[int, int] = {}
        self._until: dict[int, int] = {}

    def note(self, server_round: int, *, good: Iterable[int], bad: Iterable[int]) -> None:
        """Take note of a round's replies, by node id."""
        for node in good:
            self._bad.pop(node, None)
            self._until.pop(node, None)
        for node in bad:
            self._bad[node] = self._bad.get(node, 0) + 1
            times = self._bad[node] - self._after
            if times >= 0:
                self._until[node] = server_round + min(2**times, _LONGEST)

    def among(self, nodes: Collection[int], server_round: int) -> list[int]:
        """Return which of the nodes are not to be asked in a round; none if that would be all of them."""
        aside = [node for node in nodes if self._until.get(node, 0) >= server_round]
        return aside if len(aside) < len(nodes) else []

    @property
    def until(self) -> Mapping[int, int]:
        """Last round that each node is set aside for, of those that ever were and have sent nothing good since."""
        return MappingProxyType(self._until)

    def to_data(self) -> dict[str, dict[int, int]]:
        """Return who has sent what cannot be used, as plain data."""
        return {"bad": dict(self._bad), "until": dict(self._until)}

    def from_data(self, data: Mapping[str, Mapping[int, int]]) -> SetAside:
        """Return another one with the same patience that knows what :meth:`to_data` wrote."""
        other = SetAside(self._after)
        other._bad = {int(node): int(times) for node, times in data["bad"].items()}
        other._until = {int(node): int(server_round) for node, server_round in data["until"].items()}
        return other
