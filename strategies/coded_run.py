"""One run of rounds: the grid that they go through, the round that is open, and the one before it."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Collection, Iterable

import numpy as np
from fedgc.strategies.nodes.newcomers import Newcomers
from fedgc.strategies.nodes.partitions import Partitions
from fedgc.strategies.nodes.set_aside import SetAside
from fedgc.strategies.reporting.status import Phase, Waiting
from fedgc.strategies.reporting.tally import RunTally
from fedgc.strategies.rounds.deadline_grid import DeadlineGrid
from fedgc.strategies.rounds.open_round import OpenRound
from fedgc.strategies.rounds.past_round import PastRound
from fedgc.strategies.rounds.size_disagreements import SizeDisagreement
from flwr.app import Message
from flwr.serverapp import Grid

from fedgc.round import LateReplies

logger = logging.getLogger("flwr.fedgc")

#: Rounds in a row in which a node dissents before it is set aside.
_DISSENTS = 2


class CodedRun:
    """What is going on while rounds do.

    Parameters
    ----------
    grid : Grid, optional
        The runtime's grid. Without one, another loop drives the strategy on a grid of its own: rounds end when it says
        so, and nothing is known of times.
    deadline : float
        Seconds for training messages that belong to no round.
    early_end : bool
        Whether a round ends before its deadline once nothing more could be gained.
    only_work : bool
        Whether replies are left as they are, and only those with work in them handed on; see
        :meth:`fedgc.strategies.GradientCoding.deadline_grid`.
    on_end : callable
        Called once when the run is over, with whether it ended without an error.
    before : CodedRun, optional
        The run before, whose nodes may still be at work. What it has sent is not listened for any more.

    Attributes
    ----------
    grid : DeadlineGrid or None
        The grid that keeps deadlines.
    open : OpenRound or None
        The round that has been sent and not decoded.
    past : PastRound or None
        The one before, to which replies may still come.
    set_aside : SetAside
        Nodes that are not asked for some rounds of this run, as what they send cannot be used.
    dissent : SetAside
        Nodes that are not asked, as they send other sums than most who hold the same shards.
    newcomers : Newcomers
        Nodes that have joined since it began.
    partitions : Partitions
        Which node is which partition.
    introduced : bool
        Whether nodes have been asked to introduce themselves.
    unplannable_since : float or None
        Instant since which the coming round cannot be planned with those that are there.
    waiting : Waiting or None
        How many nodes are waited for, if too few are there.
    silent_rounds : int
        Rounds in a row of which nothing of use has come.
    silent_since : float or None
        Instant at which the first of them began.
    heard_late : set of int
        Nodes that have answered the round before the last one since its end.
    unasked : set of (int, str)
        Nodes of which the log has said something, and what, so that it does once.
    phase : str
        Where the run is but for that, see :data:`fedgc.strategies.reporting.status.Phase`.
    rounds : int or None
        Rounds that the run is to have; None where another loop decides.
    first_report : int
        Place of the run's first report among the strategy's.
    rounds_before : int
        Rounds of the run that were over when this process took it up.
    began : float or None
        Instant at which this process sent its first round.
    tally : RunTally
        What the run's reports add up to, as far as anybody has asked.
    """

    def __init__(
        self,
        grid: Grid | None = None,
        *,
        deadline: float = 0.0,
        early_end: bool = False,
        only_work: bool = False,
        on_end: Callable[[bool], None] = lambda complete: None,
        before: CodedRun | None = None,
    ) -> None:
        self._on_end: Callable[[bool], None] | None = on_end
        self.open: OpenRound | None = None
        self.past: PastRound | None = None
        self.set_aside = SetAside()
        self.dissent = SetAside(after=_DISSENTS)
        self.newcomers = Newcomers()
        self.partitions = Partitions()
        self.introduced = False
        self.unplannable_since: float | None = None
        self.waiting: Waiting | None = None
        self.silent_rounds = 0
        self.silent_since: float | None = None
        self.heard_late: set[int] = set()
        self.unasked: set[tuple[int, str]] = set()
        self.phase: Phase = "waiting"
        self.rounds: int | None = None
        self.first_report = self.rounds_before = 0
        self.began: float | None = None
        self.tally = RunTally()
        self._told: set[tuple[int, tuple[int, int]]] = set()
        #: Whether another strategy's loop drives the rounds, and whether the log has said how large a client's part is.
        self.driven, self.part_is_told = grid is None or only_work, False
        self.grid: DeadlineGrid | None = None
        if grid is not None:
            self.grid = DeadlineGrid(
                grid,
                lambda: self.open.deadline if self.open else deadline,
                enough=lambda: not only_work and early_end and self.open is not None and self.open.settled(),
                on_reply=(lambda reply, seconds: False) if only_work else self._take,
                on_late=self._take_late,
                on_send=lambda message, held: self.open is not None and self.open.may_still_send(message, held),
                on_close=self.end,
                only_work=only_work,
                # A strategy around this one reads replies before they are checked here, and most end the run.
                usable=lambda reply: self.open is not None and self.open.can_read(reply),
            )
            self.grid.takes_over(None if before is None else before.grid)

    def end(self, complete: bool) -> None:
        """End the run, if it has not ended yet; complete is one that ends without an error."""
        on_end, self._on_end = self._on_end, None
        if on_end is not None:
            self.phase = "ended" if complete else "stopped"
            on_end(complete)

    def resumed(self, rounds_before: int, rounds: int) -> None:
        """Take note of how many rounds were over before this process, and how many there are to be in all."""
        self.rounds_before, self.rounds = rounds_before, rounds

    def begin_rounds(self) -> bool:
        """Take note that a round has been sent, and return whether it is the first one of this process."""
        if self.phase != "waiting":
            return False
        self.phase = "training"
        self.began = None if self.grid is None else self.grid.clock.now()
        return True

    @property
    def waited(self) -> float | None:
        """Seconds that the round lasted, None if it has not ended or another grid than the run's own was used."""
        return None if self.grid is None or self.grid.collected is None else self.grid.collected.waited

    def forget(self) -> None:
        """Forget the open round and what came of it, so that it is not taken for the next one's."""
        self.open = None
        if self.grid is not None:
            self.grid.forget()

    def end_round(self, replies: Iterable[Message]) -> tuple[OpenRound, list[Message]]:
        """Return the open round, with all replies taken in, as over; and these with what was not handed on of them.

        Raises
        ------
        ValueError
            If no round is open.
        """
        if self.open is None:
            raise ValueError("a round must be open to be ended; got none")
        current, self.open = self.open, None
        replies = [*replies, *(self.grid.kept_back if self.grid is not None else ())]
        replies = [reply for reply in replies if not self.newcomers.is_from(reply)]
        return current.with_all(replies, self.grid.seconds() if self.grid is not None else {}), replies

    def secret(self, seed: int, server_round: int) -> int:
        """Return the seed of a round's entries by which copies are compared.

        In virtual time, where clients are the user's own, it depends on the run's seed, so that a run can be repeated.
        Elsewhere it must be none that they are told, or can guess.
        """
        if self.grid is not None and not self.grid.one_at_a_time:
            return int(np.random.SeedSequence([seed, server_round]).generate_state(1)[0])
        return secrets.randbits(64)

    def judge(self, server_round: int, current: OpenRound) -> set[int]:
        """Return the nodes found to dissent from most who hold the same shards, in a round that is over or before it.

        Copies that come late are compared too: a round that ends early has often just one of each.
        """
        confirmed: set[int] = set()
        dissenting: set[int] = set()
        rounds = [(current.plan, None if current.sum_only else current.fold.copies)]
        if self.past is not None:
            rounds.append((self.past.round.plan, self.past.copies))
        for plan, copies in rounds:
            if copies is not None:
                verdict = copies.verdict()
                confirmed |= {plan.node_ids[client] for client in verdict.confirmed}
                dissenting |= {plan.node_ids[client] for client in verdict.dissenting}
        self.dissent.note(server_round, good=confirmed - dissenting, bad=dissenting)
        return dissenting

    def untold(self, current: OpenRound) -> list[SizeDisagreement]:
        """Return who has said different sizes of a shard, but pairs of nodes that have before in this run."""
        new = [one for one in current.sizes.disagreements if (one.shard, one.nodes) not in self._told]
        self._told.update((one.shard, one.nodes) for one in new)
        return new

    def late_replies(self) -> list[Message]:
        """Return what has come for the round before."""
        return [] if self.grid is None else [reply for reply, _ in self.grid.late]

    def listen(self, server_round: int, current: OpenRound) -> tuple[LateReplies | None, Collection[int]]:
        """Return what was heard of the round before, and the clients of this one that are listened to from now on."""
        past, self.past = self.past, None
        self.heard_late = set() if past is None else {past.round.plan.node_ids[client] for client in past.answered}
        if self.grid is None or self.grid.collected is None:
            return None, ()
        late = None
        if past is not None:
            late = past.heard(self.grid.clock.now())
            current.sizes.hear_late(past.round.sizes)
            for node_id, reason in past.rejected.items():
                logger.debug("round %d: node %d has nothing late from before: %s", server_round, node_id, reason)
        self.past = PastRound.of(current, self.grid.collected)
        self.newcomers.sent(self.grid.collected.sent, self.grid.clock.now())
        self.grid.listen_for([*self.past.silent, *self.newcomers.pending])
        return late, [*self.past.silent.values(), *self.past.held_back()]

    def _take(self, reply: Message, seconds: float) -> bool:
        """Fold a reply into the open round, and return whether there is one."""
        if self.newcomers.take(reply, seconds):
            return True
        if self.open is not None:
            self.open.take(reply, seconds)
        return self.open is not None

    def _take_late(self, reply: Message, instant: float) -> bool:
        """Take note of what has come for the round before, and return whether there is one."""
        if self.newcomers.take_late(reply, instant):
            return True
        if self.past is not None:
            self.past.take(reply, instant)
        return self.past is not None
