"""GradientCoding: a Flower strategy that does not wait for stragglers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from fedgc.strategies.grids import DeadlineGrid
from fedgc.strategies.replies import read_reply
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg, Result, Strategy
from flwr.serverapp.strategy.strategy_utils import aggregate_metricrecords

from fedgc.decoders import DECODERS, Decoder
from fedgc.encoding import apply_update
from fedgc.errors import ReplyRejectedError
from fedgc.protocol import COEFFICIENTS, DEADLINE, RECORD, RUN_SEED, SERVER_ROUND, SHARD_IDS
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
    predicted_residual_error : float
        Expected before the round: E|decoded - full|^2 / |full|^2.
    model_residual_error : float
        The same for the arrivals that came about, under the Gram model.
    rejected : dict of int to str
        Reason for each reply that was left out, by node id.
    """

    server_round: int
    n_clients: int
    n_arrived: int
    straggle_prob: np.ndarray[tuple[int, ...], np.dtype[np.float64]]
    predicted_residual_error: float
    model_residual_error: float
    rejected: dict[int, str]


class GradientCoding(Strategy):
    """Assign overlapping shards, take what comes by the deadline, decode it, and hand it to an inner strategy.

    Wraps any Flower strategy, as Flower's differential-privacy strategies do: the inner strategy samples the nodes and
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
        "optimal" (least residual error among the unbiased rules) or "fixed" (weights settled before the round), or a
        decoder object.
    shard_examples : sequence of int, optional
        Number of examples of each shard. If not given, sizes are learnt from the replies, and a shard not seen yet
        counts as an average one.
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
    arrayrecord_key, configrecord_key, weighted_by_key : str
        Names of the records and of the weight metric, as in the inner strategy.

    Raises
    ------
    ValueError
        If an option is out of range.

    Notes
    -----
    The decoded aggregate estimates ``sum_j (N_j / N) update_j`` over all shards j with N_j examples each, which is what
    FedAvg computes when every client answers. It is unbiased over the arrivals if the straggle probabilities are right.
    A round in which nothing arrives leaves the model as it is.

    Examples
    --------
    >>> strategy = GradientCoding(FedAvg(fraction_evaluate=0.0), num_shards=40, deadline=30.0, load=2)
    >>> strategy.decoder.name
    'optimal'
    """

    def __init__(
        self,
        strategy: Strategy | None = None,
        *,
        num_shards: int,
        deadline: float,
        load: int = 2,
        decoder: str | Decoder = "optimal",
        shard_examples: Sequence[int] | None = None,
        reliability: ReliabilityPosterior | None = None,
        reassignment_gain: float = 0.2,
        first_deadline: float | None = None,
        seed: int = 0,
        arrayrecord_key: str = "arrays",
        configrecord_key: str = "config",
        weighted_by_key: str = "num-examples",
    ) -> None:
        super().__init__()
        self.strategy = strategy if strategy is not None else FedAvg()
        self.num_shards = check_integer("num_shards", num_shards, low=1)
        self.deadline = check_positive("deadline", deadline)
        self.first_deadline = None if first_deadline is None else check_positive("first_deadline", first_deadline)
        self.load = check_integer("load", load, low=1)
        if not 0.0 <= reassignment_gain <= 1.0:
            raise ValueError(f"reassignment_gain must lie in [0, 1]; got {reassignment_gain!r}")
        self.reassignment_gain = reassignment_gain
        if isinstance(decoder, str):
            decoder = DECODERS[one_of("decoder", decoder, list(DECODERS))]()
        self.decoder: Decoder = decoder
        self.seed = check_integer("seed", seed, low=0)
        self.arrayrecord_key = arrayrecord_key
        self.configrecord_key = configrecord_key
        self.weighted_by_key = weighted_by_key
        if shard_examples is None:
            sizes = np.full(self.num_shards, np.nan)
        else:
            sizes = check_vector("shard_examples", shard_examples, length=self.num_shards, low=0.0, who="shard")
        self.state = RoundState(sizes, reliability if reliability is not None else ReliabilityPosterior())
        self.history: list[RoundReport] = []
        self._current: tuple[RoundPlan, ArrayRecord, dict[int, Message]] | None = None
        self._learn = True

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
            grid=DeadlineGrid(grid, self._round_deadline),
            initial_arrays=initial_arrays,
            num_rounds=num_rounds,
            timeout=timeout,
            train_config=train_config,
            evaluate_config=evaluate_config,
            evaluate_fn=evaluate_fn,
        )

    def _round_deadline(self) -> float:
        return self.deadline if self._learn else self.first_deadline or self.deadline

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Let the inner strategy choose the nodes, then tell each its shards and coefficients."""
        inner = list(self.strategy.configure_train(server_round, arrays, config, grid))
        self._current = None
        self._learn = not (server_round == 1 and self.first_deadline not in (None, self.deadline))
        if not inner:
            return []
        by_node = {message.metadata.dst_node_id: message for message in inner}
        plan = plan_round(
            self.state,
            list(by_node),
            load=self.load,
            decoder=self.decoder,
            reassignment_gain=self.reassignment_gain,
        )
        messages: dict[int, Message] = {}
        for client, node_id in enumerate(plan.node_ids):
            source = by_node[node_id]
            content = RecordDict(dict(source.content))
            for name, record in source.content.config_records.items():
                # Flower's strategies put one config into all messages: copy it before any change can reach the others.
                content[name] = ConfigRecord(dict(record))
            content.config_records.setdefault(self.configrecord_key, ConfigRecord())[SERVER_ROUND] = server_round
            content[RECORD] = ConfigRecord(
                {
                    SHARD_IDS: plan.code.shards_of(client).tolist(),
                    COEFFICIENTS: plan.code.coefficients_of(client).tolist(),
                    RUN_SEED: self.seed,
                    DEADLINE: self._round_deadline(),
                }
            )
            # A slow node must not build up a queue of rounds that are over: what is not picked up in time expires. The
            # second round length lets a late client deliver what it has, and covers the time to send.
            messages[client] = Message(
                content,
                dst_node_id=node_id,
                message_type=source.metadata.message_type,
                ttl=2.0 * self._round_deadline(),
                group_id=str(server_round),
            )
        self._current = (plan, arrays, messages)
        return list(messages.values())

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Decode the replies and let the inner strategy take its step with the result."""
        if self._current is None:
            return self.strategy.aggregate_train(server_round, replies)
        plan, arrays, messages = self._current
        self._current = None
        global_arrays = {name: array.numpy() for name, array in arrays.items()}
        updates: dict[int, CodedUpdate] = {}
        usable: list[RecordDict] = []
        rejected: dict[int, str] = {}
        client_of = {message.metadata.message_id: client for client, message in messages.items()}
        for reply in replies:
            client = client_of.get(reply.metadata.reply_to_message_id)
            # An error reply of the network itself comes from the SuperLink's id, so the message tells who is meant.
            node_id = plan.node_ids[client] if client is not None else reply.metadata.src_node_id
            try:
                if client is None or client in updates:
                    raise ReplyRejectedError("not a first reply to a message of this round")
                assigned = plan.code.shards_of(client)
                updates[client] = read_reply(reply, global_arrays, assigned, weighted_by_key=self.weighted_by_key)
                usable.append(reply.content)
            except ReplyRejectedError as reason:
                rejected[node_id] = str(reason)
                logger.warning("round %d: node %d is left out: %s", server_round, node_id, reason)

        self.state, outcome = finish_round(self.state, plan, updates, arrays=global_arrays, learn=self._learn)
        self._report(server_round, plan, len(updates), outcome, rejected)
        if outcome.update is None:
            logger.warning("round %d: nothing arrived by the deadline, the model stays as it is", server_round)
            return None, None
        new_arrays = apply_update(global_arrays, outcome.update)
        content = RecordDict(
            {
                self.arrayrecord_key: ArrayRecord({name: Array(value) for name, value in new_arrays.items()}),
                "metrics": self._mean_metrics(usable),
            }
        )
        decoded = Message(content, reply_to=next(iter(messages.values())))
        return self.strategy.aggregate_train(server_round, [decoded])

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Leave evaluation to the inner strategy."""
        return self.strategy.configure_evaluate(server_round, arrays, config, grid)

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Leave evaluation to the inner strategy."""
        return self.strategy.aggregate_evaluate(server_round, replies)

    def _mean_metrics(self, contents: list[RecordDict]) -> MetricRecord:
        """Return the replies' metrics averaged by examples; only those that every reply has, as a plain number."""
        records = [next(iter(content.metric_records.values())) for content in contents]
        common = set.intersection(*(set(record) for record in records))
        scalars = [k for k in records[0] if k in common and not any(isinstance(record[k], list) for record in records)]
        pruned = [RecordDict({"metrics": MetricRecord({key: record[key] for key in scalars})}) for record in records]
        mean = aggregate_metricrecords(pruned, self.weighted_by_key)
        mean[self.weighted_by_key] = sum(record[self.weighted_by_key] for record in records)  # type: ignore[misc]
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
            "round %d: %d of %d clients came; residual error %.3g, %.3g expected",
            server_round,
            report.n_arrived,
            report.n_clients,
            report.model_residual_error,
            report.predicted_residual_error,
        )
