"""What a strategy knows of its nodes, before it asks them to work: who is there, who joins, who comes back."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from fedgc.strategies.coded_run import CodedRun
from fedgc.strategies.nodes.attendance import Work, least_nodes, wait_for_nodes
from fedgc.strategies.nodes.limits import (
    check_stated,
    least_stated_for,
    moved,
    nodes_by_partition,
    stated_for,
    why_without,
)
from fedgc.strategies.nodes.warm_up import NodeFacts, start_seconds, warm_up
from fedgc.strategies.reporting.report import RoundReport
from fedgc.strategies.reporting.status import Waiting
from flwr.app import ArrayRecord, Message
from flwr.serverapp.strategy import Strategy

from fedgc.deadline import DeadlineRule
from fedgc.errors import TooFewNodesError
from fedgc.round import Planning, RoundState, rejoined

logger = logging.getLogger("flwr.fedgc")

#: So many rounds in a row must have been silent before a run that waits no longer is ended.
_SILENT_ROUNDS = 3


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

    def _write_status(self) -> None:
        """Hand what is known of the run to whoever shows it."""
        raise NotImplementedError

    def _wait_for(
        self,
        node_ids: Callable[[], Iterable[int]],
        least: int,
        server_round: int,
        *,
        which: str = "nodes",
        work: Work = "train",
        began: float | None = None,
    ) -> None:
        """Wait until so many nodes are there, in sight of whoever follows the run, or raise TooFewNodesError."""
        assert self._run.grid is not None
        wait_for_nodes(
            node_ids,
            least,
            limit=self.nodes_timeout,
            clock=self._run.grid.clock,
            server_round=server_round,
            which=which,
            work=work,
            began=began,
            show=self._show,
        )

    def _show(self, waiting: Waiting | None) -> None:
        self._run.waiting = waiting
        self._write_status()

    def _wait_for_nodes(self, server_round: int, arrays: ArrayRecord) -> None:
        """Wait until enough nodes are there for a round, or raise TooFewNodesError."""
        if self._run.grid is None:
            return
        self._wait_for(self._run.grid.get_node_ids, least_nodes(self.strategy), server_round)
        if not self._limited or self.planning.nodes is not None:
            return
        if self.planning.constraints is not None and self._run.introduced:
            self._wait_for_answers(server_round, arrays)
        if not self._by_partition:
            self._wait_for_all(server_round, arrays)

    def _wait_for_answers(self, server_round: int, arrays: ArrayRecord) -> None:
        """Ask nodes until one introduces itself: without that, whom the limits are about is not known."""
        assert self._run.grid is not None
        began, which = self._run.grid.clock.now(), "nodes that tell whom the constraints are about"
        self._ask_until(lambda: bool(self.nodes), arrays, began=began, which=which)
        self._wait_for(lambda: self.nodes, 1, server_round, which=which, began=began)

    def _ask_until(self, enough: Callable[[], bool], arrays: ArrayRecord, *, began: float, which: str) -> None:
        """Ask those that have not introduced themselves again and again, as long as nodes are waited for."""
        assert self._run.grid is not None
        clock, limit = self._run.grid.clock, self.nodes_timeout
        while self._run.introduced and not enough() and clock.now() < began + limit:
            waited = clock.now() - began
            self._show(Waiting(waited, limit - waited, 0, 1, which))
            self._warm_up(arrays, but=self.nodes)
            again = min(began + limit, began + waited + 1.0)  # where nothing can be sent, none is waited for
            while not enough() and clock.now() < again:
                clock.wait(again)
        if self._run.waiting is not None:
            self._show(None)

    def _wait_for_all(self, server_round: int, arrays: ArrayRecord) -> None:
        """Wait for as many nodes as limits or times are stated for, where these go by the order of the node ids."""
        assert self._run.grid is not None
        grid, least = self._run.grid, least_stated_for(self.planning)
        there = len(list(grid.get_node_ids()))
        if there != (stated_for(self.planning) or max(there, least)):
            logger.warning(
                "round %d: limits or times are stated for %d clients, by the order of the node ids as no node tells a "
                "partition, and %d nodes are there",
                server_round,
                least,
                there,
            )
        if there < least:
            which = "nodes, one for each client that limits or times are stated for,"
            self._wait_for(grid.get_node_ids, least, server_round, which=which)
            if self._run.introduced:  # those that have come may tell
                self._warm_up(arrays, but=self.nodes)

    def _note_replies(self, heard: bool) -> None:
        """Take note of whether anything of use has come of a round, or late of the one before."""
        run = self._run
        if heard:
            run.silent_rounds, run.silent_since = 0, None
        elif run.grid is not None:
            run.silent_rounds += 1
            run.silent_since = (
                run.grid.clock.now() - (run.waited or 0.0) if run.silent_since is None else run.silent_since
            )

    def _check_that_some_reply(self, server_round: int) -> None:
        """Raise TooFewNodesError if nodes are there, but nothing of use has come for too many rounds and too long."""
        run = self._run
        if run.grid is None or run.silent_since is None or run.silent_rounds < _SILENT_ROUNDS:
            return
        silent = run.grid.clock.now() - run.silent_since
        if silent > self.nodes_timeout:
            raise TooFewNodesError(
                f"round {server_round}: nothing of use has come of any node for {run.silent_rounds} rounds, in "
                f"{silent:.0f} s: look into their logs, set a longer deadline, or wait longer (nodes_timeout)"
            )

    def _enough_to_evaluate(self, server_round: int) -> bool:
        """Wait until enough nodes are there for an evaluation, and return whether they are; if not, the log says so."""
        least = least_nodes(self.strategy, "evaluate")
        if self._run.grid is None or least == 0:
            return True
        try:
            self._wait_for(self._run.grid.get_node_ids, least, server_round, work="evaluate")
        except TooFewNodesError as reason:
            logger.warning("%s; this evaluation is left out", reason)
            return False
        return True

    def _wait_for_others(
        self, here: Collection[int], server_round: int, arrays: ArrayRecord, reason: Exception
    ) -> None:
        """Wait for nodes that were not there, if some are away whose limits are known, or raise the reason.

        Those that are there and have not introduced themselves may be these: they are asked until they do.
        """
        planned, grid = self.planning.nodes, self._run.grid
        if grid is None or planned is None or set(planned) <= set(here):
            raise reason
        logger.warning("round %d: cannot be planned with the nodes that are there: %s", server_round, reason)
        self._run.newcomers.sent({}, grid.clock.now())  # what has not been sent will not be
        if self._run.unplannable_since is None:
            self._run.unplannable_since = grid.clock.now()
        began = self._run.unplannable_since

        def others() -> set[int]:
            return set(grid.get_node_ids()) - set(here)

        which, unheard = "others that can hold its shards", set(here) - set(self.nodes)
        if unheard:
            self._ask_until(
                lambda: bool(others()) or not unheard.isdisjoint(self.nodes), arrays, began=began, which=which
            )
        if unheard.isdisjoint(self.nodes):
            self._wait_for(others, 1, server_round, which=which, began=began)
            self._warm_up(arrays, but=self.nodes)

    def _warm_up(self, arrays: ArrayRecord, *, but: Collection[int] = ()) -> None:
        """Let the nodes start and introduce themselves."""
        grid = self._run.grid
        assert grid is not None
        self._run.introduced = start_seconds(grid, self.start_timeout) > 0.0
        heard = warm_up(
            grid,
            arrays,
            n_nodes=int(getattr(self.strategy, "min_available_nodes", 1)),
            timeout=self.start_timeout,
            deadline=self.deadline.initial,
            but=frozenset(but),
            arrayrecord_key=self.arrayrecord_key,
            configrecord_key=self.configrecord_key,
        )
        self._meet(heard, {*grid.get_node_ids(), *heard})

    def _meet(self, heard: Mapping[int, NodeFacts], here: Collection[int]) -> None:
        """Learn what nodes have told of themselves: some may be former ones come back."""
        self._run.partitions.begin(self.nodes, self.planning.nodes or ())
        for node, facts in sorted(heard.items()):
            if node in self.nodes and self.nodes[node].partition != facts.partition:
                del self.nodes[node]  # what it claims now others may have claimed before
            self.nodes[node] = facts
        old_of = self._run.partitions.settle(
            self.nodes, connected={*here, *self._run.heard_late}, answered=heard.keys()
        )
        # One that was asked beside its former self has a history of its own, and keeps the longer one.
        rounds = {one.node_id: one.rounds for one in self.state.reliability.describe([*old_of, *old_of.values()])}
        state = rejoined(self.state, {new: old for new, old in old_of.items() if rounds[new] <= rounds[old]}, here)
        overheads = state.overheads.update({node: facts.overhead for node, facts in heard.items()})
        self.state = replace(state, overheads=overheads)
        if self.planning.constraints is None:
            for node, holder in self._run.partitions.disputed(self.nodes, here).items():
                both = f"nodes {holder} and {node} both say that they are partition {self.nodes[node].partition}"
                self._warn_once(node, f"{both}: they count as two clients")

    def _welcome(self, inner: dict[int, Message], arrays: ArrayRecord, server_round: int) -> list[Message]:
        """Take nodes out of a round that have joined since the start, and return what they are asked instead."""
        if not self.nodes:  # there was no warm-up: nodes are taken as they come
            return []
        if not any(node in self.nodes for node in inner):
            logger.warning("round %d: none of %d nodes was there before", server_round, len(inner))
            self._warm_up(arrays)
        unknown = [node for node in inner if node not in self.nodes]
        if len(unknown) == len(inner) and (self.planning.constraints is None or not self._by_partition):
            return []
        for node in unknown:
            del inner[node]
        return self._run.newcomers.ask(
            [*unknown, *self._replaced(inner)],
            arrays,
            seconds=self.deadline.initial,
            server_round=server_round,
            arrayrecord_key=self.arrayrecord_key,
            configrecord_key=self.configrecord_key,
        )

    def _replaced(self, nodes: Collection[int]) -> list[int]:
        """Return the nodes whose place another has taken while they were gone: it is theirs again once they answer."""
        if self.planning.constraints is None:
            return []
        order = {node: place for place, node in enumerate(self.nodes)}
        disputed = self._run.partitions.disputed(self.nodes, nodes)
        return [node for node, holder in disputed.items() if order[node] < order[holder]]

    def _warn_once(self, node: int, reason: str) -> None:
        if (node, reason) not in self._run.unasked:
            self._run.unasked.add((node, reason))
            logger.warning("%s", reason)

    def _without_limits(self, nodes: Sequence[int]) -> dict[int, str]:
        """Return the nodes whose limits are not known, where those of others are: they may hold nothing. And why."""
        planned = self.planning.nodes
        if self.planning.constraints is None or planned is None:
            return {}
        reason = "the constraints do not name it"
        return {
            node: why_without(node, self.nodes, self._run.partitions.node_of, stated_for(self.planning))
            if self._by_partition
            else reason
            for node in nodes
            if node not in set(planned)
        }

    def _some_planned(self, here: Collection[int]) -> bool:
        """Whether one is there whose limits are known, or there are none."""
        planned = self.planning.nodes
        return self.planning.constraints is None or planned is None or not set(planned).isdisjoint(here)

    @property
    def _limited(self) -> bool:
        """Whether something is stated of given clients."""
        return self.planning.timing is not None or self.planning.constraints is not None

    @property
    def _by_partition(self) -> bool:
        """Whether clients are known by their partitions, as soon as a node tells one; else by the order of the ids."""
        named = [node for node in self.planning.nodes or () if node in self.nodes]
        return any(self.nodes[node].partition is not None for node in named or self.nodes)

    def _planning_for(self, here: Collection[int]) -> Planning:
        """Return how rounds are planned while these nodes are there."""
        if not self._limited or not here:
            return self.planning
        if self._by_partition:
            return replace(self.planning, nodes=nodes_by_partition(self.planning, self._run.partitions.node_of))
        if self.planning.nodes is not None:
            return self.planning
        return replace(self.planning, nodes=tuple(sorted(here)))

    def _plan_with(self, here: Collection[int]) -> None:
        """Settle whom limits and times are about in the coming round.

        Raises
        ------
        InfeasibleAssignmentError
            If they could not be met by all that they are stated for, some of which are away at the start.
        """
        before, self.planning = self.planning, self._planning_for(here)
        now = self.planning.nodes
        if before.nodes is None and now is not None and None in now and self.planning.constraints is not None:
            check_stated(self.planning, self.state.shard_examples.size, here)
        if moved(before.nodes, now):  # what it holds may be another's to hold
            self.state = replace(self.state, plan=None)
