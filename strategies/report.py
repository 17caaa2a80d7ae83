"""What a strategy reports of each round."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from fedgc.strategies.open_round import OpenRound

from fedgc.round import RoundOutcome


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
    deadline : float
        Seconds that the round might last.
    seconds : float or None
        Seconds that it did last, if known.
    straggle_prob : ndarray, shape (n_clients,)
        Probability to send nothing that the decoder assumed, in order of the node ids.
    coverage : ndarray, shape (n_shards,)
        How often each shard's update counts in the decoded one.
    predicted_residual_error : float or None
        Expected before the round: E|decoded - full|^2 / |full|^2; None if the decoder has no closed form for it.
    model_residual_error : float
        The same for the arrivals that came about, under the Gram model. With a memory both errors are of what is
        decoded then, the changes since the last updates.
    rejected : dict of int to str
        Reason for each reply that was left out, by node id.
    shards_done : int
        Shard copies that were computed and came.
    shards_recovered : int
        Shards that count in the decoded update.
    load : float
        Shard copies per shard that clients were asked for.
    disagreements : tuple of (int, int, float)
        Nodes that sent different sums over the same shards, and how far apart these are, relative to their length.
    sum_only : bool
        Whether the server had nothing but the sum of the replies. Disagreements are then not known, and both errors are
        those of the Gram model that the run began with: nothing has been learnt of the updates.
    """

    server_round: int
    n_clients: int
    n_arrived: int
    deadline: float
    seconds: float | None
    straggle_prob: np.ndarray[tuple[int, ...], np.dtype[np.float64]]
    coverage: np.ndarray[tuple[int, ...], np.dtype[np.float64]]
    predicted_residual_error: float | None
    model_residual_error: float
    rejected: dict[int, str]
    shards_done: int = 0
    shards_recovered: int = 0
    load: float = 0.0
    disagreements: tuple[tuple[int, int, float], ...] = ()
    sum_only: bool = False

    @classmethod
    def of(
        cls,
        server_round: int,
        current: OpenRound,
        seconds: float | None,
        outcome: RoundOutcome,
    ) -> RoundReport:
        """Return the report of a round that has been decoded."""
        plan = current.plan
        return cls(
            server_round=server_round,
            n_clients=len(plan.node_ids),
            n_arrived=outcome.n_arrived,
            deadline=current.deadline,
            seconds=seconds,
            straggle_prob=plan.straggle_prob,
            coverage=outcome.decoding.coverage,
            predicted_residual_error=outcome.predicted_residual_error,
            model_residual_error=outcome.model_residual_error,
            rejected=current.rejected,
            shards_done=sum(reply.shards.size for reply in current.fold.replies.values()),
            shards_recovered=int(np.count_nonzero(outcome.decoding.coverage)),
            disagreements=tuple(
                (plan.node_ids[one], plan.node_ids[other], apart) for one, other, apart in current.fold.disagreements
            ),
            sum_only=current.sum_only,
            load=sum(task.shards.size for task in current.tasks) / plan.code.n_shards,
        )

    @property
    def metrics(self) -> dict[str, float]:
        """The report in numbers, as Flower's results and logs have them.

        ``fedgc-asked``, ``-arrived`` and ``-rejected`` count clients, ``-disagreements`` pairs of them that sent
        different sums over the same shards, ``-shards-recovered`` shards; ``-load`` is shard
        copies asked for per shard, ``-wasted`` the fraction of the copies that came which were not needed for the
        shards that did; ``-deadline`` and ``-seconds`` tell what the round might and did take; ``-straggle-prob`` is
        the mean probability that the decoder assumed, ``-error-predicted`` and ``-error`` the residual error.
        """
        numbers: dict[str, float] = {
            "asked": self.n_clients,
            "arrived": self.n_arrived,
            "rejected": len(self.rejected),
            "shards-recovered": self.shards_recovered,
            "load": self.load,
            "wasted": max(0.0, 1.0 - self.shards_recovered / self.shards_done) if self.shards_done else 0.0,
            "deadline": self.deadline,
            "straggle-prob": float(self.straggle_prob.mean()),
            "error": self.model_residual_error,
        }
        if not self.sum_only:
            numbers["disagreements"] = len(self.disagreements)
        if self.seconds is not None:
            numbers["seconds"] = self.seconds
        if self.predicted_residual_error is not None:
            numbers["error-predicted"] = self.predicted_residual_error
        return {f"fedgc-{name}": value for name, value in numbers.items()}

    def __str__(self) -> str:
        """Return one line for the log."""
        expected = self.predicted_residual_error
        return (
            f"round {self.server_round}: {self.n_arrived} of {self.n_clients} clients came; residual error "
            f"{self.model_residual_error:.3g}, {'unknown' if expected is None else f'{expected:.3g}'} expected"
            f"{' (of the model; only the sum was seen)' if self.sum_only else ''}"
        )
