"""What an assignment is: blocks, work lists and the residual error they lead to."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from fedgc.codes import FractionalRepetition, WorkLists
from fedgc.validation import check_integer, one_of

Ints = NDArray[np.intp]

#: What a client sends of its work list: one sum per shard, per share (its own, each other's), or one in all.
Sums = Literal["shard", "share", "whole"]
SUMS: tuple[Sums, ...] = get_args(Sums)


class Block(NamedTuple):
    """Members of a block and the shards that all of them hold, both ascending."""

    members: tuple[int, ...]
    shards: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Assignment:
    """Who holds which shards, and in which order every client works on them.

    Attributes
    ----------
    schedule : str
        "full": every member computes the whole block, and it counts only if finished. "work-list": every member works
        down its list, and each shard done counts.
    block_of_client : ndarray of int, shape (n_clients,)
        Block of each client; -1 for one that holds nothing.
    block_of_shard : ndarray of int, shape (n_shards,)
        Block of each shard.
    list_shards : ndarray of int
        The lists of all clients, one after the other.
    list_segments : ndarray of int
        For each entry of `list_shards`, how many shares the client has visited before; 0 is its own.
    first : ndarray of int, shape (n_clients + 1,)
        Where the list of each client begins.
    residual_error : float
        Predicted residual error of the optimal unbiased decoder for incoherent updates; see
        :func:`fedgc.assignment.assign`. Infinite if nothing of some block can ever arrive.
    """

    schedule: str
    block_of_client: Ints
    block_of_shard: Ints
    list_shards: Ints
    list_segments: Ints
    first: Ints
    residual_error: float

    @property
    def n_clients(self) -> int:
        """Number of clients, with those that hold nothing."""
        return self.block_of_client.size

    @property
    def n_shards(self) -> int:
        """Number of shards."""
        return self.block_of_shard.size

    @property
    def n_blocks(self) -> int:
        """Number of blocks."""
        return int(self.block_of_shard.max()) + 1

    @property
    def least_holders(self) -> int:
        """Number of clients in the smallest block."""
        return int(np.bincount(self.block_of_client[self.block_of_client >= 0], minlength=self.n_blocks).min())

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        """The blocks."""
        members, shards = (_grouped(of, self.n_blocks) for of in (self.block_of_client, self.block_of_shard))
        return tuple(Block(tuple(m.tolist()), tuple(s.tolist())) for m, s in zip(members, shards, strict=True))

    @cached_property
    def lists(self) -> tuple[Ints, ...]:
        """The shards of each client in the order in which it works on them."""
        return tuple(np.split(self.list_shards, self.first[1:-1]))

    def shards_of(self, client: int) -> Ints:
        """Return the shards that `client` holds, ascending; its list may end before the last of them."""
        check_integer("client", client, low=0, high=self.n_clients - 1)
        block = self.block_of_client[client]
        return np.flatnonzero(self.block_of_shard == block) if block >= 0 else np.zeros(0, dtype=np.intp)

    def holders_of(self, shard: int) -> Ints:
        """Return the clients that hold `shard`, ascending."""
        check_integer("shard", shard, low=0, high=self.n_shards - 1)
        return np.flatnonzero(self.block_of_client == self.block_of_shard[shard])

    def code(self, *, segments: str = "shard", redraw: bool = True) -> tuple[FractionalRepetition | WorkLists, Ints]:
        """Return the code of the clients that hold something.

        Parameters
        ----------
        segments : str
            What a client sends of its work list: one sum per "shard", per "share", or a single one for the "whole".
            In the full schedule it does not matter.
        redraw : bool
            Whether the shards of a block change places in its work lists every round.

        Returns
        -------
        code : FractionalRepetition or WorkLists
            The code over the active clients.
        active : ndarray of int, shape (code.n_clients,)
            Which clients these are.
        """
        one_of("segments", segments, SUMS)
        # The same lists are planned with for many rounds, and what calibration knows of a code is kept with it.
        if (segments, redraw) not in self._codes:
            self._codes[segments, redraw] = self._code(segments, redraw=redraw)
        code, active = self._codes[segments, redraw]
        return code, active.copy()

    @cached_property
    def _codes(self) -> dict[tuple[str, bool], tuple[FractionalRepetition | WorkLists, Ints]]:
        return {}

    def _code(self, segments: str, *, redraw: bool) -> tuple[FractionalRepetition | WorkLists, Ints]:
        active = np.flatnonzero(self.block_of_client >= 0)
        if self.schedule == "full":
            return FractionalRepetition(self.block_of_client[active], self.block_of_shard), active
        lists = []
        for client in active:
            shards, share = (part[self.first[client] : self.first[client + 1]] for part in self._list_parts)
            label = {"shard": np.arange(shards.size), "share": share, "whole": np.zeros_like(share)}[segments]
            lists.append([part.tolist() for part in np.split(shards, np.flatnonzero(np.diff(label)) + 1)])
        if not redraw:
            return WorkLists(lists, self.n_shards), active
        # A member holds the whole block, though its list ends where its computation does.
        shards_of_block = _grouped(self.block_of_shard, self.n_blocks)
        held = [shards_of_block[block] for block in self.block_of_client[active]]
        return WorkLists(lists, self.n_shards, interchangeable=self.block_of_shard, held=held), active

    @property
    def _list_parts(self) -> tuple[Ints, Ints]:
        return self.list_shards, self.list_segments

    def holdings(self) -> Ints:
        """Return a number ``client x n_shards + shard`` for every shard copy, ascending."""
        by_block = np.argsort(self.block_of_shard, kind="stable")
        size = np.bincount(self.block_of_shard, minlength=self.n_blocks)
        start = np.cumsum(size) - size
        active = np.flatnonzero(self.block_of_client >= 0)
        block = self.block_of_client[active]
        copies = size[block]
        within = np.arange(copies.sum()) - np.repeat(np.cumsum(copies) - copies, copies)
        shards = by_block[np.repeat(start[block], copies) + within]
        return np.asarray(np.repeat(active, copies) * self.n_shards + shards)

    def shards_moved(self, old: Assignment) -> int:
        """Return the number of shard copies that clients must fetch because they do not hold them in `old`."""
        if (old.n_clients, old.n_shards) != (self.n_clients, self.n_shards):
            raise ValueError(
                f"old must have {self.n_clients} clients and {self.n_shards} shards; "
                f"got {old.n_clients} and {old.n_shards}"
            )
        return int(np.isin(self.holdings(), old.holdings(), assume_unique=True, invert=True).sum())


def _grouped(group: Ints, n_groups: int) -> list[Ints]:
    """Return the members of each group, ascending; those of group -1 are left out."""
    order = np.argsort(group, kind="stable")[int((group < 0).sum()) :]
    return list(np.split(order, np.cumsum(np.bincount(group[group >= 0], minlength=n_groups))[:-1]))
