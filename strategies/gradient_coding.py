"""GradientCoding: a Flower strategy that does not wait for stragglers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from fedgc.strategies.deadline_grid import DeadlineGrid
from fedgc.strategies.replies import read_reply
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg, Result, Strategy
from flwr.serverapp.strategy.strategy_utils import aggregate_metricrecords

from fedgc.decoders import DECODERS, Decoder
from fedgc.encoding import Arrays, all_finite, apply_update
from fedgc.errors import ReplyRejectedError
from fedgc.protocol import COEFFICIENTS, DEADLINE, NUM_EXAMPLES, RECORD, RUN_SEED, SERVER_ROUND, SHARD_IDS
from fedgc.reliability import ReliabilityPosterior
from fedgc.round import CodedUpdate, RoundOutcome, RoundPlan, RoundState, finish_round, plan_round
from fedgc.validation import check_integer, check_positive, check_vector, one_of

# A child of Flower's logger, so that its lines appear where the user looks for Flower's.
logger = logging.getLogger("flwr.fedgc")


@dataclass(frozen=True, eq=False)
class RoundReport:
    """What happened in one round.

    Attributes
    ----------
    server_round : int
        Round number, from 1.
    n_clients : int
        Nodes that were asked.
    n_arrived : int
        Nodes whose coded update was used.
    straggle_prob : ndarray, shape (n_clients,)
        What the decoder assumed, in order of the node ids.
    predicted_residual_error : float or None
        Expected before the round: E|decoded - full|^2 / |full|^2; None if the decoder has no closed form for it.
    model_residual_error : float
        The same for the arrivals that came about, under the Gram model.
    rejected : dict of int to str
        Reason for each reply that was left out, by node id.
    """

    server_round: int
    n_clients: int
    n_arrived: int
    straggle_prob: np.ndarray[tuple[int, ...], np.dtype[np.float64]]
    predicted_residual_error: float | None
    model_residual_error: float
    rejected: dict[int, str]


@dataclass(frozen=True, eq=False)
class _OpenRound:
    """A round between its sending and its decoding: a silent client is the plan minus the replies."""

    plan: RoundPlan
    arrays: ArrayRecord
    messages: list[Message]
    deadline: float


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
    deadline : float
        Seconds from sending a round's messages to decoding what has come.
    load : int
        Copies of each shard, that is, how many times the computation of training without stragglers is paid.
    decoder : str or Decoder
        "optimal-unbiased" (least residual error among the unbiased rules) or "fixed" (weights settled before the
        round), or a decoder object.
    shard_examples : sequence of int, optional
        Number of examples of each shard; a reply that says otherwise is left out. If not given, sizes are learnt from
        the replies, and a shard not seen yet counts as an average one.
    reliability : ReliabilityPosterior, optional
        Prior and forgetting of the straggle probabilities, or what an earlier run has learnt.
    reassignment_gain : float
        Blocks are formed anew, such that reliable clients back up unreliable ones, once that cuts the predicted
        residual error by more than this fraction; 1 never moves a shard while the same nodes take part.
    first_deadline : float, optional
        Deadline of the first round, if start-up takes long. Its arrivals say nothing about the usual deadline and do
        not enter the straggle probabilities.
    seed : int
        Seed that clients derive the randomness of a shard's update from, so that all holders compute the same.
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
        deadline: float,
        load: int = 2,
        decoder: str | Decoder = "optimal-unbiased",
        shard_examples: Sequence[int] | None = None,
        reliability: ReliabilityPosterior | None = None,
        reassignment_gain: float = 0.2,
        first_deadline: float | None = None,
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
        self.num_shards = check_integer("num_shards", num_shards, low=1)
        self.deadline = check_positive("deadline", deadline)
        self.first_deadline = None if first_deadline is None else check_positive("first_deadline", first_deadline)
        self.load = check_integer("load", load, low=1)
        if not isinstance(reassignment_gain, (int, float)) or not 0.0 <= float(reassignment_gain) <= 1.0:
            raise ValueError(f"reassignment_gain must lie in [0, 1]; got {reassignment_gain!r}")
        self.reassignment_gain = reassignment_gain
        if isinstance(decoder, str):
            decoder = DECODERS[one_of("decoder", decoder, list(DECODERS))]()
        if not isinstance(decoder, Decoder):
            raise ValueError(f"decoder must be a name or a Decoder; got {decoder!r}")
        self.decoder: Decoder = decoder
        self.seed = check_integer("seed", seed, low=0)
        self.arrayrecord_key = arrayrecord_key
        self.configrecord_key = configrecord_key
        if shard_examples is None:
            sizes = np.full(self.num_shards, np.nan)
        else:
            sizes = check_vector("shard_examples", shard_examples, length=self.num_shards, low=0.0, who="shard")
            if not sizes.any() or (sizes != np.rint(sizes)).any():
                raise ValueError(f"shard_examples must be integers, not all 0; got {list(shard_examples)}")
        self.state = RoundState(sizes, reliability if reliability is not None else ReliabilityPosterior())
        self.history: list[RoundReport] = []
        self._given_sizes = sizes
        self._open: _OpenRound | None = None

    def __repr__(self) -> str:
        """Return the strategy's name and options."""
        return f"GradientCoding({self.strategy!r}, load={self.load}, decoder={self.decoder.name!r})"

    def summary(self) -> None:
        """Log the options, then the inner strategy's."""
        logger.info("\t├──> Gradient coding settings:")
        logger.info("\t│\t├── Shards: %d, each held by %d clients", self.num_shards, self.load)
        logger.info("\t│\t├── Decoder: %s", self.decoder.name)
        logger.info("\t│\t└── Deadline: %g s (first round: %g s)", self.deadline, self.first_deadline or self.deadline)
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
        return super().start(
            grid=DeadlineGrid(grid, lambda: self._open.deadline if self._open else self.deadline),
            initial_arrays=initial_arrays,
            num_rounds=num_rounds,
            timeout=timeout,
            train_config=train_config,
            evaluate_config=evaluate_config,
            evaluate_fn=evaluate_fn,
        )

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Let the inner strategy choose the nodes, then tell each its shards and coefficients."""
        inner = {
            message.metadata.dst_node_id: message
            for message in self.strategy.configure_train(server_round, arrays, config, grid)
        }
        self._open = None
        if not inner:
            return []
        plan = plan_round(
            self.state,
            list(inner),
            load=self.load,
            decoder=self.decoder,
            reassignment_gain=self.reassignment_gain,
        )
        deadline = self.deadline
        if server_round == 1 and self.first_deadline is not None:
            deadline = self.first_deadline
        messages = [
            self._address(inner[node_id], plan, client, server_round, deadline)
            for client, node_id in enumerate(plan.node_ids)
        ]
        self._open = _OpenRound(plan, arrays, messages, deadline)
        return list(messages)

    def _address(self, source: Message, plan: RoundPlan, client: int, server_round: int, deadline: float) -> Message:
        """Return the inner strategy's message with the client's assignment added."""
        content = RecordDict(dict(source.content))
        for name, record in source.content.config_records.items():
            # Flower's strategies put one config into all messages: copy it before any change can reach the others.
            content[name] = ConfigRecord(dict(record))
        content.config_records.setdefault(self.configrecord_key, ConfigRecord())[SERVER_ROUND] = server_round
        content[RECORD] = ConfigRecord(
            {
                SHARD_IDS: plan.decoder.code.shards_of(client).tolist(),
                COEFFICIENTS: plan.decoder.code.coefficients_of(client).tolist(),
                RUN_SEED: self.seed,
                DEADLINE: deadline,
            }
        )
        return Message(
            content,
            dst_node_id=source.metadata.dst_node_id,
            message_type=source.metadata.message_type,
            # A slow node must not work off a queue of rounds that are over, so messages that it has not picked up
            # expire. The time to live counts from here, the deadline from when all are sent: twice covers the sending.
            ttl=2.0 * deadline,
            group_id=str(server_round),
        )

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Decode the replies and let the inner strategy take its step with the result."""
        if self._open is None:
            return self.strategy.aggregate_train(server_round, replies)
        current, self._open = self._open, None
        arrays = {name: array.numpy() for name, array in current.arrays.items()}
        accepted, rejected = self._read(current, replies, arrays)
        for node_id, reason in rejected.items():
            logger.warning("round %d: node %d is left out: %s", server_round, node_id, reason)

        updates = {client: update for client, (update, _) in accepted.items()}
        # Who makes another deadline than the usual says nothing about who makes the usual one.
        learn = current.deadline == self.deadline
        self.state, outcome = finish_round(self.state, current.plan, updates, arrays=arrays, learn=learn)
        self._report(server_round, current.plan, len(updates), outcome, rejected)
        if outcome.update is None:
            logger.warning("round %d: nothing arrived by the deadline, the model stays as it is", server_round)
            return None, None
        new_arrays = apply_update(arrays, outcome.update)
        if not all_finite(new_arrays):
            logger.warning("round %d: the aggregate is not finite, the model stays as it is", server_round)
            return None, None
        content = RecordDict(
            {
                self.arrayrecord_key: ArrayRecord({name: Array(value) for name, value in new_arrays.items()}),
                "metrics": self._mean_metrics([metrics for _, metrics in accepted.values()]),
            }
        )
        decoded = Message(content, reply_to=current.messages[0])
        return self.strategy.aggregate_train(server_round, [decoded])

    def _read(
        self, current: _OpenRound, replies: Iterable[Message], arrays: Arrays
    ) -> tuple[dict[int, tuple[CodedUpdate, MetricRecord]], dict[int, str]]:
        """Return what each client sent, by client index, and why other replies are left out, by node id."""
        accepted: dict[int, tuple[CodedUpdate, MetricRecord]] = {}
        rejected: dict[int, str] = {}
        client_of = {message.metadata.message_id: client for client, message in enumerate(current.messages)}
        for reply in replies:
            client = client_of.get(reply.metadata.reply_to_message_id)
            # An error reply of the network itself comes from the SuperLink's id, so the message tells who is meant.
            node_id = reply.metadata.src_node_id if client is None else current.plan.node_ids[client]
            try:
                if client is None or client in accepted:
                    raise ReplyRejectedError("not a first reply to a message of this round")
                shards = current.plan.decoder.code.shards_of(client)
                accepted[client] = read_reply(reply, arrays, shards, self._given_sizes[shards])
            except ReplyRejectedError as reason:
                rejected[node_id] = str(reason)
        return accepted, rejected

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Leave evaluation to the inner strategy."""
        return self.strategy.configure_evaluate(server_round, arrays, config, grid)

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Leave evaluation to the inner strategy."""
        return self.strategy.aggregate_evaluate(server_round, replies)

    def _mean_metrics(self, records: list[MetricRecord]) -> MetricRecord:
        """Return the replies' metrics averaged by examples; only those that every reply has, as a plain number."""
        records = [record for record in records if cast(int, record[NUM_EXAMPLES]) > 0]
        common = set.intersection(*(set(record) for record in records))
        scalars = [k for k in records[0] if k in common and not any(isinstance(record[k], list) for record in records)]
        pruned = [RecordDict({"metrics": MetricRecord({key: record[key] for key in scalars})}) for record in records]
        mean = aggregate_metricrecords(pruned, NUM_EXAMPLES)
        # The inner strategy weighs its replies, of which it gets one, by a key of its own choice.
        key = getattr(self.strategy, "weighted_by_key", NUM_EXAMPLES)
        mean[key] = sum(cast(int, record[NUM_EXAMPLES]) for record in records)
        return mean

    def _report(
        self, server_round: int, plan: RoundPlan, n_arrived: int, outcome: RoundOutcome, rejected: dict[int, str]
    ) -> None:
        report = RoundReport(
            server_round=server_round,
            n_clients=len(plan.node_ids),
            n_arrived=n_arrived,
            straggle_prob=plan.straggle_prob,
            predicted_residual_error=outcome.predicted_residual_error,
            model_residual_error=outcome.model_residual_error,
            rejected=rejected,
        )
        self.history.append(report)
        logger.info(
            "round %d: %d of %d clients came; residual error %.3g, %s expected",
            server_round,
            report.n_arrived,
            report.n_clients,
            report.model_residual_error,
            "unknown" if report.predicted_residual_error is None else f"{report.predicted_residual_error:.3g}",
        )
