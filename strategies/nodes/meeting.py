"""What a strategy knows of its nodes, before it asks them to work: who is there, who joins, who comes back."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from fedgc.strategies.coded_run import CodedRun
from fedgc.strategies.nodes.attendance import come_back, least_nodes, wait_for_nodes, was_heard
from fedgc.strategies.nodes.warm_up import NodeFacts, by_partition, warm_up
from fedgc.strategies.reporting.report import RoundReport
from flwr.app import ArrayRecord, Message
from flwr.serverapp.strategy import Strategy

from fedgc.assignment import InfeasibleAssignmentError
from fedgc.deadline import DeadlineRule
from fedgc.errors import TooFewNodesError
from fedgc.round import Planning, RoundState, rejoined

logger = logging.getLogger("flwr.fedgc")


class MeetingStrategy(Strategy):
    """A strategy that lets nodes introduce themselves, at the start and whenever some join."""

    strategy: Strategy
    deadline: DeadlineRule
    start_timeout: float | None
    nodes_timeout: float
    planning: Planning
    state: RoundState
    arrayrecord_key: str
    configrecord_key: str
    nodes: dict[int, NodeFacts]
    history: list[RoundReport]
    _run: CodedRun

    def _wait_for_nodes(self, server_round: int) -> None:
        """Wait until enough nodes are there for a round, or raise TooFewNodesError."""
        if self._run.grid is not None:
            grid = self._run.grid
            least, limit = least_nodes(self.strategy), self.nodes_timeout
            wait_for_nodes(grid.get_node_ids, least, limit=limit, clock=grid.clock, server_round=server_round)

    def _enough_to_evaluate(self, server_round: int) -> bool:
        """Wait until enough nodes are there for an evaluation, and return whether they are; if not, the log says so."""
        least = least_nodes(self.strategy, "evaluate")
        if self._run.grid is None or least == 0:
            return True
        grid, limit = self._run.grid, self.nodes_timeout
        try:
            wait_for_nodes(
                grid.get_node_ids, least, limit=limit, clock=grid.clock, server_round=server_round, work="evaluate"
            )
        except TooFewNodesError as reason:
            logger.warning("%s; this evaluation is left out", reason)
            return False
        return True

    def _wait_for_others(self, here: Collection[int], server_round: int, reason: InfeasibleAssignmentError) -> None:
        """Wait until a node is there that was not, if some are away whose limits are known, or raise the reason."""
        planned, grid = self.planning.nodes, self._run.grid
        if grid is None or planned is None or set(planned) <= set(here):
            raise reason
        logger.warning("round %d: cannot be planned with the nodes that are there: %s", server_round, reason)
        wait_for_nodes(
            lambda: set(grid.get_node_ids()) - set(here),
            1,
            limit=self.nodes_timeout,
            clock=grid.clock,
            server_round=server_round,
            which="others that can hold its shards",
        )

    def _warm_up(self, arrays: ArrayRecord) -> None:
        """Let the nodes start and introduce themselves."""
        assert self._run.grid is not None
        heard = warm_up(
            self._run.grid,
            arrays,
            n_nodes=int(getattr(self.strategy, "min_available_nodes", 1)),
            timeout=self.start_timeout,
            deadline=self.deadline.initial,
            arrayrecord_key=self.arrayrecord_key,
            configrecord_key=self.configrecord_key,
        )
        self._meet(heard, list(heard))

    def _meet(self, heard: Mapping[int, NodeFacts], here: Sequence[int]) -> None:
        """Learn what nodes have told of themselves: some may be former ones come back."""
        if not heard:
            return
        new = {node: facts for node, facts in heard.items() if node not in self.nodes}
        old_of = come_back(new, self.nodes, here=here, heard=lambda node: was_heard(self.history, node))
        self.nodes |= heard
        state = rejoined(self.state, old_of, here)
        overheads = state.overheads.update({node: facts.overhead for node, facts in heard.items()})
        self.state = replace(state, overheads=overheads)
        if self.planning.nodes is not None:
            new_of = {old: node for node, old in old_of.items()}
            self.planning = replace(self.planning, nodes=tuple(new_of.get(node, node) for node in self.planning.nodes))

    def _welcome(self, inner: dict[int, Message], arrays: ArrayRecord, server_round: int) -> list[Message]:
        """Take nodes out of a round that have joined since the start, and return what they are asked instead."""
        if not self.nodes:  # there was no warm-up: nodes are taken as they come
            return []
        if not any(node in self.nodes for node in inner):
            logger.warning("round %d: none of %d nodes was there before", server_round, len(inner))
            self._warm_up(arrays)
        unknown = [node for node in inner if node not in self.nodes]
        if len(unknown) == len(inner):
            return []
        for node in unknown:
            del inner[node]
        return self._run.newcomers.ask(
            unknown,
            arrays,
            seconds=self.deadline.initial,
            server_round=server_round,
            arrayrecord_key=self.arrayrecord_key,
            configrecord_key=self.configrecord_key,
        )

    def _without_limits(self, nodes: Sequence[int]) -> list[int]:
        """Return the nodes whose limits are not known, where those of others are: they may hold nothing."""
        planned = self.planning.nodes
        if self.planning.constraints is None or planned is None:
            return []
        return [node for node in nodes if node not in planned]

    def _planning_for(self, nodes: Sequence[int]) -> Planning:
        """Return how rounds are planned if these nodes are the first that are there."""
        known = self.planning.timing is not None or self.planning.constraints is not None
        if not known or self.planning.nodes is not None or not nodes:
            return self.planning
        return replace(self.planning, nodes=by_partition(self.nodes, nodes))
