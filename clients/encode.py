"""Work down a list of shards until the deadline, and keep a sum for every segment of it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any, cast

import numpy as np
from flwr.app import ConfigRecord
from numpy.typing import NDArray

from fedgc.fixed_point import to_fixed_point
from fedgc.protocol import (
    BITS,
    BUDGET,
    BUSY_SECONDS,
    EXACT,
    EXPECTED_EXAMPLES,
    FRACTIONAL_BITS,
    LARGEST_ENTRY,
    PACKED,
    QUANTISER,
    ROUNDER,
    RUN_SEED,
    SHARD_IDS,
    SIMULATED_PROGRESS,
    SIMULATED_SHARE,
    WORK_SECONDS,
    rounding_seed,
)
from fedgc.quantisers import QUANTISERS
from fedgc.quantisers.packed_sum import pack_arrays, pack_exact
from fedgc.updates import Arrays, Update, add_scaled, apply_update, scaled, zero_update
from fedgc.validation import one_of


class Budget:
    """Tells whether there is time for another shard.

    Parameters
    ----------
    assignment : ConfigRecord
        What the server asked for. Without a budget there is no limit: all of it is to be done.

    Notes
    -----
    Of d shards done with n examples in s seconds, a shard of which the server says that it has m is predicted to take
    ``s m / n``. That is too little for a small one after large ones, by what a shard takes however small it is; where
    it matters, for a large one after small ones, it is too much. Of a shard whose size is not known, or while nothing
    that was done had examples, it is the mean of those done, ``s / d``.
    """

    def __init__(self, assignment: ConfigRecord) -> None:
        self._start = time.monotonic()
        self._last = self._start
        self._seconds = cast(float, assignment.get(BUDGET, np.inf))
        self._expected = cast("list[int]", assignment.get(EXPECTED_EXAMPLES, []))
        self._examples = 0.0
        self._simulated = cast("int | None", assignment.get(SIMULATED_PROGRESS))
        if (share := cast("float | None", assignment.get(SIMULATED_SHARE))) is not None:
            self._simulated = int(share * len(cast("list[int]", assignment[SHARD_IDS])) + 1e-9)
        self._times = [cast("float | None", assignment.get(name)) for name in (WORK_SECONDS, BUSY_SECONDS)]

    def has_time_for(self, done: int) -> bool:
        """Return whether the next shard is predicted to end in time, after so many that are done."""
        if self._simulated is not None:
            return done < self._simulated
        # The first is begun in any case: how long it takes is not known before.
        worked = self._last - self._start
        size = self._expected[done] if done < len(self._expected) else -1
        as_many = size / self._examples if size >= 0 and self._examples else 1.0 / max(done, 1)
        return worked * (1.0 + as_many) <= self._seconds

    def has_time_for_examples(self, examples: float, done: int) -> bool:
        """Return whether so many examples more are predicted to be done in time, after so many shards."""
        if self._simulated is not None:
            return done < self._simulated
        worked = self._last - self._start
        return not self._examples or worked * (1.0 + examples / self._examples) <= self._seconds

    def shard_done(self, examples: float) -> None:
        """Note that a shard, or a batch, of so many examples has been finished."""
        self._last = time.monotonic()
        self._examples += examples

    def spent(self, done: int) -> tuple[float, float]:
        """Return the seconds up to the end of the last shard, and up to now."""
        work, busy = self._times
        if work is not None and busy is not None:
            return work, busy
        return self._last - self._start if done else 0.0, time.monotonic() - self._start


class SegmentSums:
    """A coded sum per segment of the list, of the segments that have been begun.

    Parameters
    ----------
    arrays : mapping of str to ndarray
        The global arrays.
    lengths : sequence of int
        Number of shards of each segment, in the order of the list.
    """

    def __init__(self, arrays: Arrays, lengths: Sequence[int]) -> None:
        self._arrays = arrays
        self._ends = set(accumulate(lengths[:-1]))
        self._totals: list[Update] = [zero_update(arrays)]
        self._examples = [0]
        self._done = 0

    def add(self, coefficient: float, examples: int, delta: Arrays) -> None:
        """Add the next shard of the list."""
        if self._done in self._ends:
            self._totals.append(zero_update(self._arrays))
            self._examples.append(0)
        if examples:  # without, the update is a mean over nothing, NaN perhaps
            add_scaled(self._totals[-1], coefficient * examples, delta)
        self._examples[-1] += examples
        self._done += 1

    def coded(self) -> Iterator[dict[str, NDArray[Any]]]:
        """Yield ``global + sum / number of examples`` of every segment that has been begun; of nothing, once."""
        for total, examples in zip(self._totals, self._examples, strict=True):
            yield apply_update(self._arrays, scaled(total, 1.0 / max(examples, 1)))

    def encoded(
        self, assignment: ConfigRecord, server_round: int, names: list[str], factors: list[float]
    ) -> Iterator[dict[str, NDArray[Any]]]:
        """Yield the sums in the form that the server asks for.

        Parameters
        ----------
        assignment : ConfigRecord
            What the server asked for.
        server_round : int
            The round.
        names : list of str
            Names of the arrays that are rounded, if it asks for that, by the types that they have in its model.
        factors : list of float
            Takes the variance factors of the rounding.
        """
        if FRACTIONAL_BITS in assignment:
            return self.fixed_point(assignment)
        if BITS in assignment:
            return self.quantised(assignment, server_round, names, factors)
        return self.coded()

    def quantised(
        self, assignment: ConfigRecord, server_round: int, names: list[str], factors: list[float]
    ) -> Iterator[dict[str, NDArray[Any]]]:
        """Yield each segment's sum over its examples, rounded as the server asks for, and note its variance factor.

        Raises
        ------
        ValueError
            If there is no such quantiser here, or an update is not finite.
        """
        name = one_of("quantiser of the message", str(assignment[QUANTISER]), list(QUANTISERS))
        quantiser = QUANTISERS[name](cast(int, assignment[BITS]))
        done = cast("list[int]", assignment[SHARD_IDS])[: self._done]
        starts = [0, *sorted(end for end in self._ends if end < self._done), self._done]
        others = {key: value for key, value in self._arrays.items() if key not in set(names)}
        for at, (total, examples) in enumerate(zip(self._totals, self._examples, strict=True)):
            mean = scaled(total, 1.0 / max(examples, 1))
            shards = done[starts[at] : starts[at + 1]]
            rounder = cast("int | None", assignment.get(ROUNDER))
            seed = rounding_seed(cast(int, assignment[RUN_SEED]), server_round, shards, rounder)
            data, factor = pack_arrays(mean, names, quantiser, seed)
            factors.append(factor)
            exact = apply_update(others, {key: mean[key] for key in others})
            yield {PACKED: data, **({EXACT: pack_exact(exact)} if exact else {})}

    def fixed_point(self, assignment: ConfigRecord) -> Iterator[dict[str, NDArray[Any]]]:
        """Yield the sums themselves, as fixed-point numbers of the kind that the server asks for."""
        bits, largest = cast(int, assignment[FRACTIONAL_BITS]), cast(float, assignment[LARGEST_ENTRY])
        for total in self._totals:
            yield to_fixed_point(total, bits, largest)
