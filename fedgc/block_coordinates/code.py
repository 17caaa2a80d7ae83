"""Encode and decode a gradient whose blocks of coordinates have different redundancy."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedgc.block_coordinates.runtime import work_until
from fedgc.codes import Code, CyclicRepetition, FractionalRepetition, Uncoded
from fedgc.validation import check_indices, check_integer

Vector = NDArray[np.float64]
Ints = NDArray[np.intp]


class BlockCoordinateCode:
    """An exact gradient code for every block of coordinates: n copies, decodable with any n - 1 clients missing.

    Parameters
    ----------
    sizes : array_like of int, shape (n_clients,)
        Coordinates in block n = 1, ..., N, as from :func:`fedgc.block_coordinates.whole_coordinates`. There are as many
        shards as clients.
    rng : numpy.random.Generator
        Draws the coefficients of cyclic repetition.

    Raises
    ------
    ValueError
        If sizes are not integers of at least 0, or there is no coordinate.

    Notes
    -----
    Coordinates run block by block: the first x_1 are in block 1. Where n divides N a block has a fractional repetition
    code, whose coefficients are one, and elsewhere cyclic repetition, whose random coefficients lose digits: over 20
    straggler sets for each n, a shard's coefficient was off by up to 1e-11 at N = 10 and 5e-10 at N = 50.

    Clients have to compute partial derivatives block by block for partial work to be any use. Layers of a network come
    from the last to the first, so its coordinates are to be put in this order.

    References
    ----------
    Q. Wang, Y. Cui, C. Li, J. Zou, H. Xiong, arXiv 2206.02450; R. Tandon et al., ICML 2017, for the codes.

    Examples
    --------
    Three clients and shards; three coordinates that need all clients, two that any one client gives:

    >>> code = BlockCoordinateCode([3, 0, 2], rng=np.random.default_rng(0))
    >>> gradients = np.arange(15.0).reshape(3, 5)
    >>> sent = np.stack([code.encode(client, gradients) for client in range(3)])
    >>> code.decode(sent, blocks_done=[1, 1, 3]).tolist()
    [15.0, 18.0, 21.0, 24.0, 27.0]
    >>> code.decode(sent, blocks_done=[3, 0, 3])
    Traceback (most recent call last):
    ...
    ValueError: blocks_done must let block 1 be decoded, which needs 3 clients; got it from 2
    """

    def __init__(self, sizes: ArrayLike, *, rng: np.random.Generator) -> None:
        self.sizes: Ints = check_indices("sizes", sizes)
        self.n_clients = check_integer("number of sizes", self.sizes.size, low=1)
        self.n_coordinates = check_integer("number of coordinates", int(self.sizes.sum()), low=1)
        self._ends = np.concatenate(([0], np.cumsum(self.sizes)))
        #: The code of each block with coordinates, by its number of copies.
        self.codes: dict[int, Code] = {
            copies: exact_code(self.n_clients, copies, rng)
            for copies in range(1, self.n_clients + 1)
            if self.sizes[copies - 1]
        }

    def coordinates_of(self, copies: int) -> slice:
        """Return which coordinates have so many copies."""
        check_integer("copies", copies, low=1, high=self.n_clients)
        return slice(int(self._ends[copies - 1]), int(self._ends[copies]))

    def encode(self, client: int, gradients: ArrayLike) -> Vector:
        """Return what `client` sends: all blocks, one after the other, (n_coordinates,).

        Parameters
        ----------
        client : int
            The client.
        gradients : array_like, shape (n_clients, n_coordinates)
            Gradient of each shard. Of the shards that a client does not hold in a block nothing is looked at.
        """
        check_integer("client", client, low=0, high=self.n_clients - 1)
        g = self._checked("gradients", gradients)
        sent = np.empty(self.n_coordinates)
        for copies, code in self.codes.items():
            block = self.coordinates_of(copies)
            sent[block] = code.coefficients_of(client) @ g[code.shards_of(client), block]
        return sent

    def decode(self, sent: ArrayLike, blocks_done: ArrayLike) -> Vector:
        """Return the sum of all shards' gradients, (n_coordinates,).

        Parameters
        ----------
        sent : array_like, shape (n_clients, n_coordinates)
            What each client has sent; coordinates of blocks that are not done may be anything.
        blocks_done : array_like of int, shape (n_clients,)
            How many blocks 1, 2, ... each client has done; those without coordinates count.

        Raises
        ------
        ValueError
            If a block cannot be decoded yet, or cannot for rounding: if the coefficient of a shard is off by over 1e-6.
        """
        received = self._checked("sent", sent)
        done = check_indices("blocks_done", blocks_done)
        if done.shape != (self.n_clients,) or done.max() > self.n_clients:
            raise ValueError(
                f"blocks_done must be {self.n_clients} integers from 0 to {self.n_clients}; got {done.tolist()}"
            )
        total = np.empty(self.n_coordinates)
        for copies, code in self.codes.items():
            block, came = self.coordinates_of(copies), np.flatnonzero(done >= copies)
            needed = self.n_clients + 1 - copies
            if came.size < needed:
                raise ValueError(
                    f"blocks_done must let block {copies} be decoded, which needs {needed} clients; "
                    f"got it from {came.size}"
                )
            total[block] = decoding_weights(code, came) @ received[came, block]
        return total

    def done_at(self, seconds: float, times: ArrayLike) -> Ints:
        """Return how many blocks each client has done after `seconds`, (n_clients,); see :func:`runtime`."""
        t = np.asarray(times, dtype=np.float64)
        # The tolerance is for a block that ends at this very second.
        finished = t[:, None] * work_until(self.sizes.astype(np.float64)) <= seconds * (1.0 + 1e-12)
        return np.asarray(finished.sum(axis=1), dtype=np.intp)

    def _checked(self, name: str, value: ArrayLike) -> Vector:
        array = np.asarray(value, dtype=np.float64)
        if array.shape != (self.n_clients, self.n_coordinates):
            raise ValueError(
                f"{name} must have shape ({self.n_clients}, {self.n_coordinates}); got shape {array.shape}"
            )
        return array


def exact_code(n_clients: int, copies: int, rng: np.random.Generator) -> Code:
    """Return a gradient code with so many copies of n_clients shards, exact with any ``copies - 1`` clients missing.

    Examples
    --------
    >>> [type(exact_code(6, copies, np.random.default_rng(0))).__name__ for copies in (1, 3, 4)]
    ['Uncoded', 'FractionalRepetition', 'CyclicRepetition']
    """
    check_integer("copies", copies, low=1, high=n_clients)
    if copies == 1:
        return Uncoded(n_clients, n_clients)
    if n_clients % copies == 0:
        block = np.arange(n_clients) // copies
        return FractionalRepetition(block, block)
    return CyclicRepetition(n_clients, copies - 1, rng=rng)


def decoding_weights(code: Code, came: Ints) -> Vector:
    """Return weights of the clients that came with which every shard counts once, (n_came,).

    Raises
    ------
    ValueError
        If a shard counts more than 1e-6 less or more.
    """
    blocks = code.blocks
    if blocks is not None:
        # The first of each block, which is all that is needed and loses no digits.
        weights: Vector = np.zeros(came.size)
        weights[np.unique(blocks.of_client[came], return_index=True)[1]] = 1.0
    else:
        matrix = code.encoding_matrix[came].T
        weights = np.asarray(np.linalg.lstsq(matrix, np.ones(code.n_shards), rcond=None)[0], dtype=np.float64)
    off = float(np.abs(weights @ code.encoding_matrix[came] - 1.0).max())
    if off > 1e-6:
        raise ValueError(f"the clients that came must give every shard once, to within 1e-6; got one off by {off:.2g}")
    return weights
