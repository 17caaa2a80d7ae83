"""The choices behind a plan: schedule, redundancy, decoder, deadline."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fedgc.assignment import (
    SCHEDULES,
    SUMS,
    Assignment,
    AssignmentConstraints,
    InfeasibleAssignmentError,
    assign,
)
from fedgc.deadline import DeadlineRule, Timing
from fedgc.decoders import Decoder
from fedgc.round.before.failure_domains import FailureDomains
from fedgc.round.before.loads import check_load
from fedgc.round.before.option_checks import (
    check_bit_budget,
    check_failure_domains,
    check_in_a_row,
    check_order,
    check_partial_work,
)
from fedgc.round.before.timing import SomeClients
from fedgc.schemes import BuildCode
from fedgc.validation import check_integer, check_vector, one_of


@dataclass(frozen=True)
class Planning:
    """How rounds are planned.

    Parameters
    ----------
    load : int or "auto"
        Copies of each shard. With fewer nodes than that, all of them form one block; with so many that there would be
        more blocks than shards, blocks get more members. "auto", for work lists: two while nothing is known, and
        then as many of :data:`fedgc.round.before.loads.LOADS` as are predicted to reach the target soonest.
    decoder : Decoder
        The rule for the decoding weights.
    schedule : str
        "full" or "work-list".
    sums : str
        "shard", "share" or "whole": what a client sends of its work list.
    deadline : DeadlineRule, optional
        How long rounds last. Without it, every client's outcomes of the past are all that is known.
    reassignment_gain : float
        While the same nodes take part, blocks stay as they are, since new ones mean that clients must fetch other
        shards, unless new ones cut the predicted residual error by more than this fraction, or save as much of the
        predicted time to target by shorter rounds; 1 keeps them for ever. New work lists must also cut the predicted
        time to target, by more than 1 %, and may do so by more than this fraction instead: see
        :func:`fedgc.round.before.choose_lists.better_lists`.
    constraints : AssignmentConstraints, optional
        Limits of the clients, in the order of `nodes`. They hold on both schedules; the blocks of the full
        one are then chosen by :func:`fedgc.assignment.assign` too, and clients that no block has room for have no part.
    failure_domains : FailureDomains, optional
        Which clients go down together, in the order of `nodes`: for whole blocks and the optimal decoder, see
        :func:`fedgc.round.before.failure_domains.arrivals_with_outages`.
    fetch_seconds : float, optional
        Seconds in which a client fetches one shard; all fetch at once. For work lists: shards then move only if that
        pays for itself over the rounds that are left, in place of `reassignment_gain`. When nodes come and go and it is
        not given, a shard is taken to be fetched as fast as it is computed.
    rounds : int
        Rounds that the run is planned to take.
    nodes : tuple of (int or None), optional
        The node ids that `timing`, `constraints` and `failure_domains` are about, one for each client that these are
        stated for, None for one that is away; by default those of each round, ascending. Nodes may then leave; if one
        takes part that is not among them, times are learnt, limits are not known, and it is in no domain.
    redraw : bool or None
        Whether the shards of a block change places in its work lists every round, so that none is always last. None for
        what is predicted to have less residual error, which is fixed places only where shards of a block differ much
        and their updates point the same way.
    seed : int
        Seed of these places.
    timing : Timing, optional
        What is known of the clients, in the order of `nodes`, in place of what is learnt: a fleet, for
        simulations. Blocks of the full schedule then are sized by speed.
    code : callable, optional
        Another code than blocks formed for the fleet: made from straggle probabilities, load and generator, with
        as many columns as nodes, each for a run of shards; see :data:`fedgc.schemes.CODES`. The generator is the same
        in each round, so that shards stay where they are while the same nodes take part.
    order : str
        Of work lists: "least-error", the order of the least predicted error, in which backups work from the far ends
        of each other's lists; or "worst-case", in which the most work that can be done while some shard is still
        missing is least, whoever is slow (:func:`fedgc.assignment.worst_case_lists`).
    early_end : bool
        Whether rounds end before the deadline once nothing more could be gained: what work lists are chosen by.
    in_a_row : bool
        Whether clients train on from shard to shard of their work lists, without going back to the global model, and
        the decoded mean is multiplied by how many shards they are expected to do in the mean
        (:attr:`RoundPlan.step`), or before anything is known have done: longer rounds then make longer steps. Shards
        then change places every round.
    shared_clock : bool
        Whether clients know the deadline as an instant and reply by then, as in virtual time, where they go by the
        server's clock; otherwise they are told how long to work, by what has been learnt of their overheads.
    bit_budget : int, optional
        Bits per entry, over all clients of a round, that are divided among them, for whole blocks
        and the decoders "optimal-unbiased" and "fixed": see :mod:`fedgc.round.before.bit_budget`.

    Raises
    ------
    ValueError
        If a parameter is out of range.
    """

    load: int | Literal["auto"]
    decoder: Decoder
    schedule: str = "full"
    sums: str = "shard"
    deadline: DeadlineRule | None = None
    reassignment_gain: float = 0.2
    constraints: AssignmentConstraints | None = None
    failure_domains: FailureDomains | None = None
    fetch_seconds: float | None = None
    rounds: int = 100
    nodes: tuple[int | None, ...] | None = None
    redraw: bool | None = None
    seed: int = 0
    timing: Timing | None = None
    code: BuildCode | None = None
    early_end: bool = True
    order: str = "least-error"
    in_a_row: bool = False
    shared_clock: bool = False
    bit_budget: int | None = None

    def __post_init__(self) -> None:
        """Check the options."""
        check_load(self.load, self.schedule)
        one_of("schedule", self.schedule, SCHEDULES)
        one_of("sums", self.sums, SUMS)
        check_in_a_row(
            self.in_a_row,
            schedule=self.schedule,
            sums=self.sums,
            redraw=self.redraw,
            given_code=self.code is not None,
        )
        check_order(self.order, schedule=self.schedule, sums=self.sums, given_code=self.code is not None)
        if not isinstance(self.decoder, Decoder):
            raise ValueError(f"decoder must be a Decoder; got {self.decoder!r}")
        check_partial_work(self.decoder, schedule=self.schedule, sums=self.sums)
        if self.deadline is not None and not isinstance(self.deadline, DeadlineRule):
            raise ValueError(f"deadline must be a DeadlineRule; got {self.deadline!r}")
        if self.code is not None and self.constraints is not None:
            raise ValueError("constraints must be left out for a code that says itself who holds what; got some")
        if self.failure_domains is not None:
            check_failure_domains(self.decoder, schedule=self.schedule, given_code=self.code is not None)
        if self.bit_budget is not None:
            check_bit_budget(
                self.bit_budget,
                self.decoder,
                schedule=self.schedule,
                given_code=self.code is not None,
                domains=self.failure_domains is not None,
            )
        if self.schedule == "work-list" and self.deadline is None:
            raise ValueError("deadline must be given for schedule 'work-list'; got None")
        if self.fetch_seconds is not None:
            check_vector("fetch_seconds", [self.fetch_seconds], length=1, low=0.0)
        check_integer("rounds", self.rounds, low=0)
        check_integer("seed", self.seed, low=0)
        if not isinstance(self.redraw, bool | None):
            raise ValueError(f"redraw must be True, False or None; got {self.redraw!r}")
        gain = self.reassignment_gain
        if not isinstance(gain, (int, float)) or not 0.0 <= float(gain) <= 1.0:
            raise ValueError(f"reassignment_gain must lie in [0, 1]; got {gain!r}")


def planning_for(planning: Planning, nodes: tuple[int, ...]) -> Planning:
    """Return how a round with these nodes is planned: what is known of all, cut down to those that are there."""
    everyone = planning.nodes
    if everyone is None or nodes == everyone:
        domains = planning.failure_domains
        if domains is not None and domains.of_client.size != len(nodes):
            raise ValueError(f"failure_domains must be of the {len(nodes)} nodes; got {domains.of_client.size}")
        return planning
    place = {node: index for index, node in enumerate(everyone) if node is not None}
    if planning.failure_domains is not None:
        planning = replace(planning, failure_domains=planning.failure_domains.for_nodes(everyone, nodes))
    if not all(node in place for node in nodes):
        return replace(planning, timing=None, constraints=None)
    here = np.array([place[node] for node in nodes], dtype=np.intp)
    return replace(
        planning,
        timing=None if planning.timing is None else SomeClients(planning.timing, len(everyone), here),
        constraints=None if planning.constraints is None else planning.constraints.for_clients(here),
    )


def assign_those_here(
    reach: NDArray[np.float64],
    n_shards: int,
    copies: int | tuple[int, int],
    planning: Planning,
    nodes: tuple[int, ...],
) -> Assignment:
    """Return a new assignment to the nodes that are there.

    Parameters
    ----------
    reach : ndarray, shape (n_nodes, max_shards + 1)
        See :func:`fedgc.assignment.assign`.
    n_shards : int
        Number of shards.
    copies : int or (int, int)
        Holders of each shard, or the fewest and the most. Where limits do not allow as many while some of the nodes
        that they were stated for are away, there may be fewer.
    planning : Planning
        How the round is planned.
    nodes : tuple of int
        The nodes.

    Raises
    ------
    InfeasibleAssignmentError
        If limits cannot be met, with all nodes there or with a single holder.
    """

    def with_holders(holders: int | tuple[int, int]) -> Assignment:
        limits, schedule = planning.constraints, planning.schedule
        return assign(reach, n_shards, holders=holders, schedule=schedule, constraints=limits, rng=0)

    try:
        return with_holders(copies)
    except InfeasibleAssignmentError:
        least, most = copies if isinstance(copies, tuple) else (copies, copies)
        if least == 1 or planning.nodes is None or len(nodes) >= len(planning.nodes):
            raise
        return with_holders((1, most))
