"""The journal of a run: what it has come to, written down after every round, and gone on from after a restart."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from fedgc.strategies.resuming.inner_state import inner_to_tree
from fedgc.strategies.resuming.run_state import restore_run, run_to_tree
from flwr.app import ArrayRecord, MetricRecord
from flwr.serverapp.strategy import Result

from fedgc.checkpoint import CheckpointFolder, Tree
from fedgc.errors import CheckpointError

if TYPE_CHECKING:
    from fedgc.strategies.coded_strategy import CodedStrategy

logger = logging.getLogger("flwr.fedgc")

Evaluate = Callable[[int, ArrayRecord], MetricRecord | None]
_METRICS = ("train_metrics_clientapp", "evaluate_metrics_clientapp", "evaluate_metrics_serverapp")


class Journal:
    """Keeps a run's results and checkpoints.

    Flower's loop counts rounds from 1 and keeps its results to itself until it ends. A resumed run is a further loop
    over the rounds that are left, so that here rounds get their numbers in the whole run, and results are kept too.

    Parameters
    ----------
    folder : CheckpointFolder, optional
        Where checkpoints are written; without one there are none.
    resume : bool
        Whether to go on from what is in the folder.

    Attributes
    ----------
    rounds_before : int
        Rounds of the run that were before this process.
    result : Result
        What Flower's loop would return, for the whole run so far; without arrays as long as no round has had any.

    Notes
    -----
    A checkpoint is written once a round is decoded, and again once it is evaluated: a process that is killed loses the
    round in flight, or that round's evaluation, which is then made up for.
    """

    def __init__(self, folder: CheckpointFolder | None = None, *, resume: bool = False) -> None:
        self._folder = folder
        self._resume = resume
        self.rounds_before = 0
        self.result = Result()
        self._arrays = ArrayRecord()
        self._evaluated = {"clients": True, "server": True}
        self._made_with: dict[str, Tree] = {}

    def begin(self, strategy: CodedStrategy, initial: ArrayRecord) -> ArrayRecord:
        """Return the arrays to begin or go on with; the strategy is where the run was then.

        Raises
        ------
        CheckpointError
            If there are checkpoints, and they are not to be gone on from or cannot be used.
        """
        self._arrays = initial
        if self._folder is None:
            return initial
        self._made_with = inner_to_tree(strategy.strategy)
        found = self._folder.newest()
        if found is None:
            return initial
        server_round, tree = found
        if not self._resume:
            raise CheckpointError(
                f"{self._folder.folder}: holds checkpoints up to round {server_round}: "
                "pass resume=True to go on from there, or name an empty folder"
            )
        try:
            self._arrays = restore_run(strategy, tree["run"], initial)
            for name in _METRICS:
                numbered = {int(number): MetricRecord(metrics) for number, metrics in tree["metrics"][name].items()}
                getattr(self.result, name).update(numbered)
            self._evaluated = dict(tree["evaluated"])
            if tree["stepped"]:
                self.result.arrays = self._arrays
        except (CheckpointError, KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{self._folder.folder}, round {server_round}: {error}") from error
        self.rounds_before = server_round
        logger.info("Resumed after round %d; Flower counts the rounds that follow from 1", server_round)
        return self._arrays

    @property
    def writes(self) -> bool:
        """Whether checkpoints are written."""
        return self._folder is not None

    @property
    def clients_must_evaluate(self) -> bool:
        """Whether the run was interrupted before the clients had evaluated its last round."""
        return not self._evaluated["clients"]

    def trained(
        self, strategy: CodedStrategy, server_round: int, arrays: ArrayRecord | None, metrics: MetricRecord
    ) -> None:
        """Take note of a round that has been decoded; without arrays the model stays as it was."""
        if arrays is not None:
            self._arrays = self.result.arrays = arrays
        self.result.train_metrics_clientapp[server_round] = metrics
        self._evaluated = {"clients": False, "server": False}
        self._write(strategy, server_round)

    def evaluated(self, strategy: CodedStrategy, server_round: int, metrics: MetricRecord | None) -> None:
        """Take note of what the clients have made of a round's model."""
        if metrics is not None:
            self.result.evaluate_metrics_clientapp[server_round] = metrics
        self._evaluated["clients"] = True
        self._write(strategy, server_round)

    def noting(self, strategy: CodedStrategy, evaluate: Evaluate | None) -> Evaluate | None:
        """Return the server's evaluation as Flower's loop is to call it: with our numbers, and noted down."""
        if evaluate is None:
            return None

        def noted(flower_round: int, arrays: ArrayRecord) -> MetricRecord | None:
            server_round = flower_round + self.rounds_before
            known = self.result.evaluate_metrics_serverapp
            if flower_round == 0 and self.rounds_before > 0 and self._evaluated["server"]:
                return known.get(server_round)
            metrics = evaluate(server_round, arrays)
            if metrics is not None:
                known[server_round] = metrics
            self._evaluated["server"] = True
            if server_round > 0:
                self._write(strategy, server_round)
            return metrics

        return noted

    def _write(self, strategy: CodedStrategy, server_round: int) -> None:
        if self._folder is None:
            return
        metrics = {
            name: {number: dict(record) for number, record in getattr(self.result, name).items()} for name in _METRICS
        }
        tree = {
            "run": run_to_tree(strategy, self._arrays, self._made_with),
            "metrics": metrics,
            "evaluated": self._evaluated,
            "stepped": self.result.arrays is self._arrays,
        }
        self._folder.write(server_round, tree)
