"""FedBuff: every node is always at work, and the server steps whenever its buffer is full."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from fedgc.strategies.rounds.deadline_grid import clock_of
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg, Result
from flwr.serverapp.strategy.strategy_utils import aggregate_metricrecords
from numpy.typing import NDArray

from fedgc.errors import TooFewNodesError
from fedgc.protocol import SERVER_ROUND
from fedgc.updates import Update, add_scaled, all_finite, apply_update, difference, zero_update
from fedgc.validation import check_integer, check_positive

logger = logging.getLogger("flwr.fedgc")

#: After so many times the clients' timeout without any update none is going to come in time.
_PATIENCE = 100


@dataclass(frozen=True, eq=False)
class _Sent:
    """What a node was sent: to whom, when, from which version of the model, and the arrays of that version."""

    node_id: int
    instant: float
    version: int
    arrays: dict[str, NDArray[Any]]


class FedBuff(FedAvg):
    """Buffered asynchronous aggregation: no rounds to wait for, and staleness in their place.

    Parameters
    ----------
    buffer_size : int
        Number of updates that make a step of the server, K in the paper.
    server_learning_rate : float
        Factor of the step.
    server_momentum : float
        How much of the step before is part of the next one.
    client_timeout : float, optional
        Seconds after which a node that has not answered is sent the model anew; by default it is waited for.
    **options
        As of Flower's FedAvg; fractions are not used, since all nodes are always at work.

    Notes
    -----
    A client's update is the difference of its reply from the model that it was sent, however old that is by now. With t
    steps of the server in between it counts ``1 / sqrt(1 + t)`` times. K of them are averaged, weighted by their
    examples, and added to what the momentum leaves of the steps before; the sum is added times the learning rate. Fast
    clients come more often than slow ones, and the model is drawn towards their data: nothing corrects that. What
    Flower calls a round is a step of the server.

    References
    ----------
    J. Nguyen et al., "Federated Learning with Buffered Asynchronous Aggregation", AISTATS 2022.

    Examples
    --------
    >>> FedBuff(buffer_size=4, fraction_evaluate=0.0).staleness_weight(3)
    0.5
    """

    def __init__(
        self,
        *,
        buffer_size: int = 10,
        server_learning_rate: float = 1.0,
        server_momentum: float = 0.0,
        client_timeout: float | None = None,
        **options: object,
    ) -> None:
        super().__init__(**options)  # type: ignore[arg-type]
        self.buffer_size = check_integer("buffer_size", buffer_size, low=1)
        self.server_learning_rate = check_positive("server_learning_rate", server_learning_rate)
        if not 0.0 <= server_momentum < 1.0:
            raise ValueError(f"server_momentum must be at least 0 and below 1; got {server_momentum}")
        self.server_momentum = float(server_momentum)
        self.client_timeout = math.inf if client_timeout is None else check_positive("client_timeout", client_timeout)
        self._sent: dict[str, _Sent] = {}
        self._buffer: list[tuple[float, float, Update, RecordDict]] = []
        self._velocity: Update | None = None

    @staticmethod
    def staleness_weight(steps: int) -> float:
        """Return how often an update counts that is so many steps old."""
        return float(1.0 / np.sqrt(1.0 + steps))

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
        """Keep all nodes at work until the server has made `num_rounds` steps.

        Raises
        ------
        TooFewNodesError
            If no update comes for `timeout` seconds, or for a hundred times that of clients: they are too slow for it.
        """
        clock, result, arrays = clock_of(grid), Result(arrays=initial_arrays), initial_arrays
        config = ConfigRecord() if train_config is None else train_config
        self._sent, self._buffer, self._velocity = {}, [], None
        version, last, limit = 0, clock.now(), min(timeout, _PATIENCE * self.client_timeout)
        if evaluate_fn is not None and (metrics := evaluate_fn(0, arrays)) is not None:
            result.evaluate_metrics_serverapp[0] = metrics
        self._send(grid, clock.now(), grid.get_node_ids(), version, arrays, config)
        while version < num_rounds:
            before = last
            for reply in list(grid.pull_messages(set(self._sent))):
                if self._take(reply, version):
                    last = clock.now()
                if len(self._buffer) >= self.buffer_size:
                    arrays, result.train_metrics_clientapp[version + 1] = self._step(arrays)
                    result.arrays, version = arrays, version + 1
                    if evaluate_fn is not None and (metrics := evaluate_fn(version, arrays)) is not None:
                        result.evaluate_metrics_serverapp[version] = metrics
                    if version == num_rounds:
                        return result
            # Those that have answered, that have not in time, that have come back, and that are new. What comes late
            # counts all the same, where the runtime lets a node finish what it was sent before.
            now = clock.now()
            at_work = {sent.node_id for sent in self._sent.values() if now < self._due(sent)}
            self._send(
                grid, now, [node for node in grid.get_node_ids() if node not in at_work], version, arrays, config
            )
            if now >= last + limit:
                raise TooFewNodesError(f"no update has come for {limit:g} s: every node has left, or is that slow")
            if last == before:  # also where errors have come, or nodes that fail at once would be asked without a pause
                dues = (self._due(sent) for sent in self._sent.values())
                clock.wait(min([last + limit, *(due for due in dues if due > now)]))
        return result

    def _due(self, sent: _Sent) -> float:
        return sent.instant + self.client_timeout

    def _send(  # noqa: PLR0917
        self, grid: Grid, now: float, node_ids: Iterable[int], version: int, arrays: ArrayRecord, config: ConfigRecord
    ) -> None:
        nodes = sorted(node_ids)
        if not nodes:
            return
        values = {name: array.numpy() for name, array in arrays.items()}
        told = ConfigRecord({**config, SERVER_ROUND: version + 1})
        record = RecordDict({self.arrayrecord_key: arrays, self.configrecord_key: told})
        ids = grid.push_messages([Message(record, dst_node_id=node, message_type="train") for node in nodes])
        for message_id, node in zip(ids, nodes, strict=True):
            if message_id:
                self._sent[message_id] = _Sent(node, now, version, values)

    def _take(self, reply: Message, version: int) -> bool:
        """Put a reply into the buffer, and return whether it has an update."""
        sent = self._sent.pop(reply.metadata.reply_to_message_id, None)
        if sent is None or reply.has_error():
            return False
        try:
            examples, delta = self._read(reply, sent)
        except (KeyError, TypeError, ValueError, StopIteration) as error:
            logger.warning("step %d: the reply of node %d is left out: %r", version + 1, sent.node_id, error)
            return False
        weight = self.staleness_weight(version - sent.version)
        self._buffer.append((examples, weight, delta, reply.content))
        return True

    def _read(self, reply: Message, sent: _Sent) -> tuple[float, Update]:
        """Return a reply's number of examples and update; raise one of several errors if it cannot be used."""
        record = reply.content.array_records[self.arrayrecord_key]
        given = {name: record[name].numpy() for name in sent.arrays}
        metrics = next(iter(reply.content.metric_records.values()))
        examples = check_positive("number of examples", cast(float, metrics[self.weighted_by_key]))
        for name, value in sent.arrays.items():
            if given[name].shape != value.shape:
                raise ValueError(f"array {name!r} must have shape {value.shape}; got {given[name].shape}")
        if not all_finite(given):
            raise ValueError("arrays must be finite")
        return examples, difference(given, sent.arrays)

    def _step(self, arrays: ArrayRecord) -> tuple[ArrayRecord, MetricRecord]:
        total = sum(examples for examples, _, _, _ in self._buffer) / self.server_learning_rate
        values = {name: array.numpy() for name, array in arrays.items()}
        step = zero_update(values)
        for examples, weight, delta, _ in self._buffer:
            add_scaled(step, examples * weight / total, delta)
        if self.server_momentum:
            if self._velocity is not None:
                add_scaled(step, self.server_momentum, self._velocity)
            self._velocity = step
        new = {name: Array(value) for name, value in apply_update(values, step).items()}
        metrics = aggregate_metricrecords([content for _, _, _, content in self._buffer], self.weighted_by_key)
        self._buffer.clear()
        return ArrayRecord(new), metrics
