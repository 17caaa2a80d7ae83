"""Who is there: how many nodes a round needs, and the wait until they are there."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Literal

from fedgc.strategies.reporting.status import Waiting
from flwr.serverapp.strategy import Strategy

from fedgc.clock import Clock
from fedgc.errors import TooFewNodesError

logger = logging.getLogger("flwr.fedgc")

#: Seconds between two lines in the log that tell that nodes are still waited for.
_TOLD_EVERY = 60.0
#: Seconds between two times that a wait is shown where a run's status is.
_SHOWN_EVERY = 10.0

#: What nodes are needed for.
Work = Literal["train", "evaluate"]


def least_nodes(strategy: Strategy, work: Work = "train") -> int:
    """Return how many nodes a strategy needs for a round of training or evaluation, 1 if it does not say.

    Parameters
    ----------
    strategy : Strategy
        The strategy.
    work : str
        "train" or "evaluate".

    Returns
    -------
    int
        0 if it is not to evaluate at all.

    Examples
    --------
    >>> from flwr.serverapp.strategy import FedAvg
    >>> strategy = FedAvg(min_available_nodes=3, min_train_nodes=5, fraction_evaluate=0.1)
    >>> least_nodes(strategy), least_nodes(strategy, "evaluate")
    (5, 3)
    """
    if getattr(strategy, f"fraction_{work}", 1.0) == 0.0:
        return 0
    return max(1, *(int(getattr(strategy, name, 1)) for name in ("min_available_nodes", f"min_{work}_nodes")))


def wait_for_nodes(
    node_ids: Callable[[], Iterable[int]],
    least: int,
    *,
    limit: float,
    clock: Clock,
    server_round: int,
    which: str = "nodes",
    work: Work = "train",
    began: float | None = None,
    show: Callable[[Waiting | None], None] = lambda waiting: None,
) -> None:
    """Wait until enough nodes are there, and say so every minute.

    Parameters
    ----------
    node_ids : callable
        Returns the nodes that are there.
    least : int
        How many there must be.
    limit : float
        Seconds to wait at most.
    clock : Clock
        What time it is.
    server_round : int
        The round, for the log.
    which : str
        What they are called there.
    work : str
        What they are needed for, "train" or "evaluate".
    began : float, optional
        Instant since which they have been waited for; now, if not given.
    show : callable
        Called with what is waited for as soon as it is, then every ten seconds, and with None when it is over.

    Raises
    ------
    TooFewNodesError
        If there are still too few after that. Flower's own sampling would wait without a limit.
    """
    first = again = told = shown = clock.now()
    began = first if began is None else began
    for_what = " for evaluation" if work == "evaluate" else ""
    try:
        while (there := len(list(node_ids()))) < least:
            now = clock.now()
            waited = now - began
            if waited >= limit:
                raise TooFewNodesError(
                    f"round {server_round}: {there} of at least {least} {which} are there after {waited:.0f} s: bring "
                    f"more up, ask for fewer (min_available_nodes, min_{work}_nodes), or wait longer (nodes_timeout)"
                )
            if again == first or now >= shown + _SHOWN_EVERY:
                shown = now
                show(Waiting(waited, limit - waited, there, least, f"{which}{for_what}"))
            if again == first or now >= told + _TOLD_EVERY:
                told = now
                logger.warning(
                    "round %d: %d of at least %d %s are there%s; waiting for up to %.0f s more",
                    server_round, there, least, which, for_what, limit - waited,
                )  # fmt: skip
            again = min(began + limit, now + 1.0)
            while clock.now() < again:
                clock.wait(again)
    finally:
        if again > first:
            show(None)
    if again > first:
        logger.info("round %d: enough of them are there after %.0f s", server_round, clock.now() - began)
