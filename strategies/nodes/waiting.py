"""How long a run waits: for nodes to be there, to tell who they are, to hold what others may not, to answer at all."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable

from fedgc.strategies.coded_run import CodedRun
from fedgc.strategies.nodes.attendance import Work, least_nodes, wait_for_nodes
from fedgc.strategies.nodes.limits import least_stated_for, stated_for
from fedgc.strategies.nodes.warm_up import NodeFacts
from fedgc.strategies.reporting.report import RoundReport
from fedgc.strategies.reporting.status import Waiting
from flwr.app import ArrayRecord
from flwr.serverapp.strategy import Strategy

from fedgc.errors import TooFewNodesError
from fedgc.round import Planning

logger = logging.getLogger("flwr.fedgc")

#: So many rounds in a row must have been silent before a run that waits no longer is ended.
_SILENT_ROUNDS = 3


class WaitingStrategy(Strategy):
    """A strategy that waits for nodes, in sight of whoever follows the run, and for no longer than it may."""

    strategy: Strategy
    nodes_timeout: float
    planning: Planning
    nodes: dict[int, NodeFacts]
    history: list[RoundReport]
    _run: CodedRun

    def _warm_up(self, arrays: ArrayRecord, *, but: Collection[int] = ()) -> None:
        """Let the nodes start and introduce themselves."""
        raise NotImplementedError

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

    @property
    def _limited(self) -> bool:
        """Whether something is stated of given clients."""
        given = (self.planning.timing, self.planning.constraints, self.planning.failure_domains)
        return any(one is not None for one in given)

    @property
    def _by_partition(self) -> bool:
        """Whether clients are known by their partitions, as soon as a node tells one; else by the order of the ids."""
        named = [node for node in self.planning.nodes or () if node in self.nodes]
        return any(self.nodes[node].partition is not None for node in named or self.nodes)
