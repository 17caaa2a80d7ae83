"""The option ``strategy``: what an inner strategy must be, and what its own options settle."""

from __future__ import annotations

from fedgc.strategies.rounds.inner_step import chain, innermost
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

from fedgc.protocol import NUM_EXAMPLES

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
