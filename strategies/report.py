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

    @classmethod
    def of(
        cls,
        server_round: int,
        current: OpenRound,
        seconds: float | None,
        outcome: RoundOutcome,
        rejected: dict[int, str],
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
            rejected=rejected,
        )

    def __str__(self) -> str:
        """Return one line for the log."""
        expected = self.predicted_residual_error
        return (
            f"round {self.server_round}: {self.n_arrived} of {self.n_clients} clients came; residual error "
            f"{self.model_residual_error:.3g}, {'unknown' if expected is None else f'{expected:.3g}'} expected"
        )
