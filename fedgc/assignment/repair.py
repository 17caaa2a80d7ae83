"""Repair an assignment after clients have gone, moving as few shards as possible."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedgc.assignment.greedy import group_clients
from fedgc.assignment.instance import Instance

Ints = NDArray[np.intp]


def repaired(instance: Instance, block_of_client: Ints, block_of_shard: Ints) -> tuple[Ints, Ints] | None:
    """Return rows of members and the row of each shard, close to an old assignment, or None if it finds none.

    Parameters
    ----------
    instance : Instance
        The instance with the clients that are left.
    block_of_client : ndarray of int, shape (n_clients,)
        Old block of each of them, -1 for none.
    block_of_shard : ndarray of int, shape (n_shards,)
        Old block of each shard.

    Notes
    -----
    Blocks that still meet all constraints stay. One with too few members gets an idle client that may hold its shards;
    failing that, one that another block can spare; failing that, it is dissolved. Shards without a block go, one by
    one, to the block with the fewest members, since each of them must fetch the shard, and among those to the one where
    it adds the least cost. Idle clients may form new blocks for them.
    """
    rows = _Rows(instance, block_of_client, block_of_shard)
    for row in range(rows.n_rows):
        rows.mend(row)
    rows.add_idle_groups()
    orphans = np.flatnonzero(rows.row_of_shard < 0)
    for c in np.unique(instance.class_of_shard[orphans]):
        if not rows.place(orphans[instance.class_of_shard[orphans] == c]):
            return None
    return rows.members, rows.row_of_shard


class _Rows:
    """Rows of members under repair."""

    def __init__(self, instance: Instance, block_of_client: Ints, block_of_shard: Ints) -> None:
        self.instance, self.nobody = instance, instance.n_clients
        self.n_rows = int(max(block_of_client.max(), block_of_shard.max())) + 1
        active = np.flatnonzero(block_of_client >= 0)
        active = active[np.argsort(block_of_client[active], kind="stable")]
        block = block_of_client[active]
        within = np.arange(active.size) - np.searchsorted(block, block)
        kept = within < instance.most
        self.members = np.full((self.n_rows, instance.most), self.nobody, dtype=np.intp)
        self.members[block[kept], within[kept]] = active[kept]
        self.row_of_shard = block_of_shard.copy()
        self._idle = [int(client) for client in np.flatnonzero(block_of_client < 0)] + active[~kept].tolist()
        by_row = np.argsort(block_of_shard, kind="stable")
        self._shards = np.split(by_row, np.cumsum(np.bincount(block_of_shard, minlength=self.n_rows))[:-1])
        self._good = self._legal(np.arange(self.n_rows))

    def _legal(self, rows: Ints) -> NDArray[np.bool_]:
        """Return which rows meet all constraints as they are."""
        instance, members = self.instance, self.members[rows]
        count = (members < self.nobody).sum(axis=1)
        size = np.bincount(self.row_of_shard[self.row_of_shard >= 0], minlength=self.n_rows)[rows]
        good = (count >= instance.least) & (size <= instance.cap(members)) & instance.domains_differ(members)
        if len(instance.allowed) > 1:
            for place, row in enumerate(rows):
                good[place] &= self._may_hold(self.members[row], self._shards[row])
        return np.asarray(good)

    def _may_hold(self, members: Ints, shards: Ints) -> bool:
        classes = np.unique(self.instance.class_of_shard[shards])
        return bool(self.instance.may_hold(classes, np.tile(members, (classes.size, 1))).all())

    def mend(self, row: int) -> None:
        """Make the row meet the constraints, or dissolve it."""
        shards = self._shards[row]
        if self._good[row] or shards.size == 0:
            return
        instance, members = self.instance, self.members[row]
        if instance.domains_differ(members[None])[0] and self._may_hold(members, shards):
            while (count := int((members < self.nobody).sum())) < instance.least:
                newcomer = self._newcomer(members, shards)
                if newcomer is None:
                    break
                members[count] = newcomer
                members.sort()
            if count >= instance.least:
                room = int(instance.cap(members[None])[0])
                self.row_of_shard[shards[room:]] = -1
                self._shards[row] = shards[:room]
                return
        self._idle += members[members < self.nobody].tolist()
        members[:] = self.nobody
        self.row_of_shard[shards] = -1
        self._shards[row] = shards[:0]

    def _newcomer(self, members: Ints, shards: Ints) -> int | None:
        """Take the best client for a row from the idle ones, else from a block with more members than it must have."""
        instance = self.instance
        count = int((members < self.nobody).sum())
        for spare in (False, True):
            if spare:
                rich = self._good & ((self.members < self.nobody).sum(axis=1) > instance.least)
                pool = [int(client) for client in self.members[rich].ravel() if client < self.nobody]
            else:
                pool = self._idle
            if not pool:
                continue
            trial = np.tile(members, (len(pool), 1))
            trial[:, count] = pool
            fits = instance.domains_differ(trial) & (instance.cap(trial) >= shards.size)
            for c in np.unique(instance.class_of_shard[shards]):
                fits &= instance.may_hold(np.full(len(pool), c), trial)
            if fits.any():
                cost = instance.cost(trial[fits], np.full(int(fits.sum()), shards.size), thorough=False)
                client = pool[int(np.flatnonzero(fits)[np.argmin(cost)])]
                if spare:
                    left = int(np.flatnonzero((self.members == client).any(axis=1))[0])
                    row = self.members[left]
                    row[row == client] = self.nobody
                    row.sort()
                    self._good[left] = bool(self._legal(np.array([left]))[0])
                    if not self._good[left]:  # with work lists a member may be needed for its computation
                        row[-1] = client
                        row.sort()
                        self._good[left] = True
                        return None
                else:
                    self._idle.remove(client)
                return client
        return None

    def add_idle_groups(self) -> None:
        """Add rows without shards, made of idle clients."""
        instance = self.instance
        idle = np.array([client for client in self._idle if instance.limit[client] > 0], dtype=np.intp)
        groups = group_clients(instance, idle, instance.least, "mixed")
        groups = np.pad(groups, ((0, 0), (0, instance.most - instance.least)), constant_values=self.nobody)
        self.members = np.concatenate([self.members, groups])
        self.n_rows = self.members.shape[0]

    def place(self, shards: Ints) -> bool:
        """Put shards of one residency class into rows; return whether there was room for all."""
        instance = self.instance
        size = np.bincount(self.row_of_shard[self.row_of_shard >= 0], minlength=self.n_rows)
        count = (self.members < self.nobody).sum(axis=1)
        cap = np.where(instance.domains_differ(self.members) & (count >= instance.least), instance.cap(self.members), 0)
        cap = np.where(
            instance.may_hold(np.full(self.n_rows, instance.class_of_shard[shards[0]]), self.members), cap, 0
        )
        while shards.size:
            able = np.flatnonzero(size < cap)
            if able.size == 0:
                return False
            able = able[count[able] == count[able].min()]
            before, after = (instance.cost(self.members[able], size[able] + k, thorough=False) for k in (0, 1))
            # Several at once where there are many rows, so that a large loss does not need a step per shard.
            batch = min(shards.size, max(1, able.size // 4))
            chosen = able[np.argsort(after - before, kind="stable")[:batch]]
            self.row_of_shard[shards[:batch]] = chosen
            size[chosen] += 1
            shards = shards[batch:]
        return True
