"""What each option must be by itself, in the order of the strategy's parameters."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from os import PathLike

import numpy as np
from fedgc.strategies.shard_push import PushedShards
from numpy.typing import NDArray

from fedgc.assignment import AssignmentConstraints
from fedgc.checkpoint import CheckpointFolder
from fedgc.deadline import DeadlineRule, FixedDeadline, Timing
from fedgc.decoders import AUTO, DECODERS, CappedDecoder, Decoder
from fedgc.round import FailureDomains
from fedgc.schemes import BALANCED_BLOCKS, CODES, LIST_CODES, BuildCode
from fedgc.validation import check_positive, check_vector, one_of


def check_flag(name: str, given: bool) -> bool:
    """Return True or False if that is what was given, or raise ValueError.

    Examples
    --------
    >>> check_flag("early_end", "no")
    Traceback (most recent call last):
    ...
    ValueError: early_end must be True or False; got 'no'
    """
    if not isinstance(given, bool):
        raise ValueError(f"{name} must be True or False; got {given!r:.80}")
    return given


def as_seconds(name: str, given: float | None) -> float | None:
    """Return a finite number of seconds of at least 0, None if none is given, or raise ValueError."""
    return None if given is None else float(check_vector(name, [given], length=1, low=0.0)[0])


def as_deadline(given: float | DeadlineRule) -> DeadlineRule:
    """Return the rule that is meant by the option ``deadline``: a number stands for itself in every round."""
    return given if isinstance(given, DeadlineRule) else FixedDeadline(given)


def as_code(given: str | BuildCode, schedule: str) -> BuildCode | None:
    """Return what makes the code that is meant by the option ``code``; None for blocks formed for the fleet.

    Raises
    ------
    ValueError
        If there is no such code, or its rows are none of which clients could reply with a part.

    Examples
    --------
    >>> as_code("fractional-repetition", "full") is None
    True
    >>> as_code("scheme-II", "full")(np.array([0.5, 0.75]), 2, None).load
    1.5
    """
    if isinstance(given, str):
        name = one_of("code", given, list(CODES))
        able = BALANCED_BLOCKS, *LIST_CODES
        if schedule == "work-list" and name not in able:
            raise ValueError(f"code must be one of {', '.join(able)} for schedule 'work-list'; got {name!r}")
        return None if name == BALANCED_BLOCKS else CODES[name]
    if not callable(given):
        raise ValueError(
            f"code must be a name or make a code from probabilities, load and generator; got {given!r:.80}"
        )
    return given


def as_decoder(given: str | Decoder, max_weight: float | None, automatic: str = "optimal-unbiased") -> Decoder:
    """Return the rule that is meant by the options ``decoder`` and ``max_weight``; `automatic` is that of "auto".

    Raises
    ------
    ValueError
        If there is no such rule, or the weight is not positive.

    Examples
    --------
    >>> as_decoder("auto", None, "least-squares").name
    'least-squares'
    >>> as_decoder("fixed", None).name
    'fixed'
    """
    if isinstance(given, str):
        name = automatic if given == AUTO else given
        given = DECODERS[one_of("decoder", name, list(DECODERS))]()
    if not isinstance(given, Decoder):
        raise ValueError(f"decoder must be a name or a Decoder; got {given!r}")
    return given if max_weight is None else CappedDecoder(given, check_positive("max_weight", max_weight))


def as_sizes(given: Sequence[int] | None, num_shards: int) -> NDArray[np.float64]:
    """Return the number of examples of each shard, NaN where it is to be learnt.

    Raises
    ------
    ValueError
        If they are not one integer of at least 0 for each shard, or all are 0.

    Examples
    --------
    >>> as_sizes([3, 5], 2).tolist(), as_sizes(None, 2).tolist()
    ([3.0, 5.0], [nan, nan])
    """
    if given is None:
        return np.full(num_shards, np.nan)
    sizes = check_vector("shard_examples", given, length=num_shards, low=0.0, who="shard")
    if not sizes.any() or (sizes != np.rint(sizes)).any():
        raise ValueError(f"shard_examples must be integers, not all 0; got {list(given)}")
    return sizes


def as_timing(given: Timing | None) -> Timing | None:
    """Return what is known of the clients' completion times, or raise ValueError if it cannot be asked for them."""
    asked = ("reach", "partial_reach", "straggle_prob")
    if given is not None and not all(callable(getattr(given, name, None)) for name in asked):
        raise ValueError(f"timing must be a Timing, a fleet say; got {given!r:.80}")
    return given


def as_constraints(given: AssignmentConstraints | None) -> AssignmentConstraints | None:
    """Return the limits of the clients, or raise ValueError if they are none."""
    if not isinstance(given, AssignmentConstraints | None):
        raise ValueError(f"constraints must be AssignmentConstraints; got {given!r:.80}")
    return given


def as_failure_domains(given: Sequence[Hashable] | NDArray[np.generic] | None) -> FailureDomains | None:
    """Return who goes down together, or raise ValueError unless a label is given for each client, one of them twice.

    Examples
    --------
    >>> as_failure_domains(["a", "b"])
    Traceback (most recent call last):
    ...
    ValueError: failure_domains must have a label that two clients share; got ['a', 'b']
    """
    return None if given is None else FailureDomains.named(given)


def as_shards(given: PushedShards | None, num_shards: int) -> PushedShards | None:
    """Return the shards that the server hands out, if it does; raise ValueError if they are others than those named."""
    if not isinstance(given, PushedShards | None):
        raise ValueError(f"shards must be PushedShards; got {given!r:.80}")
    if given is not None:
        given.check(num_shards)
    return given


def as_checkpoints(given: str | PathLike[str] | CheckpointFolder | None) -> CheckpointFolder | None:
    """Return the folder that is meant by the option ``checkpoints``; a path stands for one that keeps two.

    Raises
    ------
    ValueError
        If it is neither.
    CheckpointError
        If the folder cannot be made.
    """
    if given is None or isinstance(given, CheckpointFolder):
        return given
    if not isinstance(given, str | PathLike):
        raise ValueError(f"checkpoints must be a path or a CheckpointFolder; got {given!r:.80}")
    return CheckpointFolder(given)
