"""FedAvg with over-selection: ask more nodes than are needed, and take the first that answer."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from fedgc.strategies.rounds.deadline_grid import timed
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvgM, Result

from fedgc.validation import check_positive


class OverSelection(FedAvgM):
    """FedAvg that samples `over_selection` times the nodes that it needs, and ends a round when so many have answered.

    Parameters
    ----------
    fraction_train : float
        Fraction of the nodes that a round needs. By default as many as can be over-selected: all are asked.
    over_selection : float
        How many are asked for each one that is needed, at least 1.
    **options
        As of Flower's FedAvgM.

    Raises
    ------
    ValueError
        If `over_selection` is below 1, or `fraction_train` times it above 1.

    Notes
    -----
    The usual default is 1.3. Who answers first is no random sample: where data differ between fast and slow clients,
    the mean is biased to the fast ones. The rest are cut off as in any round that ends.

    References
    ----------
    K. Bonawitz et al., "Towards Federated Learning at Scale: System Design", MLSys 2019.

    Examples
    --------
    >>> strategy = OverSelection(fraction_evaluate=0.0)
    >>> strategy.needed(13), strategy.asked(13)
    (10, 13)
    """

    def __init__(self, fraction_train: float | None = None, *, over_selection: float = 1.3, **options: object) -> None:
        self.over_selection = check_positive("over_selection", over_selection)
        if self.over_selection < 1.0:
            raise ValueError(f"over_selection must be at least 1; got {over_selection}")
        self.fraction_needed = 1.0 / self.over_selection if fraction_train is None else float(fraction_train)
        if not 0.0 < self.fraction_needed * self.over_selection <= 1.0 + 1e-9:
            raise ValueError(
                f"fraction_train must be above 0 and at most 1 / over_selection = {1.0 / self.over_selection:.3g}; "
                f"got {fraction_train}"
            )
        super().__init__(min(self.fraction_needed * self.over_selection, 1.0), **options)  # type: ignore[arg-type]
        self._n_needed = self._n_came = 0

    def needed(self, n_nodes: int) -> int:
        """Return how many answers end a round with so many nodes."""
        return max(math.floor(n_nodes * self.fraction_needed + 1e-9), self.min_train_nodes, 1)

    def asked(self, n_nodes: int) -> int:
        """Return how many of so many nodes are asked."""
        return min(max(math.ceil(self.needed(n_nodes) * self.over_selection - 1e-9), self.min_train_nodes), n_nodes)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Sample as FedAvg does, and remember how many answers the round needs."""
        n_nodes = len(list(grid.get_node_ids()))
        self._n_needed, self._n_came = min(self.needed(n_nodes), max(n_nodes, 1)), 0
        self.fraction_train = self.asked(n_nodes) / max(n_nodes, 1)
        return super().configure_train(server_round, arrays, config, grid)

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
        """Run Flower's training loop; a round ends with the answers that it needs, or after `timeout` seconds."""

        def count(reply: Message, seconds: float) -> bool:
            self._n_came += not reply.has_error()
            return False

        self.current_arrays, self.momentum_vector = None, None  # of a run before
        cut_off = timed(grid, timeout, enough=lambda: self._n_came >= self._n_needed, on_reply=count)
        return super().start(cut_off, initial_arrays, num_rounds, timeout, train_config, evaluate_config, evaluate_fn)
