"""Secure sums: the server decodes a round from the sum of what arrived and from who sent it, and from nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from fedgc.strategies.messages.client_task import ClientTask
from flwr.app import ConfigRecord
from numpy.typing import NDArray

from fedgc.codes import WorkLists
from fedgc.fixed_point import largest_entry
from fedgc.protocol import COEFFICIENTS, FRACTIONAL_BITS, LARGEST_ENTRY, SEGMENTS
from fedgc.round import RoundPlan
from fedgc.updates import Arrays
from fedgc.validation import check_integer

#: (round, node ids, sum of the masked replies) to the sum without masks, or None if it cannot be had.
Unmask = Callable[[int, tuple[int, ...], Arrays], Arrays | None]


@dataclass(frozen=True)
class SecureSum:
    """How sums are made of which the server needs no single term.

    Parameters
    ----------
    unmask : callable, optional
        Called once a round is over with the round's number, the node ids whose replies are in the sum, ascending, and
        the sum of what they sent, modulo 2^64. It returns the sum without the masks that have not cancelled, or None if
        that cannot be had (too few came, say): the model then stays as it is. By default the sum is taken as it is.
    fractional_bits : int
        Bits after the point of the fixed-point numbers, 8 to 48.

    Raises
    ------
    ValueError
        If `fractional_bits` is out of range.

    Notes
    -----
    With settled weights w_i client i is told the coefficients ``w_i a_ij / N`` of its shards j and sends

        ``round(2^b * sum_j (w_i a_ij / N) N_j update_j)  mod 2^64``,

    with the b fractional bits, N_j examples of shard j and N of all. The sum over those who arrived is the decoded
    update, off by at most ``n_arrived 2^-(b + 1)`` in every entry, beside the rounding of the clients' own sums.
    Addition modulo 2^64 is exact, in any order: so masks may be added to the replies, uniformly random each, that
    cancel in the sum (Bonawitz et al.).

    On work lists the weight of a shard depends on its place in the list, and the client adds up what it gets done.

    In the first round, while nothing is known of the clients, weights go by a chance of one half to come (and on work
    lists by a guess of their pace): if all come, the aggregate is twice as long as it should be, once, and the log says
    so. What an earlier run has learnt, given as `reliability` or `timing`, or a prior nearer the truth prevents that.

    The server checks in each reply the shards, their numbers of examples, and names, shapes and types of the arrays.
    It does not look into them. What it checks of the sum is its range: 8 bits at the top are never reached, unless
    masks have not cancelled, which is then found with a probability of ``1 - 2^-8`` in every entry.

    A client may send its arrays elsewhere, and to the server a reply whose ArrayRecord is empty: `unmask` then has to
    return the sum of all.

    Flower's own primitives (``flwr.common.secure_aggregation``) quantise to 32 bits with numpy's global random state
    and clip silently; of them the key agreement is of use, to make the secrets of
    :func:`fedgc.clients.pairwise_masks`.

    References
    ----------
    K. Bonawitz et al., "Practical secure aggregation for privacy-preserving machine learning", CCS 2017.

    Examples
    --------
    >>> from fedgc.strategies import GradientCoding
    >>> strategy = GradientCoding(
    ...     num_shards=3, deadline=30.0, decoder="fixed", shard_examples=[10, 20, 10], secure_sum=SecureSum()
    ... )
    """

    unmask: Unmask | None = None
    fractional_bits: int = 32

    def __post_init__(self) -> None:
        """Check the options."""
        check_integer("fractional_bits", self.fractional_bits, low=8, high=48)

    def tasks(self, plan: RoundPlan, n_examples: float) -> list[ClientTask]:
        """Return what the clients are told to do in a round, over so many examples in all."""
        code, n_clients = plan.decoder.code, len(plan.node_ids)
        largest = largest_entry(self.fractional_bits, n_clients)
        tasks: list[ClientTask] = []
        for client in range(n_clients):
            # On work lists a row for every place, in order, else one for all.
            rows = code.rows_of(client) if isinstance(code, WorkLists) else [client]
            early = [plan.decoder.early_weights(int(row)) for row in rows]
            weights = np.array([np.nan if one is None or one.common != 0.0 else one.alone for one in early])
            if np.isnan(weights).any():
                raise ValueError(
                    f"weights must be settled before the round; got others from {type(plan.decoder).__name__}"
                )
            factors = weights / n_examples * (1.0 if isinstance(code, WorkLists) else code.coefficients_of(client))
            task = ClientTask.of(code, client)
            tasks.append(
                SecureTask(**vars(task), factors=factors, fractional_bits=self.fractional_bits, largest=largest)
            )
        return tasks


@dataclass(frozen=True, eq=False, kw_only=True)
class SecureTask(ClientTask):
    """One client's part of a round of which the server has only the sum.

    Attributes
    ----------
    factors : ndarray, shape (n_assigned,)
        What the client multiplies each shard's number of examples times update by.
    fractional_bits : int
        Bits after the point of what it sends.
    largest : float
        Largest absolute value of an entry.
    """

    factors: NDArray[np.float64]
    fractional_bits: int
    largest: float

    def record(self) -> ConfigRecord:
        """Return the part as the client is told: one sum of all that it gets done."""
        record = super().record()
        record[COEFFICIENTS] = self.factors.tolist()
        if SEGMENTS in record:
            record[SEGMENTS] = [self.shards.size]
        record[FRACTIONAL_BITS], record[LARGEST_ENTRY] = self.fractional_bits, self.largest
        return record

    def rows_after(self, done: int) -> list[tuple[int, int]]:
        """Return that one sum is sent, under the client's number; of nothing too, since there may be masks in it."""
        return [(self.client, done)]
