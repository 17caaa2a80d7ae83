"""FedProx with partial work: clients reply by the deadline with what they have done by then."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import cast

from fedgc.strategies.rounds.deadline_grid import timed
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvgM, Result

from fedgc.protocol import BUDGET, DEADLINE, RECORD


class PartialFedProx(FedAvgM):
    """FedProx whose clients stop at the deadline and reply with the part of their work that is done.

    Parameters
    ----------
    proximal_mu : float
        Weight of the proximal term, which clients find in their config as ``"proximal-mu"``.
    travel_seconds : float
        Seconds of each round that are kept for messages on their way: clients work until the deadline less these. By
        default none, as suits virtual time, where a reply is there when the work on it ends; give some elsewhere.
    **options
        As of Flower's FedAvgM, whose step of the server has a learning rate and a momentum.

    Notes
    -----
    Flower's FedProx sends the weight of the proximal term; the other half of the paper, partial work in place of
    dropping stragglers, is left to the apps. Here the deadline, which is the timeout that ``start`` is given, goes to
    the clients as well. Apps made with :func:`fedgc.clients.gradient_coded` work on their own part of the shards until
    then, and other apps find it as ``content["fedgc"]["budget"]``. Replies are averaged by their ``num-examples``;
    those without any are left out.

    References
    ----------
    T. Li et al., "Federated Optimization in Heterogeneous Networks", MLSys 2020.

    Examples
    --------
    >>> PartialFedProx(proximal_mu=0.1, fraction_evaluate=0.0).proximal_mu
    0.1
    """

    def __init__(self, *, proximal_mu: float = 0.0, travel_seconds: float = 0.0, **options: object) -> None:
        super().__init__(**options)  # type: ignore[arg-type]
        if not 0.0 <= proximal_mu < float("inf"):
            raise ValueError(f"proximal_mu must be finite and at least 0; got {proximal_mu}")
        if not 0.0 <= travel_seconds < float("inf"):
            raise ValueError(f"travel_seconds must be finite and at least 0; got {travel_seconds}")
        self.proximal_mu, self.travel_seconds = float(proximal_mu), float(travel_seconds)
        self._deadline = float("inf")

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Configure a round as FedAvg does, with the weight of the proximal term and the deadline."""
        config["proximal-mu"] = self.proximal_mu
        budget = max(0.0, self._deadline - self.travel_seconds)
        for message in super().configure_train(server_round, arrays, config, grid):
            message.content[RECORD] = ConfigRecord({DEADLINE: self._deadline, BUDGET: budget})
            yield message

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Average the replies of those who have done something."""
        return super().aggregate_train(server_round, [reply for reply in replies if self._has_work(reply)])

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
        """Run Flower's training loop; `timeout` is the deadline of each round, in seconds."""
        self._deadline = float(timeout)
        self.current_arrays, self.momentum_vector = None, None  # of a run before
        grid = timed(grid, timeout)
        return super().start(grid, initial_arrays, num_rounds, timeout, train_config, evaluate_config, evaluate_fn)

    def _has_work(self, reply: Message) -> bool:
        if reply.has_error():
            return True
        metrics = next(iter(reply.content.metric_records.values()), MetricRecord())
        return float(cast(float, metrics.get(self.weighted_by_key, 1.0))) > 0.0
