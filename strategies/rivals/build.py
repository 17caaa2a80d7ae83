"""Build a rival by name."""

from __future__ import annotations

from fedgc.strategies.gradient_coding import GradientCoding
from fedgc.strategies.rivals.catalogue import RIVALS
from fedgc.strategies.rivals.fedbuff import FedBuff
from fedgc.strategies.rivals.rival import SERVER_STEP, RivalOptions
from flwr.serverapp.strategy import Strategy

from fedgc.deadline import WAIT_FOR_EVERYONE, DeadlineRule
from fedgc.validation import check_positive, one_of


def build_rival(name: str, options: RivalOptions) -> tuple[Strategy, float]:
    """Return a rival, and the timeout to start it with.

    Parameters
    ----------
    name : str
        One of :data:`RIVALS`.
    options : RivalOptions
        What it is built from.

    Raises
    ------
    ValueError
        If there is no such rival, it needs a deadline and has none, or it is given an option that it does not heed.

    Examples
    --------
    >>> strategy, timeout = build_rival("mifa", RivalOptions(num_shards=8, deadline=5.0))
    >>> strategy.decoder.name, timeout == WAIT_FOR_EVERYONE
    ('sum', True)
    """
    rival = RIVALS[one_of("rival", name, list(RIVALS))]
    if rival.needs_deadline and options.deadline is None:
        raise ValueError(f"deadline must be given for rival {name!r}; got None")
    unknown = sorted(set(options.own) - {*rival.own, *SERVER_STEP})
    if unknown:
        raise ValueError(f"options of rival {name!r} must be among {[*rival.own, *SERVER_STEP]}; got {unknown}")
    strategy = rival.build(options)
    # These keep their deadline themselves; Flower's strategies are told theirs when they start.
    if isinstance(strategy, GradientCoding | FedBuff) or options.deadline is None:
        return strategy, WAIT_FOR_EVERYONE
    if isinstance(options.deadline, DeadlineRule):
        raise ValueError(f"deadline must be a number for rival {name!r}; got {options.deadline!r:.80}")
    return strategy, check_positive("deadline", options.deadline)
