"""Options: what the user asks for, checked before anything runs."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from os import PathLike

import numpy as np
from fedgc.strategies.rounds.inner_step import chain, innermost
from fedgc.strategies.shard_push import PushedShards
from flwr.serverapp.strategy import (
    Bulyan,
    DifferentialPrivacyClientSideAdaptiveClipping,
    DifferentialPrivacyClientSideFixedClipping,
    DifferentialPrivacyServerSideAdaptiveClipping,
    DifferentialPrivacyServerSideFixedClipping,
    FedMedian,
    FedTrimmedAvg,
    MultiKrum,
    Strategy,
)
from numpy.typing import NDArray

from fedgc.assignment import AssignmentConstraints
from fedgc.checkpoint import CheckpointFolder
from fedgc.coherence import CoherenceEstimate
from fedgc.deadline import DeadlineRule, FixedDeadline, Timing
from fedgc.decoders import AUTO, DECODERS, CappedDecoder, Decoder
from fedgc.memory import MemoryStore, UpdateMemory
from fedgc.moments import SECOND_MOMENTS, SecondMoment
from fedgc.noise import NoiseSensitivity
from fedgc.protocol import NUM_EXAMPLES
from fedgc.quantisers import MOST_BITS, QUANTISERS, Quantiser
from fedgc.reliability import OutagePosterior, ReliabilityPosterior
from fedgc.round import FailureDomains, Planning, RoundState
from fedgc.schemes import BALANCED_BLOCKS, CODES, BuildCode
from fedgc.validation import check_integer, check_positive, check_vector, one_of

#: They size their noise for the mean of as many replies as there are clients, and clip each.
_PRIVATE = (
    DifferentialPrivacyClientSideAdaptiveClipping,
    DifferentialPrivacyClientSideFixedClipping,
    DifferentialPrivacyServerSideAdaptiveClipping,
    DifferentialPrivacyServerSideFixedClipping,
)

#: They hold replies against each other, and make of a single one what it is. (Flower's Krum is a MultiKrum.)
_COMPARING = (FedMedian, FedTrimmedAvg, MultiKrum)


def as_strategy(given: object) -> Strategy:
    """Return the inner strategy.

    Raises
    ------
    ValueError
        If it is none, or weighs replies by something else than numbers of examples; if it is for differential privacy,
        or is around one that is; if it makes no model of a single reply.

    Examples
    --------
    >>> from flwr.serverapp.strategy import FedAvg
    >>> as_strategy(FedAvg()).weighted_by_key
    'num-examples'
    """
    if not isinstance(given, Strategy):
        raise ValueError(f"strategy must be a Flower Strategy; got {given!r}")
    for one in chain(given):
        if isinstance(one, _PRIVATE):
            raise ValueError(
                f"strategy must not be for differential privacy, which would clip the decoded aggregate as a whole and "
                f"add the noise of a mean of clients: put {type(one).__name__} around GradientCoding, see "
                f"GradientCoding.deadline_grid; got it inside"
            )
        if isinstance(one, Bulyan):
            raise ValueError(
                "strategy must make a model of one reply, the decoded aggregate: Bulyan makes none of a "
                "single one, and the model would stay as it is; got it"
            )
    weighted_by = getattr(innermost(given), "weighted_by_key", NUM_EXAMPLES)
    if weighted_by != NUM_EXAMPLES:
        # Weights go into the sums that clients send, and holders of a shard are held against each other by them.
        raise ValueError(
            f"weighted_by_key of the strategy must be {NUM_EXAMPLES!r}: to weigh shards by something else, return that "
            f"as num_examples of their ShardUpdate; got {weighted_by!r}"
        )
    return given


def comparing(strategy: Strategy) -> list[str]:
    """Return the names of the strategies, of one and those within, that compare clients and here have none to compare.

    Examples
    --------
    >>> from flwr.serverapp.strategy import Krum
    >>> comparing(Krum())
    ['Krum']
    """
    return [type(one).__name__ for one in chain(strategy) if isinstance(one, _COMPARING)]


def as_record_key(name: str, given: str | None, strategy: Strategy, usual: str) -> str:
    """Return the name of a record that is meant by an option: the inner strategy's, or `usual` if it has none.

    Raises
    ------
    ValueError
        If another than the inner strategy's is given.

    Examples
    --------
    >>> from flwr.serverapp.strategy import FedAvg
    >>> as_record_key("arrayrecord_key", None, FedAvg(arrayrecord_key="weights"), "arrays")
    'weights'
    """
    own = getattr(innermost(strategy), name, None)
    if given is not None and not isinstance(given, str):
        raise ValueError(f"{name} must be a name; got {given!r:.80}")
    if isinstance(own, str) and given not in {None, own}:
        raise ValueError(f"{name} must be left out, or be that of the strategy, {own!r}; got {given!r}")
    return own if isinstance(own, str) else given or usual


def as_deadline(given: float | DeadlineRule) -> DeadlineRule:
    """Return the rule that is meant by the option ``deadline``: a number stands for itself in every round."""
    return given if isinstance(given, DeadlineRule) else FixedDeadline(given)


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


def as_code(given: str | BuildCode) -> BuildCode | None:
    """Return what makes the code that is meant by the option ``code``; None for blocks formed for the fleet.

    Raises
    ------
    ValueError
        If there is no such code.

    Examples
    --------
    >>> as_code("fractional-repetition") is None, as_code("scheme-II")(np.array([0.5, 0.75]), 2, None).load
    (True, 1.5)
    """
    if isinstance(given, str):
        name = one_of("code", given, list(CODES))
        return None if name == BALANCED_BLOCKS else CODES[name]
    if not callable(given):
        raise ValueError(
            f"code must be a name or make a code from probabilities, load and generator; got {given!r:.80}"
        )
    return given


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


def as_shards(given: PushedShards | None, num_shards: int) -> PushedShards | None:
    """Return the shards that the server hands out, if it does; raise ValueError if they are others than those named."""
    if not isinstance(given, PushedShards | None):
        raise ValueError(f"shards must be PushedShards; got {given!r:.80}")
    if given is not None:
        given.check(num_shards)
    return given


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


def as_resume(given: bool, checkpoints: CheckpointFolder | None) -> bool:
    """Return whether to go on from a checkpoint, or raise ValueError if there is no folder that might hold one."""
    if check_flag("resume", given) and checkpoints is None:
        raise ValueError("resume needs checkpoints, the folder to go on from; got True and no folder")
    return given


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


def as_second_moment(
    strategy: Strategy,
    *,
    schedule: str,
    memory: bool,
    sum_only: bool,
    rounded: bool,
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
    >>> as_second_moment(own, schedule="full", memory=False, sum_only=False, rounded=False).name
    'subtract'
    >>> as_second_moment(own, schedule="work-list", memory=False, sum_only=False, rounded=False)
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
    if rounded:
        # The square of a rounded sum has the rounding's variance in it, entry by entry, which is known in total only.
        raise ValueError(f"bits must be left out for a strategy with a second_moment; got them with {rule.name!r}")
    if in_a_row:
        raise ValueError(f"in_a_row must be False for a strategy with a second_moment; got it with {rule.name!r}")
    if rule.needs_independence and (schedule == "work-list" or domains):
        serve = " or ".join(repr(name) for name, one in SECOND_MOMENTS.items() if not one.needs_independence)
        where = "where failure_domains are given" if domains else f"for schedule {schedule!r}"
        raise ValueError(f"second_moment must be {serve} {where}; got {rule.name!r}")
    return rule


def check_beside_in_a_row(in_a_row: bool, *, memory: bool, secure: bool, rounded: bool, pushed: bool) -> None:
    """Raise ValueError if clients are to train on from shard to shard, beside what needs each shard by itself.

    Examples
    --------
    >>> check_beside_in_a_row(True, memory=True, secure=False, rounded=False, pushed=False)
    Traceback (most recent call last):
    ...
    ValueError: memory must be left out with in_a_row, which leaves no update of a shard alone; got it
    """
    for name, given in (("memory", memory), ("secure_sum", secure), ("bits", rounded), ("shards", pushed)):
        if in_a_row and given:
            why = "which leaves no update of a shard alone" if name == "memory" else "whose replies are whole models"
            raise ValueError(f"{name} must be left out with in_a_row, {why}; got it")


def as_seconds(name: str, given: float | None) -> float | None:
    """Return a finite number of seconds of at least 0, None if none is given, or raise ValueError."""
    return None if given is None else float(check_vector(name, [given], length=1, low=0.0)[0])


def first_state(  # noqa: PLR0917  (what a state begins with)
    sizes: NDArray[np.float64],
    reliability: ReliabilityPosterior | None,
    coherence: CoherenceEstimate | None,
    memory: bool | MemoryStore,
    planning: Planning,
    outages: OutagePosterior | None = None,
) -> RoundState:
    """Return what a first round is planned from: what is given, and else the priors.

    Raises
    ------
    ValueError
        If one of them is something else than its option must be.
    """
    if not isinstance(reliability, ReliabilityPosterior | None):
        raise ValueError(f"reliability must be a ReliabilityPosterior; got {reliability!r}")
    if not isinstance(outages, OutagePosterior | None):
        raise ValueError(f"outages must be an OutagePosterior; got {outages!r:.80}")
    domains = planning.failure_domains
    if outages is not None and domains is None:
        raise ValueError("outages must be left out without failure_domains, whose they are; got some")
    if outages is not None and domains is not None and outages.down.size > domains.n_domains:
        raise ValueError(f"outages must be of at most {domains.n_domains} failure_domains; got {outages.down.size}")
    if not isinstance(coherence, CoherenceEstimate | None):
        raise ValueError(f"coherence must be a CoherenceEstimate; got {coherence!r:.80}")
    if not isinstance(memory, bool | MemoryStore):
        raise ValueError(f"memory must be True, False or a MemoryStore; got {memory!r:.80}")
    rule = planning.deadline
    store = memory if isinstance(memory, MemoryStore) else MemoryStore()
    return RoundState(
        sizes,
        reliability or ReliabilityPosterior(),
        coherence if coherence is not None else CoherenceEstimate(),
        memory=UpdateMemory.empty(sizes.size, store) if memory else None,
        noise=NoiseSensitivity() if rule is not None and rule.learns_noise else None,
        outages=None if domains is None else (outages or OutagePosterior()).for_domains(domains.n_domains),
    )
