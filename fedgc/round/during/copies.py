"""Copies: all holders of the same shards are to send the same sum, and one who does not can be told from the rest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedgc.decoders import CalibratedDecoder
from fedgc.updates import Arrays, ScaledDifference

#: Entries by which copies are compared: so many of a model, and of each array at least so many.
_COMPARED, _OF_EACH = 1024, 16
#: How far copies may be apart, relative to their length: not all processors sum in the same order.
_SAME = 1e-3
#: From here on they are taken for different updates and not for the work of different processors.
_OTHER = 0.1


@dataclass(frozen=True)
class Verdict:
    """Who has sent what the others who hold the same shards have, and who has not.

    Attributes
    ----------
    confirmed : frozenset of int
        Clients with whom more than half of those who sent a copy agree.
    dissenting : frozenset of int
        Clients that sent something else than more than half of those.
    """

    confirmed: frozenset[int]
    dissenting: frozenset[int]


class Copies:
    """Compares the copies of each coded update of a round, as they come.

    Parameters
    ----------
    decoder : CalibratedDecoder
        The round's decoder, which tells what is a copy of what.
    arrays : mapping of str to ndarray
        The global arrays; only names and sizes are used.
    secret : int
        Seed of the choice of entries that are compared.

    Attributes
    ----------
    disagreements : list of (int, int, float)
        Pairs of clients that sent different sums over the same shards, the first that came and another, and how far
        they are apart, relative to the first one's length.

    Notes
    -----
    What this can tell, and what it cannot:

    - Of two copies that differ either may be the wrong one, so both clients are named and none is judged. With three
      or more, more than half of those that came have to agree for the others to be told from them.
    - It is the majority that is believed. If most holders of some shards work together, the honest one is judged, and
      nobody can know it from the copies. A shard with one holder has no copies at all.
    - A copy is compared once it has come. By then another may have been decoded, the wrong one too: the streamed sum
      cannot be undone. So this keeps a client from doing so again and again, not from doing it once.
    - Honest holders differ if the train function draws from anything but the shard's seed, or if their data or software
      differ: without a majority that agrees none of them is judged. Differences below a tenth of the length are logged
      only, since other processors may be the reason; who stays below that moves the block by no more than that.
    - Only some entries are compared. A client that knew which would forge the others; so they are drawn anew in each
      round from a secret. A change of a fraction f of an array's entries is seen in a round with a probability of
      ``1 - (1 - f)^m``, with the m entries of that array that are compared, 16 at least: all of a small bias, few of a
      large matrix.
    - Who has sent a wrong copy every other time, and the right one in between, is named and not set aside.

    Examples
    --------
    >>> from fedgc.codes import FractionalRepetition
    >>> from fedgc.decoders import OptimalUnbiasedDecoder
    >>> from fedgc.gram import GramModel
    >>> code = FractionalRepetition([0, 0, 0], [0])
    >>> decoder = OptimalUnbiasedDecoder().calibrate(code, [0.5, 0.5, 0.2], GramModel.uniform(1, 0.0))
    >>> copies = Copies(decoder, {"w": np.zeros(2)}, secret=1)
    >>> for client, value in enumerate([-1.0, 1.0, 1.0]):
    ...     copies.note(client, client, {"w": np.full(2, value)})
    >>> copies.disagreements
    [(0, 1, 2.0), (0, 2, 2.0)]
    >>> copies.verdict().dissenting
    frozenset({0})
    """

    def __init__(self, decoder: CalibratedDecoder, arrays: Arrays, secret: int = 0) -> None:
        self.disagreements: list[tuple[int, int, float]] = []
        self._decoder, self._secret = decoder, secret
        sizes = {name: value.size for name, value in arrays.items()}
        rng, total = np.random.default_rng(secret), max(sum(sizes.values()), 1)
        self._at: dict[str, NDArray[np.intp] | slice] = {}
        for name, size in sizes.items():
            count = max(_OF_EACH, -(-_COMPARED * size // total))
            # With replacement, since a choice without takes a permutation of all.
            self._at[name] = slice(None) if size <= count else np.sort(rng.integers(size, size=count))
        # By what they are copies of: those that are alike, and who sent them; the first that came is the first.
        self._groups: dict[int, list[tuple[NDArray[np.float64], list[int]]]] = {}
        self._judged = Verdict(frozenset(), frozenset())
        self._old: tuple[Arrays, NDArray[np.float64]] | None = None

    def note(self, client: int, row: int, total: Arrays) -> None:
        """Compare what a client has sent as a row of the encoding matrix with what has come of it before."""
        early = self._decoder.early_weights(row)
        if early is None:  # what else it is a copy of is not known
            return
        some = self._entries(total)
        groups = self._groups.setdefault(early.copy_of, [])
        if not groups:
            groups.append((some, [client]))
            return
        first, senders = groups[0]
        apart, length = float(np.linalg.norm(some - first)), float(np.linalg.norm(first))
        if apart > _SAME * length:
            self.disagreements.append((senders[0], client, apart / length if length > 0.0 else np.inf))
        for other, clients in groups:
            longer = max(float(np.linalg.norm(other)), float(np.linalg.norm(some)))
            if float(np.linalg.norm(some - other)) <= _OTHER * longer:
                clients.append(client)
                return
        groups.append((some, [client]))

    def verdict(self) -> Verdict:
        """Return who is confirmed and who dissents of whom it was not told before."""
        confirmed: set[int] = set()
        dissenting: set[int] = set()
        for groups in self._groups.values():
            counts = [len(clients) for _, clients in groups]
            largest = int(np.argmax(counts))
            if counts[largest] > max(sum(counts) / 2, 1):
                confirmed.update(groups[largest][1])
                dissenting.update(*(clients for index, (_, clients) in enumerate(groups) if index != largest))
        confirmed -= dissenting
        new = Verdict(
            frozenset(confirmed - self._judged.confirmed - self._judged.dissenting),
            frozenset(dissenting - self._judged.dissenting),
        )
        self._judged = Verdict(self._judged.confirmed | new.confirmed, self._judged.dissenting | new.dissenting)
        return new

    def to_data(self) -> dict[str, Any]:
        """Return what has been compared, as plain data."""
        return {
            "secret": self._secret,
            "groups": list(self._groups.items()),
            "disagreements": self.disagreements,
            "judged": (sorted(self._judged.confirmed), sorted(self._judged.dissenting)),
        }

    @classmethod
    def from_data(cls, data: Mapping[str, Any], decoder: CalibratedDecoder, arrays: Arrays) -> Copies:
        """Return what :meth:`to_data` wrote."""
        copies = cls(decoder, arrays, data["secret"])
        copies._groups = {
            copy_of: [(np.array(some), list(clients)) for some, clients in groups] for copy_of, groups in data["groups"]
        }
        copies.disagreements = [tuple(pair) for pair in data["disagreements"]]
        copies._judged = Verdict(*(frozenset(clients) for clients in data["judged"]))
        return copies

    def _entries(self, total: Arrays) -> NDArray[np.float64]:
        """Return the entries that are compared."""
        if isinstance(total, ScaledDifference):
            if self._old is None or self._old[0] is not total.old:
                self._old = total.old, self._of(total.old)
            change: NDArray[np.float64] = total.scale * (self._of(total.new) - self._old[1])
            return change
        return self._of(total)

    def _of(self, arrays: Arrays) -> NDArray[np.float64]:
        parts = [np.asarray(arrays[name]).reshape(-1)[at] for name, at in self._at.items()]
        return np.concatenate([np.zeros(0), *parts], dtype=np.float64)
