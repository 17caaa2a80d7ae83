"""GradientCoding: a Flower strategy that does not wait for stragglers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace

import numpy as np
from fedgc.strategies.arrays import in_the_types_of, moved_record
from fedgc.strategies.deadline_grid import DeadlineGrid, replies_at_once
from fedgc.strategies.inner_step import inner_step
from fedgc.strategies.metrics import mean_metrics
from fedgc.strategies.open_round import OpenRound
from fedgc.strategies.past_round import PastRound
from fedgc.strategies.report import RoundReport
from fedgc.strategies.reporting import Reporting, RoundReporter
from fedgc.strategies.secure_round import SecureRound
from fedgc.strategies.secure_sum import SecureSum, as_secure_sum
from fedgc.strategies.set_aside import SetAside
from fedgc.strategies.shard_push import PushedShards
from fedgc.strategies.summary import summary_lines
from fedgc.strategies.tasks import ClientTask
from fedgc.strategies.warm_up import START_TIMEOUT, NodeFacts, by_partition, warm_up
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg, Result, Strategy

from fedgc.assignment import AssignmentConstraints
from fedgc.control_variates import UpdateMemory
from fedgc.deadline import DeadlineRule, FixedDeadline, Timing
from fedgc.decoders import DECODERS, CappedDecoder, Decoder
from fedgc.gram import CoherenceEstimate
from fedgc.memory import MemoryStore
from fedgc.protocol import DEADLINE, NUM_EXAMPLES, RUN_SEED, SERVER_ROUND
from fedgc.reliability import ReliabilityPosterior
from fedgc.round import LateReplies, Planning, RoundState, finish_round, plan_round
from fedgc.round.sizes import known_or_mean
from fedgc.updates import average_statistics
from fedgc.validation import check_integer, check_positive, check_vector, one_of

# A child of Flower's logger, so that its lines appear where the user looks for Flower's.
logger = logging.getLogger("flwr.fedgc")


class GradientCoding(Strategy):
    """Assign overlapping shards, take what comes by the deadline, decode it, and hand it to an inner strategy.

    Wraps a Flower strategy, as Flower's differential-privacy strategies do: the inner strategy samples the nodes and
    fills the config, this one adds the assignment to each message, and gives the decoded aggregate to the inner
    strategy as if one client had sent it. The ClientApp's train function must be decorated with
    :func:`fedgc.clients.gradient_coded`.

    Parameters
    ----------
    strategy : Strategy, optional
        The inner strategy; FedAvg by default.
    num_shards : int
        Number of data shards. Every client must be able to load any of them.
    deadline : float or DeadlineRule
        Seconds from sending a round's messages to decoding what has come, or a rule from :mod:`fedgc.deadline` that
        chooses them anew as clients become known.
    load : int
        Copies of each shard: how many clients hold it.
    schedule : str
        "full": every holder computes all its shards and then replies, so that the load is also how many times the
        computation of training without stragglers is paid. "work-list": every client works down an ordered list until
        the deadline, its own share first and then what others hold too, so that backup work fills idle time.
    sums : str
        What a client sends of its work list: one sum per "shard", per "share", or for the "whole": from the least
        residual error to the fewest bytes.
    redraw : bool, optional
        Whether the shards of a block change places in its work lists every round, so that none is always last and
        seldom done: see :func:`fedgc.codes.redraw_places`. If not given, they do unless fixed places are predicted to
        have less residual error, as where shards differ much in size and their updates point the same way.
    early_end : bool
        Whether a round ends before its deadline once nothing more could be gained.
    decoder : str or Decoder
        "optimal-unbiased" (least residual error among the unbiased rules) or "fixed" (weights settled before the
        round), or a decoder object.
    max_weight : float, optional
        Largest weight of a coded update; larger ones are cut off, see :class:`fedgc.decoders.CappedDecoder`. By default
        none are. Meant for rarely seen shards without a backup, and together with `memory`: in
        ``experiments/planning/memory.py --tau 1.1`` (one holder per shard) a cap of 8 takes the rounds to the far
        target from 654 to 339 with a memory, and from 607 to 776 without one, since it then leaves a bias. Without a
        predicted residual error, which a cut-off rule has not, blocks stay as they were first formed.
    memory : bool or MemoryStore
        Whether the server remembers each block's or shard's last update and decodes only what has changed since, so
        that stragglers cost less and less as training converges; it takes a copy of the model for each block
        of the full schedule, and for each shard that is recovered by itself. Off by default, since it gains nothing
        clear with the default decoder: 353 rounds to the far target without it and 360 with it for pairs in
        ``experiments/planning/memory.py`` (tau 1.5; 440 and 388 for tau 1.1). Recommended with biased decoders
        (least squares: 685 and 406; never and 336) and with `max_weight`. A
        :class:`fedgc.memory.MemoryStore` says where these are kept: in half precision, in files.
    shard_examples : sequence of int, optional
        Number of examples of each shard; a reply that says otherwise is left out. If not given, sizes are learnt from
        the replies, and a shard not seen yet counts as an average one.
    reliability : ReliabilityPosterior, optional
        Prior and forgetting of the straggle probabilities, or what an earlier run has learnt.
    reassignment_gain : float
        Blocks are formed anew, such that reliable clients back up unreliable ones, once that cuts the predicted
        residual error by more than this fraction; 1 never moves a shard while the same nodes take part.
    fetch_seconds : float, optional
        Seconds in which a client fetches a shard, for work lists: these then change only if moving the shards pays for
        itself over the rounds that are left, in place of `reassignment_gain`.
    first_deadline : float, optional
        Deadline of the first round, if start-up takes long. Its arrivals and times say nothing about the usual rounds
        and are not learnt from.
    start_timeout : float, optional
        Seconds in which nodes may start before the first round, each by answering a message without work: it loads what
        a client needs, and tells the server the nodes' overheads and partitions, see :mod:`fedgc.strategies.warm_up`.
        Over once all have answered; 0 to begin at once. By default two minutes, and 0 in the embedded runtime, where
        nothing has to start.
    timing : Timing, optional
        What is known of the clients' completion times, in place of what is learnt: a fleet, in simulations. Clients are
        in the order of their partitions if these were told at the start, else of their node ids.
    coherence : CoherenceEstimate, optional
        How far updates point the same way, to start from; :class:`fedgc.gram.KnownCoherence` is not learnt.
    constraints : AssignmentConstraints, optional
        What clients can and may hold, in the same order; for work lists.
    shards : PushedShards, optional
        The shards' data, if clients have it from the server: each is sent what it lacks of its part and keeps it. The
        train function then needs a ``store``; see :func:`fedgc.clients.gradient_coded`.
    reporters : sequence of RoundReporter
        Where each round's report goes, beside the log: see :mod:`fedgc.strategies.reporting`.
    secure_sum : bool or SecureSum
        Whether the server uses only the sum of what arrives and who sent it, see
        :class:`fedgc.strategies.SecureSum`. Needs a decoder with settled weights ("fixed", say) and
        `shard_examples`. Neither coherence is learnt then nor copies compared, and clients' metrics are not sent.
    seed : int
        Seed that clients derive the randomness of a shard's update from, so that all holders compute the same, and of
        the places that shards change to.
    arrayrecord_key, configrecord_key : str
        Names of the records, as in the inner strategy.

    Raises
    ------
    ValueError
        If an option is out of range.

    Notes
    -----
    The decoded aggregate estimates ``sum_j (N_j / N) update_j`` over all shards j with N_j examples each, which is what
    FedAvg computes when every client answers. It is unbiased over the arrivals if the straggle probabilities are right
    and the sizes of all shards are known: while sizes are still being learnt, the total that the sum is divided by
    depends on who came, which leaves a bias of a few percent until every shard has been seen once.
    A round in which nothing arrives leaves the model as it is. Inner strategies that compare clients with one another
    (Krum, Bulyan, medians, trimmed means) have nothing to compare in the one decoded reply that they get.

    Examples
    --------
    >>> strategy = GradientCoding(FedAvg(fraction_evaluate=0.0), num_shards=40, deadline=30.0, load=2)
    >>> strategy.decoder.name
    'optimal-unbiased'
    """

    def __init__(
        self,
        strategy: Strategy | None = None,
        *,
        num_shards: int,
        deadline: float | DeadlineRule,
        load: int = 2,
        schedule: str = "full",
        sums: str = "shard",
        redraw: bool | None = None,
        early_end: bool = True,
        decoder: str | Decoder = "optimal-unbiased",
        max_weight: float | None = None,
        memory: bool | MemoryStore = False,
        shard_examples: Sequence[int] | None = None,
        reliability: ReliabilityPosterior | None = None,
        reassignment_gain: float = 0.2,
        fetch_seconds: float | None = None,
        first_deadline: float | None = None,
        start_timeout: float | None = None,
        timing: Timing | None = None,
        coherence: CoherenceEstimate | None = None,
        constraints: AssignmentConstraints | None = None,
        shards: PushedShards | None = None,
        reporters: Sequence[RoundReporter] = (),
        secure_sum: bool | SecureSum = False,
        seed: int = 0,
        arrayrecord_key: str = "arrays",
        configrecord_key: str = "config",
    ) -> None:
        super().__init__()
        self.strategy = strategy if strategy is not None else FedAvg()
        if not isinstance(self.strategy, Strategy):
            raise ValueError(f"strategy must be a Flower Strategy; got {strategy!r}")
        if not isinstance(reliability, ReliabilityPosterior | None):
            raise ValueError(f"reliability must be a ReliabilityPosterior; got {reliability!r}")
        if not isinstance(memory, bool | MemoryStore):
            raise ValueError(f"memory must be True, False or a MemoryStore; got {memory!r:.80}")
        self.num_shards = check_integer("num_shards", num_shards, low=1)
        self.deadline = deadline if isinstance(deadline, DeadlineRule) else FixedDeadline(deadline)
        self.first_deadline = None if first_deadline is None else check_positive("first_deadline", first_deadline)
        if start_timeout is not None:
            check_vector("start_timeout", [start_timeout], length=1, low=0.0)
        self.start_timeout = start_timeout
        self.nodes: dict[int, NodeFacts] = {}
        if isinstance(decoder, str):
            decoder = DECODERS[one_of("decoder", decoder, list(DECODERS))]()
        if not isinstance(decoder, Decoder):
            raise ValueError(f"decoder must be a name or a Decoder; got {decoder!r}")
        if max_weight is not None:
            decoder = CappedDecoder(decoder, check_positive("max_weight", max_weight))
        self.planning = Planning(
            load=load,
            decoder=decoder,
            schedule=schedule,
            sums=sums,
            deadline=self.deadline,
            reassignment_gain=reassignment_gain,
            fetch_seconds=fetch_seconds,
            redraw=redraw,
            seed=check_integer("seed", seed, low=0),
            timing=timing,
            constraints=constraints,
        )
        if not isinstance(shards, PushedShards | None):
            raise ValueError(f"shards must be PushedShards; got {shards!r:.80}")
        if shards is not None:
            shards.check(self.num_shards)
        self.shards = shards
        self.reporting = Reporting(reporters)
        self.set_aside = SetAside()
        self.early_end = bool(early_end)
        self.seed = seed
        self.arrayrecord_key = arrayrecord_key
        self.configrecord_key = configrecord_key
        if shard_examples is None:
            sizes = np.full(self.num_shards, np.nan)
        else:
            sizes = check_vector("shard_examples", shard_examples, length=self.num_shards, low=0.0, who="shard")
            if not sizes.any() or (sizes != np.rint(sizes)).any():
                raise ValueError(f"shard_examples must be integers, not all 0; got {list(shard_examples)}")
        store = memory if isinstance(memory, MemoryStore) else MemoryStore()
        self.state = RoundState(
            sizes,
            reliability or ReliabilityPosterior(),
            coherence if coherence is not None else CoherenceEstimate(),
            memory=UpdateMemory.empty(self.num_shards, store) if memory else None,
        )
        self.secure_sum = as_secure_sum(secure_sum, self.planning, memory=bool(memory), sizes=sizes)
        self.history: list[RoundReport] = []
        self._given_sizes = sizes
        self._open: OpenRound | None = None
        self._past: PastRound | None = None
        self._grid: DeadlineGrid | None = None

    @property
    def decoder(self) -> Decoder:
        """The rule for the decoding weights."""
        return self.planning.decoder

    def __repr__(self) -> str:
        """Return the strategy's name and options."""
        return f"GradientCoding({self.strategy!r}, load={self.planning.load}, decoder={self.decoder.name!r})"

    def summary(self) -> None:
        """Log the options and what a first round would look like, then the inner strategy's options."""
        nodes = [] if self._grid is None else list(self._grid.get_node_ids())
        for line in summary_lines(self.planning, self.state, nodes, self.first_deadline):
            logger.info("%s", line)
        self.strategy.summary()

    def start(  # noqa: PLR0917  (Flower's signature)
        self,
        grid: Grid,
        initial_arrays: ArrayRecord,
        num_rounds: int = 3,
        timeout: float = 3600,
        train_config: ConfigRecord | None = None,
        evaluate_config: ConfigRecord | None = None,
        evaluate_fn: Callable[[int, ArrayRecord], MetricRecord | None] | None = None,
    ) -> Result:
        """Run Flower's training loop with this strategy's deadline for training; `timeout` limits evaluation only."""
        self.planning = replace(self.planning, rounds=self.state.rounds + num_rounds)
        self._grid = self._keep_deadlines(grid)
        if self._grid.one_at_a_time:
            self._grid.at_once = replies_at_once(initial_arrays)
        self._warm_up(initial_arrays)
        with self.reporting.run(self.history):
            return super().start(
                grid=self._grid,
                initial_arrays=initial_arrays,
                num_rounds=num_rounds,
                timeout=timeout,
                train_config=train_config,
                evaluate_config=evaluate_config,
                evaluate_fn=evaluate_fn,
            )

    def deadline_grid(self, grid: Grid, initial_arrays: ArrayRecord | None = None) -> Grid:
        """Return a grid that keeps this strategy's deadlines, to start a strategy around this one with.

        Flower's differential-privacy strategies, say. Their ``start`` would otherwise wait as long as its `timeout`
        says and let this strategy learn nothing of the clients' times; they pass over a round in which any client
        reports an error, and divide by the length of an update, which is zero where no shard was done: they get
        neither. Replies are decoded together, since a strategy around this one may change them first, so that rounds
        do not end early and the server needs memory for all. If the initial arrays are given, nodes are warmed up first
        as :meth:`start` does.

        Examples
        --------
        >>> from flwr.serverapp.strategy import DifferentialPrivacyServerSideFixedClipping
        >>> coding = GradientCoding(num_shards=40, deadline=30.0)
        >>> private = DifferentialPrivacyServerSideFixedClipping(coding, 0.1, 1.0, num_sampled_clients=20)
        >>> def main(grid, context):
        ...     arrays = ArrayRecord()
        ...     private.start(coding.deadline_grid(grid, arrays), arrays, num_rounds=3)
        """
        self._grid = self._keep_deadlines(grid, only_work=True)
        if initial_arrays is not None:
            self._warm_up(initial_arrays)
        return self._grid

    def _keep_deadlines(self, grid: Grid, *, only_work: bool = False) -> DeadlineGrid:
        """Return a grid for a run that begins; what is sent with only work in it is not folded as it comes."""
        self._past = None  # what an earlier run sent is not listened for on this grid
        made = DeadlineGrid(
            grid,
            lambda: self._open.deadline if self._open else self.deadline.initial,
            enough=lambda: not only_work and self.early_end and self._open is not None and self._open.settled(),
            on_reply=(lambda reply, seconds: False) if only_work else self._take,
            on_late=self._take_late,
            on_send=lambda message, held: self._open is not None and self._open.may_still_send(message, held),
            only_work=only_work,
        )
        made.takes_over(self._grid)
        self.set_aside = SetAside()  # it counts the rounds of a run
        return made

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Let the inner strategy choose the nodes, then tell each its shards and coefficients."""
        inner = {
            message.metadata.dst_node_id: message
            for message in self.strategy.configure_train(server_round, arrays, config, grid)
        }
        if self._open is not None and self._grid is not None and self._grid.collected is not None:
            # A strategy around this one has passed over the last round, in which nothing came: that is to be learnt.
            self.aggregate_train(server_round - 1, ())
        self._open = None
        if self._grid is not None:
            # What an earlier round collected must not be taken for this one's, should another loop drive it.
            self._grid.forget()
        if not inner:
            return []
        for node_id in self.set_aside.among(inner, server_round):
            logger.warning("round %d: node %d is not asked: its last replies could not be used", server_round, node_id)
            del inner[node_id]
        known = self.planning.timing is not None or self.planning.constraints is not None
        if known and self.planning.nodes is None:
            self.planning = replace(self.planning, nodes=by_partition(self.nodes, [*{*grid.get_node_ids(), *inner}]))
        plan = plan_round(self.state, list(inner), self.planning)
        deadline = plan.deadline if plan.deadline is not None else self.deadline.initial
        if server_round == 1 and self.first_deadline is not None:
            deadline = self.first_deadline
        tasks = (
            [ClientTask.of(plan.decoder.code, client) for client in range(len(plan.node_ids))]
            if self.secure_sum is None
            else self.secure_sum.tasks(plan, float(self._given_sizes.sum()))
        )
        told = {SERVER_ROUND: server_round, RUN_SEED: self.seed, DEADLINE: deadline}
        # Of a known fleet it is known when each client has to stop.
        known_times = self.planning.timing is not None
        allowance = [0.0] * len(tasks) if known_times else self.state.overheads.allowance(plan.node_ids, deadline)
        messages = [
            task.message(inner[node_id], told, self.configrecord_key, allowance=float(left))
            for node_id, task, left in zip(plan.node_ids, tasks, allowance, strict=True)
        ]
        if self.shards is not None:
            self.shards.attach(messages)
        self._open = OpenRound(plan, tasks, arrays, messages, deadline, self._given_sizes, self.state)
        if self.secure_sum is not None:
            self._open = SecureRound(**vars(self._open), secure_sum=self.secure_sum, server_round=server_round)
        return list(messages)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Decode the replies and let the inner strategy take its step with the result."""
        if self._open is None:
            return self.strategy.aggregate_train(server_round, replies)
        current, self._open = self._open, None
        replies = [*replies, *(self._grid.kept_back if self._grid is not None else ())]
        if self.shards is not None:
            self.shards.hear([*(reply for reply, _ in (self._grid.late if self._grid is not None else ())), *replies])
        current = current.with_all(replies, self._grid.seconds() if self._grid is not None else {})
        arrays = current.values
        for node_id, reason in current.rejected.items():
            logger.warning("round %d: node %d is left out: %s", server_round, node_id, reason)

        good = {current.plan.node_ids[client] for client in current.fold.replies}
        self.set_aside.note(server_round, good=good, bad=current.bad - good)
        late, pending = self._listen(server_round, current)
        # Who makes another deadline than the usual says nothing about who makes the usual one.
        learn = current.deadline == current.plan.deadline
        self.state, outcome = finish_round(
            self.state,
            current.plan,
            current.fold,
            arrays=arrays,
            learn=learn,
            waited=self._waited(),
            pending=pending,
            late=late,
        )
        report = RoundReport.of(server_round, current, self._waited(), outcome, late)
        self.history.append(report)
        self.reporting.write(report)
        for one, other, apart in report.disagreements:
            logger.warning(
                "round %d: nodes %d and %d should have sent the same sum and are %.3g of it apart: "
                'does the randomness of the train function come from config["shard-seed"]?',
                server_round, one, other, apart,
            )  # fmt: skip
        if outcome.update is None:
            logger.warning("round %d: %s, the model stays as it is", server_round, current.why_no_update)
            return None, MetricRecord({**report.metrics})
        update = outcome.update
        if self.state.memory is None:
            sizes = known_or_mean(self.state.shard_examples)
            update = average_statistics(update, float(outcome.decoding.coverage @ sizes) / float(sizes.sum()))
        moved = moved_record(arrays, update)
        if moved is None:
            logger.warning("round %d: the aggregate is not finite, the model stays as it is", server_round)
            return None, MetricRecord({**report.metrics})
        content = RecordDict(
            {
                self.arrayrecord_key: moved,
                "metrics": mean_metrics(list(current.metrics.values()), self._weighted_by),
            }
        )
        decoded = Message(content, reply_to=current.messages[0])
        new, metrics = inner_step(self.strategy, server_round, decoded)
        metrics = MetricRecord({**(metrics or {}), **report.metrics})
        return None if new is None else in_the_types_of(arrays, new), metrics

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Leave evaluation to the inner strategy."""
        return self.strategy.configure_evaluate(server_round, arrays, config, grid)

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Leave evaluation to the inner strategy."""
        return self.strategy.aggregate_evaluate(server_round, replies)

    def _warm_up(self, arrays: ArrayRecord) -> None:
        """Let the nodes start and introduce themselves."""
        assert self._grid is not None
        timeout = self.start_timeout
        if timeout is None:
            timeout = START_TIMEOUT if self._grid.one_at_a_time else 0.0
        if timeout == 0.0:
            return
        self.nodes = warm_up(
            self._grid,
            arrays,
            n_nodes=int(getattr(self.strategy, "min_available_nodes", 1)),
            timeout=timeout,
            arrayrecord_key=self.arrayrecord_key,
            configrecord_key=self.configrecord_key,
        )
        seen = {node: facts.overhead for node, facts in self.nodes.items()}
        if seen and min(seen.values()) >= self.deadline.initial:
            logger.warning(
                "start: no node can answer within the deadline of %g s, since even without work it takes them %.3g s",
                self.deadline.initial,
                min(seen.values()),
            )
        self.state = replace(self.state, overheads=self.state.overheads.update(seen))

    def _take(self, reply: Message, seconds: float) -> bool:
        """Fold a reply into the open round, and return whether there is one."""
        if self._open is not None:
            self._open.take(reply, seconds)
        return self._open is not None

    def _take_late(self, reply: Message, instant: float) -> bool:
        """Take note of what has come for the round before, and return whether there is one."""
        if self._past is not None:
            self._past.take(reply, instant)
        return self._past is not None

    def _listen(self, server_round: int, current: OpenRound) -> tuple[LateReplies | None, Collection[int]]:
        """Return what was heard of the round before, and the clients of this one that are listened to from now on."""
        past, self._past = self._past, None
        if self._grid is None or self._grid.collected is None:
            return None, ()
        late = None
        if past is not None:
            late = past.heard(self._grid.clock.now())
            for node_id, reason in past.rejected.items():
                logger.debug("round %d: node %d has nothing late from before: %s", server_round, node_id, reason)
        self._past = PastRound.of(current, self._grid.collected)
        self._grid.listen_for(self._past.silent)
        return late, [*self._past.silent.values(), *self._past.held_back()]

    @property
    def _weighted_by(self) -> str:
        """The metric by which the inner strategy weighs its replies, of which it gets one."""
        return str(getattr(self.strategy, "weighted_by_key", NUM_EXAMPLES))

    def _waited(self) -> float | None:
        """Return the seconds that the round lasted, None if another grid than this strategy's own was used."""
        return self._grid.collected.waited if self._grid is not None and self._grid.collected is not None else None
