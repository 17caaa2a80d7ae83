"""The journal of a run: what it has come to, written down after every round, and gone on from after a restart."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from fedgc.strategies.resuming.inner_state import changed, inner_to_tree, kinds
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
    round in flight, or that round's evaluation, which is then made up for. One that cannot be written (the disk is
    full) does not end training, which may have gone on for days: each failure is an error in the log.
    """

    def __init__(self, folder: CheckpointFolder | None = None, *, resume: bool = False) -> None:
        self._folder = folder
        self._resume = resume
        self.rounds_before = 0
        self.result = Result()
        self._arrays = ArrayRecord()
        self._evaluated = {"clients": True, "server": True}
        self._made_with: dict[str, Tree] = {}
        self._kinds = ""
        self._unsaved: set[str] = set()
        self._saved = 0

    def held(self) -> AbstractContextManager[None]:
        """Return a block in which no other run has the folder; see :meth:`fedgc.checkpoint.CheckpointFolder.held`."""
        return nullcontext() if self._folder is None else self._folder.held()

    def begin(self, strategy: CodedStrategy, initial: ArrayRecord) -> ArrayRecord:
        """Return the arrays to begin or go on with; the strategy is where the run was then.

        Raises
        ------
        CheckpointError
            If there are checkpoints, and they are not to be gone on from or none can be used.

        Notes
        -----
        The newest checkpoint that is whole and fits (same model, same kind of inner strategy, ...) is used. One that is
        passed over for an older one is named in the log with the reason, and kept under another name: it may be what
        somebody looks for. If none fits, the folder is most likely another run's, and the run ends before anything is
        sent.
        """
        self._arrays = initial
        if self._folder is None:
            return initial
        self._made_with, _ = inner_to_tree(strategy.strategy)
        self._kinds = kinds(strategy.strategy)
        rounds = self._folder.rounds
        if rounds and not self._resume:
            raise CheckpointError(
                f"{self._folder.folder}: holds checkpoints up to round {rounds[-1]}: "
                "pass resume=True to go on from there, or name an empty folder"
            )
        found = self._folder.newest(lambda server_round, tree: self._go_on(strategy, initial, server_round, tree))
        if found is None:
            return initial
        self.rounds_before = self._saved = found[0]
        self._folder.put_aside(after=self.rounds_before)
        logger.info("Resumed after round %d; Flower counts the rounds that follow from 1", self.rounds_before)
        return self._arrays

    def _go_on(self, strategy: CodedStrategy, initial: ArrayRecord, server_round: int, tree: Tree) -> None:
        """Go on from a checkpoint, or raise CheckpointError with nothing changed."""
        try:
            if tree["server_round"] != server_round:
                raise CheckpointError(f"must be of round {server_round}, as its name says; got {tree['server_round']}")
            numbered = {
                name: {int(number): MetricRecord(metrics) for number, metrics in tree["metrics"][name].items()}
                for name in _METRICS
            }
            evaluated, stepped = dict(tree["evaluated"]), bool(tree["stepped"])
            arrays = restore_run(strategy, tree["run"], initial)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise CheckpointError(f"a checkpoint must hold what was written; got {error!r:.200}") from error
        for name, metrics in numbered.items():
            getattr(self.result, name).update(metrics)
        self._arrays, self._evaluated = arrays, evaluated
        if stepped:
            self.result.arrays = arrays

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
            "server_round": server_round,
            "run": run_to_tree(strategy, self._arrays, self._inner(strategy)),
            "metrics": metrics,
            "evaluated": self._evaluated,
            "stepped": self.result.arrays is self._arrays,
        }
        try:
            self._folder.write(server_round, tree)
        except CheckpointError as error:
            again = f"after round {self._saved}" if self._saved else "anew"
            logger.error(
                "round %d: %s; training goes on, and a run that is resumed would begin %s", server_round, error, again
            )
        else:
            self._saved = server_round

    def _inner(self, strategy: CodedStrategy) -> Tree:
        saved, unsaved = inner_to_tree(strategy.strategy)
        if new := {path: kind for path, kind in unsaved.items() if path not in self._unsaved}:
            self._unsaved |= new.keys()
            logger.warning(
                "the inner strategy's %s cannot be saved: a resumed run begins with what its constructor makes of it",
                ", ".join(f"{path} ({kind})" for path, kind in new.items()),
            )
        return {"kinds": self._kinds, "attributes": changed(saved, self._made_with)}
