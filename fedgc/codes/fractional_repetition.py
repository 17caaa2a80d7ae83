"""Fractional repetition: the shards fall into blocks, and every member of a block computes all of it."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike
from scipy import sparse

from fedgc.codes.base import Blocks, Code
from fedgc.validation import check_indices, check_integer


class FractionalRepetition(Code):
    """Fractional repetition code with any number of members and shards per block.

    Parameters
    ----------
    block_of_client : array_like of int, shape (n_clients,)
        The block that each client serves. Every block 0 .. n_blocks - 1 needs at least one member.
    block_of_shard : array_like of int, shape (n_shards,)
        The block that each shard belongs to. Every block needs at least one shard.

    Raises
    ------
    ValueError
        If a block has no member or no shard.

    Notes
    -----
    All encoding coefficients are one, so that every member of block g sends the same vector, the sum of the updates of
    g's shards. With B blocks of equal size n/B the load is n/B. For incoherent updates no linear unbiased code with the
    same shard copies has a smaller residual error.

    References
    ----------
    R. Tandon, Q. Lei, A. G. Dimakis, N. Karampatziakis, "Gradient Coding: Avoiding Stragglers in Distributed
    Learning", ICML 2017, section 3.

    Examples
    --------
    >>> code = FractionalRepetition([0, 1, 0, 1], [0, 0, 1, 1, 1])
    >>> code.encoding_matrix.astype(int)
    array([[1, 1, 0, 0, 0],
           [0, 0, 1, 1, 1],
           [1, 1, 0, 0, 0],
           [0, 0, 1, 1, 1]])
    >>> code.load
    2.0
    """

    def __init__(self, block_of_client: ArrayLike, block_of_shard: ArrayLike) -> None:
        of_client = check_indices("block_of_client", block_of_client)
        of_shard = check_indices("block_of_shard", block_of_shard)
        self.n_clients, self.n_shards = of_client.size, of_shard.size
        check_integer("number of clients", self.n_clients, low=1)
        check_integer("number of shards", self.n_shards, low=1)
        n_blocks = int(max(of_client.max(), of_shard.max())) + 1
        for what, blocks in (("member", of_client), ("shard", of_shard)):
            if blocks.min() < 0 or (np.bincount(blocks, minlength=n_blocks) == 0).any():
                raise ValueError(
                    f"every block 0 .. {n_blocks - 1} must have at least one {what}; got {blocks.tolist()}"
                )
        of_client.setflags(write=False)
        of_shard.setflags(write=False)
        self._blocks = Blocks(of_client, of_shard, n_blocks)

    @property
    def n_rows(self) -> int:
        """Number of clients: each sends one coded update."""
        return self.n_clients

    @property
    def blocks(self) -> Blocks:
        """The block structure."""
        return self._blocks

    @cached_property
    def sparse_matrix(self) -> sparse.csr_array[np.float64]:
        """The encoding matrix: a one for every shard of a client's block."""
        of_client, of_shard, n_blocks = self._blocks
        by_block = np.argsort(of_shard, kind="stable")
        size = np.bincount(of_shard, minlength=n_blocks)
        first = np.cumsum(size) - size
        row_length = size[of_client]
        row_end = np.cumsum(row_length)
        # Position within the row, for all rows at once, so that a million clients need no loop.
        within = np.arange(row_end[-1]) - np.repeat(row_end - row_length, row_length)
        columns = by_block[np.repeat(first[of_client], row_length) + within]
        pointers = np.concatenate(([0], row_end))
        shape = (self.n_clients, self.n_shards)
        return sparse.csr_array((np.ones(columns.size), columns, pointers), shape=shape)
