"""What a strategy reports of each round."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from fedgc.strategies.reporting.largest_part import largest_part
from fedgc.strategies.reporting.report_numbers import METRICS, block_of_shard, numbers_of
from fedgc.strategies.rounds.open_round import OpenRound
from numpy.typing import NDArray

from fedgc.round import LateReplies, RoundOutcome

__all__ = ["METRICS", "RoundReport"]


@dataclass(frozen=True, eq=False)
class RoundReport:
    """What happened in one round.

    Attributes
    ----------
    server_round : int
        Round number, from 1.
    node_ids : tuple of int
        Nodes that were asked, ascending; the order of all that is told by client.
    arrived : ndarray of bool, shape (n_clients,)
        Whose coded update was used.
    done : ndarray of int, shape (n_clients,)
        Shards that each had done in time.
    reply_seconds : ndarray, shape (n_clients,)
        Seconds after which each replied; NaN where nothing usable came in time or the time is not known.
    deadline : float
        Seconds that the round might last.
    seconds : float or None
        Seconds that it did last, if known.
    straggle_prob : ndarray, shape (n_clients,)
        Probability to send nothing by the deadline that the decoder assumed; on work lists, not to have done the first
        shard by then.
    coverage : ndarray, shape (n_shards,)
        How often each shard's update counts in the decoded one.
    block_of_shard : ndarray of int, shape (n_shards,)
        The block of clients that holds each shard.
    predicted_residual_error : float or None
        Expected before the round: E|decoded - full|^2 / |full|^2; None if the decoder has no closed form for it.
    model_residual_error : float
        The same for the arrivals that were observed, ``(v - 1)' G (v - 1) / 1' G 1`` with the coverage v and the Gram
        model G that was learnt before the round: what has not come cannot be measured. With a memory both errors are of
        what is decoded then, the changes since the last updates. With rounded sums both have the noise of the rounding
        in them, as clients have measured it in the round (before it, in what is expected with a coherence that is
        given), unless rows of the code overlap.
    rejected : dict of int to str
        Reason for each reply that was left out, by node id.
    load : float
        Shard copies per shard that clients were asked for.
    disagreements : tuple of (int, int, float)
        Pairs of nodes that sent different sums over the same shards, and how far apart these are, relative to their
        length: those that are furthest, on work lists, where a pair may share many sums.
    dissenting : tuple of int
        Nodes found to have sent another sum than most who hold the same shards, in this round or the one before.
    late : tuple of int
        Shards done in each reply to the round before that came after its end and until this report.
    sum_only : bool
        Whether the server had nothing but the sum of the replies. Disagreements are then not known, and both errors are
        those of the Gram model that the run began with: nothing has been learnt of the updates.
    largest_part : float or None
        The largest part of the decoded aggregate that is one client's, or one shard's: ``sum |w_r| n_r / N`` over the
        coded updates of a client, or those with the shard in them, with weights w_r, their n_r examples and N in all;
        see :func:`fedgc.strategies.reporting.largest_part.largest_part`. A client's part in Flower's plain mean of n
        clients is 1 / n. None with a memory.
    variance_factor : float or None
        Of sums that clients rounded to a few bits, the mean of ``E|Q(x) - x|^2 / |x|^2`` as they have measured it; None
        where nothing is rounded.
    """

    server_round: int
    node_ids: tuple[int, ...]
    arrived: NDArray[np.bool_]
    done: NDArray[np.intp]
    reply_seconds: NDArray[np.float64]
    deadline: float
    seconds: float | None
    straggle_prob: NDArray[np.float64]
    coverage: NDArray[np.float64]
    block_of_shard: NDArray[np.intp]
    predicted_residual_error: float | None
    model_residual_error: float
    rejected: dict[int, str]
    load: float
    disagreements: tuple[tuple[int, int, float], ...] = ()
    late: tuple[int, ...] = ()
    dissenting: tuple[int, ...] = ()
    sum_only: bool = False
    largest_part: float | None = None
    variance_factor: float | None = None

    @classmethod
    def of(
        cls,
        server_round: int,
        current: OpenRound,
        seconds: float | None,
        outcome: RoundOutcome,
        late: LateReplies | None = None,
        *,
        dissenting: Collection[int] = (),
    ) -> RoundReport:
        """Return the report of a round that has been decoded."""
        plan, replies = current.plan, current.fold.replies
        arrived = np.zeros(len(plan.node_ids), dtype=np.bool_)
        done, reply_seconds = np.zeros(arrived.size, dtype=np.intp), np.full(arrived.size, np.nan)
        for client, reply in replies.items():
            arrived[client], done[client] = bool(current.fold.rows[client]), reply.shards.size
            reply_seconds[client] = np.nan if reply.seconds is None else reply.seconds
        return cls(
            server_round=server_round,
            node_ids=plan.node_ids,
            arrived=arrived,
            done=done,
            reply_seconds=reply_seconds,
            deadline=current.deadline,
            seconds=seconds,
            straggle_prob=plan.silence_prob,
            coverage=outcome.decoding.coverage,
            block_of_shard=block_of_shard(plan),
            predicted_residual_error=outcome.predicted_residual_error,
            model_residual_error=outcome.model_residual_error,
            rejected=current.rejected,
            load=sum(task.shards.size for task in current.tasks) / plan.code.n_shards,
            disagreements=_by_pair(plan.node_ids, current.fold.copies.disagreements),
            late=() if late is None else tuple(reply.shards.size for reply in late.replies.values()),
            dissenting=tuple(sorted(dissenting)),
            sum_only=current.sum_only,
            largest_part=largest_part(current.fold, outcome.shard_examples, list(current.values)),
            variance_factor=_mean([factor for reply in replies.values() for factor in reply.variance_factors]),
        )

    @property
    def n_clients(self) -> int:
        """Number of nodes that were asked."""
        return len(self.node_ids)

    @property
    def n_arrived(self) -> int:
        """Number of nodes whose coded update was used."""
        return int(np.count_nonzero(self.arrived))

    @property
    def n_blocks(self) -> int:
        """Number of blocks: sets of clients that hold the same shards."""
        return int(np.count_nonzero(np.bincount(self.block_of_shard)))

    @property
    def blocks_recovered(self) -> int:
        """Number of blocks of which every shard counts in the decoded update."""
        return self.n_blocks - int(np.count_nonzero(np.bincount(self.block_of_shard[self.coverage == 0.0])))

    @property
    def shards_recovered(self) -> int:
        """Number of shards that count in the decoded update."""
        return int(np.count_nonzero(self.coverage))

    @property
    def shards_done(self) -> int:
        """Shard updates that were computed and came in time, each copy counted."""
        return int(self.done.sum())

    @property
    def work_seen(self) -> int:
        """Shard updates that are known to have been computed, each copy counted: those in time, and the late ones."""
        return self.shards_done + sum(self.late)

    @property
    def work_wasted(self) -> int:
        """Shard updates of these that decoding did not need: late ones, and in time all beyond one of each shard.

        Copies of a shard's update are the same, so that a second one adds nothing; but which will be the second is not
        known beforehand. Late replies are those to the round before that came until this report. With a memory they
        are not quite lost, since they refresh it. What clients computed of whom nothing came, or whose reply was left
        out, is not known and not in here.
        """
        return max(0, self.shards_done - self.shards_recovered) + sum(self.late)

    @property
    def numbers(self) -> dict[str, float | None]:
        """The report in numbers by name, in the order of :data:`METRICS`; None where one is not known."""
        return numbers_of(self)

    @property
    def metrics(self) -> dict[str, float]:
        """The report in numbers, as Flower's results, results files and TensorBoard have them.

        Each name begins with ``fedgc-``, since clients' own metrics stand beside it. What is not known is left out.

        ==================  =======================================================================================
        asked               clients that were sent their part of the round
        arrived             clients whose coded update came in time and was used
        arrived-predicted   how many were expected to by the deadline: the sum of ``1 - straggle probability``; fewer
                            come where a round ends early
        late                clients whose reply to the round before came since that round's end
        rejected            clients whose reply was left out: an error, or not what it must be
        disagreements       pairs of clients that sent different sums over the same shards
        blocks              sets of clients that hold the same shards
        blocks-recovered    blocks of which every shard counts in the decoded update
        shards-recovered    shards that count in the decoded update
        load                shard updates that clients were asked for, per shard
        shards-done         shard updates that came in time, copies included
        shards-late         shard updates in the late replies
        wasted              fraction of these two that decoding did not need, see :attr:`work_wasted`
        deadline            seconds that the round might last
        round-seconds       seconds that it lasted
        straggle-prob       mean of the clients' probabilities to send nothing by the deadline, before the round
        straggle-prob-max   that of the least reliable client
        likely-stragglers   clients that were more likely to send nothing than something
        error-predicted     residual error expected before the round
        error-observed      residual error of the arrivals that were observed, with updates as alike as in the past
        largest-part        largest part of the decoded aggregate that is one client's or one shard's; not with a memory
        variance-factor     variance of the clients' rounding over the energy of what is rounded; not without `bits`
        ==================  =======================================================================================
        """
        return {name: value for name, value in self.numbers.items() if value is not None}


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _by_pair(
    node_ids: tuple[int, ...], disagreements: Sequence[tuple[int, int, float]]
) -> tuple[tuple[int, int, float], ...]:
    of_pair: dict[frozenset[int], tuple[int, int, float]] = {}
    for one, other, apart in disagreements:
        pair = frozenset((one, other))
        if pair not in of_pair or of_pair[pair][2] < apart:
            of_pair[pair] = node_ids[one], node_ids[other], apart
    return tuple(of_pair.values())
