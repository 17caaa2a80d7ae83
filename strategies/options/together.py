"""What options must be beside others, and beside the inner strategy.

What concerns only how rounds are planned is in :mod:`fedgc.round.before.option_checks`, which knows no Flower.
"""

from __future__ import annotations

import numpy as np
from fedgc.strategies.options.by_itself import check_flag
from fedgc.strategies.rounds.inner_step import innermost
from fedgc.strategies.rounds.secure_sum import SecureSum
from flwr.serverapp.strategy import Strategy
from numpy.typing import NDArray

from fedgc.checkpoint import CheckpointFolder
from fedgc.moments import SECOND_MOMENTS, SecondMoment
from fedgc.quantisers import MOST_BITS, QUANTISERS, Quantiser
from fedgc.round import Planning, check_sum_only
from fedgc.validation import check_integer, one_of


def as_secure_sum(
    given: bool | SecureSum, planning: Planning, *, memory: bool, sizes: NDArray[np.float64]
) -> SecureSum | None:
    """Return what is meant by the option ``secure_sum``, None if nothing is.

    Raises
    ------
    ValueError
        If another option is in its way.
    """
    if not isinstance(given, bool | SecureSum):
        raise ValueError(f"secure_sum must be True, False or a SecureSum; got {given!r:.80}")
    if given is False:
        return None
    check_sum_only(planning.decoder, schedule=planning.schedule, sums=planning.sums, memory=memory)
    if np.isnan(sizes).any():
        raise ValueError("shard_examples must be given for secure_sum, since weights depend on them; got None")
    return SecureSum() if given is True else given


def as_quantiser(
    bits: int | None, name: str, *, secure: bool, budget: int | None = None, memory: bool = False
) -> Quantiser | None:
    """Return what clients round their sums by, None if they send them as they are.

    With a budget its bits are the most that a client can be given: each is told its own.

    Raises
    ------
    ValueError
        If the bits are not from 1 to 16, there is no such quantiser, or sums are to be secure: masks need fixed point;
        if there is a budget beside bits or a memory.

    Examples
    --------
    >>> as_quantiser(8, "bucketed-norm", secure=False)
    BucketedNorm(bits=8)
    """
    made = QUANTISERS[one_of("quantiser", name, list(QUANTISERS))]
    if budget is not None:
        for option, given in (("bits", bits is not None), ("secure_sum", secure), ("memory", memory)):
            if given:
                raise ValueError(f"bit_budget must be left out with {option}; got {budget}")
        return made(MOST_BITS)
    if bits is None:
        return None
    if secure:
        raise ValueError(f"bits must be left out for secure_sum, whose sums are fixed-point numbers; got {bits}")
    return made(check_integer("bits", bits, low=1, high=MOST_BITS))


def rounding_option(bits: int | None, budget: int | None) -> str | None:
    """Return which option has clients round what they send, None if none does.

    Examples
    --------
    >>> rounding_option(None, 80)
    'bit_budget'
    """
    if budget is not None:
        return "bit_budget"
    return None if bits is None else "bits"


def as_second_moment(
    strategy: Strategy,
    *,
    schedule: str,
    memory: bool,
    sum_only: bool,
    rounded_by: str | None,
    domains: bool = False,
    in_a_row: bool = False,
) -> SecondMoment | None:
    """Return how the inner strategy wants the square of the exact update estimated; None if it does not want it.

    Raises
    ------
    ValueError
        If that takes what the server has not.

    Examples
    --------
    >>> from fedgc.strategies.variance_aware import VarianceAwareFedAdam
    >>> own = VarianceAwareFedAdam(second_moment="subtract")
    >>> as_second_moment(own, schedule="full", memory=False, sum_only=False, rounded_by=None).name
    'subtract'
    >>> as_second_moment(own, schedule="work-list", memory=False, sum_only=False, rounded_by=None)
    Traceback (most recent call last):
    ...
    ValueError: second_moment must be 'scale' or 'second-track' for schedule 'work-list'; got 'subtract'
    """
    rule = getattr(innermost(strategy), "second_moment", None)
    if not isinstance(rule, SecondMoment):
        return None
    if memory:
        # Only changes are weighed then, and what part of the update these are is not known.
        raise ValueError(f"memory must be off for a strategy with a second_moment; got it with {rule.name!r}")
    if sum_only:
        raise ValueError(f"secure_sum must be off for a strategy with a second_moment; got it with {rule.name!r}")
    if rounded_by is not None:
        # The square of a rounded sum has the rounding's variance in it, entry by entry, which is known in total only.
        raise ValueError(
            f"{rounded_by} must be left out for a strategy with a second_moment; got it with {rule.name!r}"
        )
    if in_a_row:
        raise ValueError(f"in_a_row must be False for a strategy with a second_moment; got it with {rule.name!r}")
    if rule.needs_independence and (schedule == "work-list" or domains):
        serve = " or ".join(repr(name) for name, one in SECOND_MOMENTS.items() if not one.needs_independence)
        where = "where failure_domains are given" if domains else f"for schedule {schedule!r}"
        raise ValueError(f"second_moment must be {serve} {where}; got {rule.name!r}")
    return rule


def check_beside_in_a_row(in_a_row: bool, *, memory: bool, secure: bool, rounded_by: str | None, pushed: bool) -> None:
    """Raise ValueError if clients are to train on from shard to shard, beside what needs each shard by itself.

    Examples
    --------
    >>> check_beside_in_a_row(True, memory=True, secure=False, rounded_by=None, pushed=False)
    Traceback (most recent call last):
    ...
    ValueError: memory must be left out with in_a_row, which leaves no update of a shard alone; got it
    """
    options = {"memory": memory, "secure_sum": secure, rounded_by: rounded_by is not None, "shards": pushed}
    for name, given in options.items():
        if in_a_row and given:
            why = "which leaves no update of a shard alone" if name == "memory" else "whose replies are whole models"
            raise ValueError(f"{name} must be left out with in_a_row, {why}; got it")


def as_resume(given: bool, checkpoints: CheckpointFolder | None) -> bool:
    """Return whether to go on from a checkpoint, or raise ValueError if there is no folder that might hold one."""
    if check_flag("resume", given) and checkpoints is None:
        raise ValueError("resume needs checkpoints, the folder to go on from; got True and no folder")
    return given
