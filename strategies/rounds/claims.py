"""What clients say of themselves, held against what the others say and what the server's clock shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fedgc.errors import ReplyRejectedError
from fedgc.round import CodedUpdate

#: The number of examples of a shard may grow by this factor from one reply to another.
_GROWTH = 1000.0
#: A shard that nobody has told of may have so many times the examples that others have in the median, or so many if
#: that is more: sizes of different shards may well be far apart, and a wrong one would be the weight of a shard.
_BEYOND_OTHERS, _PLAUSIBLE = 1e4, 1e6
#: And so many where nobody else has told of any.
_MOST_EXAMPLES = 1e9
#: A client's clock may run so many times as fast as the server's, and be off by so many seconds.
_FAST, _OFF = 2.0, 1.0


class SizeClaims:
    """Numbers of examples of the shards, as far as replies have told them.

    Parameters
    ----------
    shard_examples : ndarray, shape (n_shards,)
        What is known already; NaN where nothing is.

    Examples
    --------
    >>> claims = SizeClaims(np.array([40.0, 50.0, np.nan]))
    >>> claims.check(CodedUpdate({}, np.array([2]), np.array([1e9])))
    Traceback (most recent call last):
    ...
    fedgc.errors.ReplyRejectedError: examples of shard 2 must be at most 1e+06, as others' sizes show; got 1e+09
    """

    def __init__(self, shard_examples: NDArray[np.float64]) -> None:
        self._sizes = shard_examples.copy()

    def copy(self) -> SizeClaims:
        """Return the same, to go on from."""
        return SizeClaims(self._sizes)

    @property
    def nothing_known(self) -> bool:
        """Whether no shard's size is known, so that a first claim has nothing to be held against."""
        return not np.isfinite(self._sizes).any()

    def check(self, update: CodedUpdate, typical: float | None = None) -> None:
        """Take note of what a reply says its shards have, or raise ReplyRejectedError if it cannot be.

        Parameters
        ----------
        update : CodedUpdate
            The reply.
        typical : float, optional
            What other shards have; by default the median of what is known.
        """
        said, known = update.shard_examples, self._sizes[update.shards]
        if typical is None:
            typical = _median(self._sizes[np.isfinite(self._sizes)])
        unheard_of = _MOST_EXAMPLES if typical is None else max(_BEYOND_OTHERS * typical, _PLAUSIBLE)
        for shard, count, before in zip(update.shards, said, known, strict=True):
            if np.isfinite(before):
                limit = _GROWTH * max(before, 1.0)
                if count > limit or (count == 0.0 and before > 0.0):
                    raise ReplyRejectedError(
                        f"examples of shard {shard} must be from 1 to {limit:g}, as others have said; got {count:g}"
                    )
            elif count > unheard_of:
                raise ReplyRejectedError(
                    f"examples of shard {shard} must be at most {unheard_of:g}, as others' sizes show; got {count:g}"
                )
        self._sizes[update.shards] = said


def typical_of_others(updates: Sequence[CodedUpdate]) -> list[float | None]:
    """Return for each reply how many examples the others' shards have in the median, None where they tell of none.

    Examples
    --------
    >>> said = [CodedUpdate({}, np.array([k]), np.array([size])) for k, size in enumerate((30.0, 1e9, 50.0))]
    >>> typical_of_others(said)[1]
    40.0
    """
    return [
        _median(np.concatenate([np.zeros(0), *(other.shard_examples for other in updates if other is not update)]))
        for update in updates
    ]


def with_a_clock_that_can_be(update: CodedUpdate) -> tuple[CodedUpdate, str | None]:
    """Return a reply without its client's own times if these cannot be, and why.

    By the server's clock no client works for longer than its reply takes. The update itself is none the worse for it;
    only what is learnt of times would be.

    Examples
    --------
    >>> said = CodedUpdate({}, np.array([0]), np.array([5.0]), seconds=3.0, work_seconds=1e9, busy_seconds=1e9)
    >>> with_a_clock_that_can_be(said)[1]
    'it says that it was busy for 1e+09 s of the 3 s to its reply'
    """
    if update.seconds is None or update.busy_seconds is None or could_be_busy(update.busy_seconds, update.seconds):
        return update, None
    reason = f"it says that it was busy for {update.busy_seconds:g} s of the {update.seconds:.3g} s to its reply"
    return replace(update, work_seconds=None, busy_seconds=None), reason


def could_be_busy(busy: float, seconds: float) -> bool:
    """Return whether a client may have been busy for so long until a reply that took so many seconds."""
    return 0.0 <= busy <= _FAST * seconds + _OFF


def _median(sizes: NDArray[np.float64]) -> float | None:
    known = sizes[sizes > 0.0]
    return max(float(np.median(known)), 1.0) if known.size else None
