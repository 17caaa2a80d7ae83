"""What Flower's training loop calls: a round is sent, and what comes of it is decoded."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
from fedgc.strategies.messages.arrays import check_finite
from fedgc.strategies.messages.evaluation import usable_evaluations
from fedgc.strategies.nodes.meeting import MeetingStrategy
from fedgc.strategies.nodes.shard_counts import ShardCounts
from fedgc.strategies.options import comparing
from fedgc.strategies.reporting import Reporting
from fedgc.strategies.reporting.first_round import first_round_warnings
from fedgc.strategies.reporting.largest_part import privacy_warning
from fedgc.strategies.reporting.read_status import run_status
from fedgc.strategies.resuming import Journal
from fedgc.strategies.rounds.close_round import close_round, next_arrays
from fedgc.strategies.rounds.round_settings import RoundSettings
from fedgc.strategies.rounds.secure_sum import SecureSum
from fedgc.strategies.rounds.send_round import send_round
from fedgc.strategies.shard_push import PushedShards
from fedgc.strategies.summary import summary_lines
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from numpy.typing import NDArray

from fedgc.assignment import InfeasibleAssignmentError
from fedgc.checkpoint import CheckpointFolder
from fedgc.coherence import KnownCoherence
from fedgc.decoders import Decoder
from fedgc.moments import SecondMoment
from fedgc.quantisers import MOST_BITS, Quantiser
from fedgc.quantisers.packed_sum import rounded_names
from fedgc.records.array_bytes import views
from fedgc.round import plan_round
from fedgc.round.rounding import RoundingByBits, RoundingEstimate

# A child of Flower's logger, so that its lines appear where the user looks for Flower's.
logger = logging.getLogger("flwr.fedgc")


class CodedStrategy(MeetingStrategy):
    """The rounds of a :class:`fedgc.strategies.GradientCoding`, which checks and keeps the options that they go by."""

    num_shards: int
    first_deadline: float | None
    given_sizes: NDArray[np.float64]
    secure_sum: SecureSum | None
    quantiser: Quantiser | None
    second_moment: SecondMoment | None
    shards: PushedShards | None
    reporting: Reporting
    early_end: bool
    seed: int
    checkpoints: CheckpointFolder | None
    _shard_counts: ShardCounts
    _journal: Journal
    _evaluates: bool

    @property
    def decoder(self) -> Decoder:
        """The rule for the decoding weights."""
        return self.planning.decoder

    @property
    def round_settings(self) -> RoundSettings:
        """What rounds are sent and read by."""
        return RoundSettings(
            seed=self.seed,
            known_sizes=self.given_sizes,
            stop_in_time=self.planning.timing is not None or self.planning.shared_clock,
            configrecord_key=self.configrecord_key,
            secure_sum=self.secure_sum,
            shards=self.shards,
            quantiser=self.quantiser,
            second_moment=self.second_moment,
        )

    def __repr__(self) -> str:
        """Return the strategy's name and options."""
        return f"{type(self).__name__}({self.strategy!r}, load={self.planning.load}, decoder={self.decoder.name!r})"

    def summary(self) -> None:
        """Log the options and the plan of the first round, then the inner strategy's options.

        The plan has blocks, work lists and the predicted residual error. Before a run it is made for the clients whose
        `timing` is given, or whose reliability is known from an earlier run.
        """
        nodes = [] if self._run.grid is None else sorted(self._run.grid.get_node_ids())
        for line in summary_lines(self._planning_for(nodes), self.state, nodes, self.first_deadline):
            logger.info("%s", line)
        self.strategy.summary()

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Let the inner strategy choose the nodes, then tell each its shards and coefficients."""
        return self._configure(server_round + self._journal.rounds_before, arrays, config, grid)

    def _configure(self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid) -> Iterable[Message]:
        if server_round == 1:
            check_finite(arrays)
        self._wait_for_nodes(server_round, arrays)
        inner = {
            message.metadata.dst_node_id: message
            for message in self.strategy.configure_train(server_round, arrays, config, grid)
        }
        self._learn_if_passed_over()
        self._check_that_some_reply(server_round)
        self._run.forget()
        here = [*{*grid.get_node_ids(), *inner}]
        self._meet(self._run.newcomers.heard(), here)
        introductions = self._welcome(inner, arrays, server_round)
        for node_id in self._run.set_aside.among(inner, server_round):
            logger.warning("round %d: node %d is not asked: its last replies could not be used", server_round, node_id)
            del inner[node_id]
        for node_id in self._run.dissent.among(inner, server_round):
            logger.warning(
                "round %d: node %d is not asked: its last sums were not those of others with its shards",
                server_round,
                node_id,
            )
            del inner[node_id]
        self._expect_rounding(arrays)
        self._plan_with(here)
        for node_id, why in self._without_limits(list(inner)).items():
            self._warn_once(node_id, f"node {node_id} is not asked: {why}")
            del inner[node_id]
        try:
            if not inner and not self._some_planned(here):
                raise InfeasibleAssignmentError((), "none of them has limits that are known")
            if not inner:
                return introductions
            plan = plan_round(self.state, list(inner), self.planning)
        except InfeasibleAssignmentError as error:
            self._wait_for_others(here, server_round, arrays, error)
            return self._configure(server_round, arrays, config, grid)
        self._run.unplannable_since = None
        deadline = plan.deadline if plan.deadline is not None else self.deadline.initial
        if server_round == 1 and self.first_deadline is not None:
            deadline = self.first_deadline
        self._run.open = send_round(
            server_round,
            plan,
            self.state,
            arrays,
            inner,
            self.round_settings,
            deadline=deadline,
            secret=self._run.secret(self.seed, server_round),
        )
        if self._run.grid is not None:
            self._run.grid.expect(arrays, *self._run.open.most_in_a_reply())
        if self._run.begin_rounds():
            unused = self.checkpoints is not None and not self._journal.writes
            for line in first_round_warnings(
                plan,
                self.planning,
                nothing_learnt=self.state.rounds == 0,
                checkpoints_unused=unused,
                comparing=comparing(self.strategy),
            ):
                logger.warning("round %d: %s", server_round, line)
        self._write_status()
        return [*self._run.open.messages, *introductions]

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Decode the replies and let the inner strategy take its step with the result."""
        server_round += self._journal.rounds_before
        if self._run.open is None:
            return self.strategy.aggregate_train(server_round, replies)
        arrays, metrics = self._close(server_round, replies)
        self._journal.trained(self, server_round, arrays, metrics)
        return arrays, metrics

    def _close(self, server_round: int, replies: Iterable[Message]) -> tuple[ArrayRecord | None, MetricRecord]:
        current, replies = self._run.end_round(replies)
        self._shard_counts.hear(server_round, replies)
        if self.shards is not None:
            self.shards.hear([*self._run.late_replies(), *replies])
        good = {current.plan.node_ids[client] for client in current.fold.replies}
        self._run.set_aside.note(server_round, good=good, bad=current.bad - good)
        dissenting = self._run.judge(server_round, current)
        late, pending = self._run.listen(server_round, current)
        self._note_replies(bool(good) or (late is not None and bool(late.replies)))
        self.state, outcome, report = close_round(
            server_round,
            self.state,
            current,
            waited=self._run.waited,
            late=late,
            pending=pending,
            dissenting=dissenting,
            size_disagreements=self._run.untold(current),
        )
        self.history.append(report)
        if self._run.driven and not self._run.part_is_told and (line := privacy_warning(report)):
            self._run.part_is_told = True
            logger.warning("round %d: %s", server_round, line)
        self.reporting.write(report)
        self._write_status()
        new, metrics = next_arrays(
            self.strategy, server_round, current, outcome, self.state, arrayrecord_key=self.arrayrecord_key
        )
        return new, MetricRecord({**(metrics or {}), **report.metrics})

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Leave evaluation to the inner strategy, if as many nodes are there as it asks for."""
        server_round += self._journal.rounds_before
        self._evaluates = False
        if not self._enough_to_evaluate(server_round):
            return []
        messages = list(self.strategy.configure_evaluate(server_round, arrays, config, grid))
        self._evaluates = bool(messages)
        return messages

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Leave evaluation to the inner strategy, but for replies that it would fail on."""
        server_round += self._journal.rounds_before
        usable = usable_evaluations(server_round, replies, self.strategy)
        metrics = self.strategy.aggregate_evaluate(server_round, usable)
        if self._evaluates:
            self._journal.evaluated(self, server_round, metrics)
        return metrics

    def _expect_rounding(self, arrays: ArrayRecord) -> None:
        """Take clients' rounding to be as usual for such a model until they have told of theirs."""
        divided = self.planning.bit_budget is not None
        expected = self.state.rounding is not None or self.state.rounding_by_bits is not None
        if self.quantiser is None or expected or not (divided or isinstance(self.state.coherence, KnownCoherence)):
            return
        values = views(arrays)
        entries = sum(values[name].size for name in rounded_names(values))
        if divided:
            usual = (self.quantiser.with_bits(bits).usual_variance_factor(entries) for bits in range(1, MOST_BITS + 1))
            self.state = replace(self.state, rounding_by_bits=RoundingByBits((float("inf"), *usual)))
        else:
            known = RoundingEstimate(self.quantiser.usual_variance_factor(entries))
            self.state = replace(self.state, rounding=known)

    def _learn_if_passed_over(self) -> None:
        """Learn from a round of which a strategy around this one has made nothing, since nothing came."""
        if self._run.open is not None and self._run.waited is not None:
            self._close(self._run.open.server_round, ())

    def _write_status(self) -> None:
        self.reporting.write_status(lambda: run_status(self))
