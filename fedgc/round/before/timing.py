"""What a run has learnt of when its clients will have done how much."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedgc.completion_times import CompletionTimes, Overheads
from fedgc.completion_times.history import as_ids
from fedgc.deadline import Timing, mean_progress
from fedgc.deadline.progress import sum_on_lists

if TYPE_CHECKING:
    from fedgc.round.before.planning import Planning
    from fedgc.round.state import RoundState

#: No progress is thought less likely than this: shards whose recovery was thought impossible could not be decoded, and
#: one thought next to impossible would weigh next to everything.
_LEAST_REACH = 1e-3
#: Nor, after n rounds, than this part of 1 / (n + 2), what Laplace's rule of succession makes of n misses: a few rounds
#: cannot show that something happens once in a thousand, and if it then does its weight would throw training back.
_BELIEVED = 0.1
#: Spread of the guess before anything has been seen: clients may well be e times faster or slower.
_GUESS_SPREAD = 1.0


@dataclass(frozen=True, eq=False)
class LearntTiming:
    """Progress of the nodes of a round, as past rounds suggest; a :class:`fedgc.deadline.Timing`.

    Attributes
    ----------
    completion_times : CompletionTimes
        What past rounds have shown.
    node_ids : sequence of int
        The nodes.
    away : ndarray, shape (n_clients,), or None
        Probability not to answer at all, given what each client last did; None to take what the completion times say.
    guess : float
        Seconds per shard to start from while nothing has been seen.
    overheads : Overheads, optional
        From which follows how long before the deadline each node is told to stop working, for :meth:`reach`; without,
        nodes are taken to know.
    rounds : int
        Number of rounds that all this was learnt from; many, if not given.
    """

    completion_times: CompletionTimes
    node_ids: Sequence[int]
    away: NDArray[np.float64] | None
    guess: float
    overheads: Overheads | None = None
    rounds: int = 1000
    #: What has been seen of who is silent tells neither.
    loss_detection: ClassVar[float] = np.inf
    presence: ClassVar[None] = None

    @cached_property
    def _ids(self) -> NDArray[np.int64]:
        # Plans ask for dozens of deadlines, and to read ten thousand Python integers takes milliseconds.
        return as_ids(self.node_ids)

    @property
    def has_seen(self) -> bool:
        """Whether any completion time has been seen."""
        return bool(self.completion_times.priors)

    def tabulated(self) -> LearntTiming:
        """Return the same to be asked often, as by the search for a deadline: :meth:`CompletionTimes.tabulated`."""
        return replace(self, completion_times=self.completion_times.tabulated(self._ids)) if self.has_seen else self

    def reach(self, deadline: float, max_shards: int) -> NDArray[np.float64]:
        """Return the probability of each node to have done at least k shards by then, (n_nodes, max_shards + 1)."""
        reach = np.clip(self._reach(deadline, max_shards), self._least, 1.0)
        reach[:, 0] = 1.0
        return np.minimum.accumulate(reach, axis=1)

    def partial_reach(self, deadline: float, lengths: ArrayLike) -> NDArray[np.float64]:
        """Return the same for work lists of these lengths: who goes away while working has been seen not to answer."""
        return self.reach(deadline, int(np.max(np.asarray(lengths))))

    def mean_progress(self, deadline: float, lengths: ArrayLike) -> NDArray[np.float64]:
        """Return how many shards of its list each node is expected to have done by then, (n_nodes,).

        From chances as they were learnt: those of :meth:`reach` would add up to half a shard in no time on a list of
        fifty, and the step of shards in a row would be that much too long.
        """
        reach = self._reach(deadline, int(np.max(np.asarray(lengths))))
        return sum_on_lists(np.minimum(reach, 1.0), lengths)

    def straggle_prob(self, deadline: float, load: ArrayLike) -> NDArray[np.float64]:
        """Return the probability of each node not to have done its load by then, (n_nodes,)."""
        work = np.broadcast_to(np.asarray(load, dtype=np.float64), (len(self.node_ids),))
        present = 1.0 if self.away is None else 1.0 - self.away
        if self.has_seen:
            known = self.away is not None
            within = self.completion_times.in_time_prob(self._ids, work, deadline, given_present=known)
        else:
            within = _guess(work, self.guess, deadline)
        return np.asarray(1.0 - np.clip(present * within, self._least, 1.0 - 1e-9))

    def straggle_prob_at(self, instants: NDArray[np.float64], load: ArrayLike) -> NDArray[np.float64]:
        """Return what :meth:`straggle_prob` does for each of many deadlines, (n_instants, n_nodes)."""
        work = np.broadcast_to(np.asarray(load, dtype=np.float64), (len(self.node_ids),))
        present = 1.0 if self.away is None else 1.0 - self.away
        if self.has_seen:
            known = self.away is not None
            within = self.completion_times.in_time_prob_at(self._ids, work, instants, given_present=known)
        else:
            within = _guess(work, self.guess, instants[:, None])
        return np.asarray(1.0 - np.clip(present * within, self._least, 1.0 - 1e-9))

    def _reach(self, deadline: float, max_shards: int) -> NDArray[np.float64]:
        """Return what has been learnt of that, not kept away from zero."""
        # A forecast asks for these chances, and then for the progress that they make.
        last: tuple[tuple[float, int], NDArray[np.float64]] | None = self.__dict__.get("_last_reach")
        if last is not None and last[0] == (deadline, max_shards):
            return last[1]
        if self.has_seen:
            allowance = None if self.overheads is None else self.overheads.allowance(self.node_ids, deadline)
            reach = self.completion_times.reach(self._ids, max_shards, deadline, allowance=allowance)
            if self.away is not None:
                reach = reach * ((1.0 - self.away) / self.completion_times.presence(self._ids))[:, None]
        else:
            done = np.arange(max_shards + 1.0)
            present = np.ones(len(self.node_ids)) if self.away is None else 1.0 - self.away
            reach = np.outer(present, _guess(done, self.guess, deadline))
        self.__dict__.update(_last_reach=((deadline, max_shards), reach))
        return reach

    @property
    def _least(self) -> float:
        return max(_LEAST_REACH, _BELIEVED / (self.rounds + 2.0))


@dataclass(frozen=True, eq=False)
class SomeClients:
    """What is known of some of the clients of a :class:`fedgc.deadline.Timing`, numbered by their place in `clients`.

    Attributes
    ----------
    timing : Timing
        What is known of all.
    n_clients : int
        Their number.
    clients : ndarray of int
        Those that it is asked about.
    """

    timing: Timing
    n_clients: int
    clients: NDArray[np.intp]

    @property
    def loss_detection(self) -> float:
        """Seconds after which the network reports a client that has gone; infinite if not known."""
        return self.timing.loss_detection

    @property
    def presence(self) -> None:
        """Not passed on: plans, which use it, are of all clients."""
        return None

    def reach(self, deadline: float, max_shards: int) -> NDArray[np.float64]:
        """Return the probability of each to have done at least k shards by then."""
        return self.timing.reach(deadline, max_shards)[self.clients]

    def partial_reach(self, deadline: float, lengths: ArrayLike) -> NDArray[np.float64]:
        """Return the same for work lists of these lengths."""
        asked = np.zeros(self.n_clients, dtype=np.intp)
        asked[self.clients] = lengths
        return self.timing.partial_reach(deadline, asked)[self.clients]

    def mean_progress(self, deadline: float, lengths: ArrayLike) -> NDArray[np.float64]:
        """Return how many shards of its list each is expected to have done by then."""
        asked = np.zeros(self.n_clients, dtype=np.intp)
        asked[self.clients] = lengths
        return mean_progress(self.timing, deadline, asked)[self.clients]

    def straggle_prob(self, deadline: float, load: ArrayLike) -> NDArray[np.float64]:
        """Return the probability of each not to have done its load by then."""
        asked = np.zeros(self.n_clients)
        asked[self.clients] = load
        return self.timing.straggle_prob(deadline, asked)[self.clients]


def list_timing(state: RoundState, nodes: tuple[int, ...], planning: Planning) -> tuple[Timing, bool]:
    """Return how far the nodes will get with work lists, and whether that is more than a guess.

    While nothing is known of the times, the first deadline is taken to be about right for a mean share.
    """
    if planning.timing is not None:
        return planning.timing, True
    if planning.deadline is None:
        raise ValueError("deadline must be given for schedule 'work-list'; got None")
    guess = planning.deadline.initial / (1.5 * state.shard_examples.size / len(nodes))
    away = state.reliability.straggle_prob(nodes)
    overheads = None if planning.shared_clock else state.overheads
    learnt = LearntTiming(state.completion_times, nodes, away, guess, overheads, state.rounds).tabulated()
    return learnt, learnt.has_seen


def _guess(
    done: NDArray[np.float64], seconds_per_shard: float, deadline: float | NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return log-logistic probabilities: heavier tails than log-normal ones, since nothing at all is known."""
    return 1.0 / (1.0 + (done * seconds_per_shard / deadline) ** (1.7 / _GUESS_SPREAD))
