"""Who is there: nodes that are waited for, that join while a run goes on, that come back under another id."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Literal

from fedgc.strategies.nodes.warm_up import NodeFacts
from fedgc.strategies.reporting.report import RoundReport
from flwr.serverapp.strategy import Strategy

from fedgc.clock import Clock
from fedgc.errors import TooFewNodesError

logger = logging.getLogger("flwr.fedgc")

#: Seconds between two lines in the log that tell that nodes are still waited for.
_TOLD_EVERY = 60.0

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

    Raises
    ------
    TooFewNodesError
        If there are still too few after that. Flower's own sampling would wait without a limit.
    """
    began = told = clock.now()
    again = began
    while (there := len(list(node_ids()))) < least:
        waited = clock.now() - began
        if waited >= limit:
            raise TooFewNodesError(
                f"round {server_round}: {there} of at least {least} {which} are there after {waited:.0f} s: "
                f"bring more up, ask for fewer (min_available_nodes, min_{work}_nodes), or wait longer (nodes_timeout)"
            )
        if again == began or clock.now() >= told + _TOLD_EVERY:
            told = clock.now()
            logger.warning(
                "round %d: %d of at least %d %s are there%s; waiting for up to %.0f s more",
                server_round, there, least, which, " for evaluation" if work == "evaluate" else "", limit - waited,
            )  # fmt: skip
        again = min(began + limit, clock.now() + 1.0)
        while clock.now() < again:
            clock.wait(again)
    if again > began:
        logger.info("round %d: enough of them are there after %.0f s", server_round, clock.now() - began)


def come_back(
    newcomers: Mapping[int, NodeFacts],
    known: Mapping[int, NodeFacts],
    *,
    here: Collection[int],
    heard: Callable[[int], bool],
) -> dict[int, int]:
    """Return which newcomers are former nodes, by the partition that they tell: the former id by the new one.

    Parameters
    ----------
    newcomers, known : mapping of int to NodeFacts
        What nodes have told that have just joined, and those before them, by node id.
    here : collection of int
        Nodes that are there.
    heard : callable
        Whether a node answered the last time it was asked.

    Notes
    -----
    A device that starts again without its key gets another node id, and the runtime takes the former one for alive for
    up to a minute. So a newcomer is taken for the last node with its partition if that has gone or was silent. If it
    is there and answers, two nodes claim one partition: they are two clients, and that is logged.

    Examples
    --------
    >>> facts = {7: NodeFacts(0.1, partition=3), 8: NodeFacts(0.1, partition=4)}
    >>> come_back({9: NodeFacts(0.1, partition=3)}, facts, here=[8, 9], heard=[8].__contains__)
    {9: 7}
    """
    last = {facts.partition: node for node, facts in known.items() if facts.partition is not None}
    old_of: dict[int, int] = {}
    for node, facts in newcomers.items():
        old = None if facts.partition is None else last.get(facts.partition)
        if old is not None and old in here and heard(old):
            logger.warning(
                "nodes %d and %d both say that they are partition %d: they count as two clients",
                old, node, facts.partition,
            )  # fmt: skip
        elif old is not None:
            logger.info("node %d is node %d come back: both say that they are partition %d", node, old, facts.partition)
            old_of[node] = old
        if facts.partition is not None:
            last[facts.partition] = node
    return old_of


def was_heard(history: Sequence[RoundReport], node: int) -> bool:
    """Return whether something came of a node the last time it was asked."""
    for report in reversed(history):
        if node in report.node_ids:
            return bool(report.arrived[report.node_ids.index(node)])
    return False
