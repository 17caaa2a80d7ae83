"""Choose work lists by the predicted time to target: how long rounds take counts, and not only what they miss.

Rounds end once all is recovered. By a generous deadline a few clients can do everything, and the lists that miss least
by then are long ones of few clients: they save an error that hardly was one, in rounds that take several times as long.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedgc.assignment import Assignment, InfeasibleAssignmentError, in_worst_case_order, longest_list, with_backups
from fedgc.codes import Code
from fedgc.deadline import RoundForecast, Timing, cover_time, time_to_target
from fedgc.decoders import AUTO, CalibratedDecoder
from fedgc.round.before.foresee import foresee_round, ranked_by, sensitivity_of
from fedgc.round.before.loads import other_loads
from fedgc.round.before.option_checks import ORDERS
from fedgc.round.before.planning import Planning, assign_those_here
from fedgc.round.sizes import shard_gram
from fedgc.round.state import RoundState

#: Times to target closer than this are a draw, for which no shard moves; as in :mod:`fedgc.planning.choice`.
_DRAW = 0.01
#: Where rounds take more than this part of the deadline, lists for an earlier end are not looked for.
_EARLY = 0.9
#: The earliest end that is looked for, as a part of the deadline, and how far it must be below another to be tried too.
_EARLIEST, _APART = 1e-3, 0.5


class Given(NamedTuple):
    """What lists are chosen for.

    Attributes
    ----------
    state : RoundState
        What past rounds left.
    nodes : tuple of int
        The nodes that take part, ascending.
    copies : int
        Holders of each shard that are asked for, or if that is left open, that there are.
    planning : Planning
        How rounds are planned.
    timing : Timing
        What is known of the nodes.
    known : bool
        Whether that is more than a guess.
    deadline : float
        Seconds.
    """

    state: RoundState
    nodes: tuple[int, ...]
    copies: int
    planning: Planning
    timing: Timing
    known: bool
    deadline: float

    @property
    def n_shards(self) -> int:
        """Number of shards."""
        return self.state.shard_examples.size

    @property
    def rounds_left(self) -> int:
        """Rounds of the run that are to come."""
        return max(self.planning.rounds - self.state.rounds, 0)

    def reach(self, seconds: float) -> NDArray[np.float64]:
        """Return the probability of each node to have done at least k shards by then, (n_nodes, longest + 1)."""
        return self.timing.reach(seconds, longest_list(self.n_shards, len(self.nodes), self.copies))

    def seconds_for_all_copies(self) -> float:
        """Return by when the nodes are expected to do as many shards as there are copies asked for, or the deadline."""
        return cover_time(self.timing, self.n_shards * self.copies, _EARLIEST * self.deadline, self.deadline)


class Lists(NamedTuple):
    """Work lists, and what their rounds are predicted to be like.

    Attributes
    ----------
    assignment : Assignment
        The lists.
    code : Code
        Their code, of shards that change places unless that is not wanted.
    active : ndarray of int, shape (code.n_clients,)
        The nodes that have a list.
    forecast : RoundForecast
        Of rounds with the deadline and whatever ends them before.
    time : float
        Predicted time to target.
    decoder : CalibratedDecoder or None
        The planned decoder for them, if it was calibrated for the forecast.
    """

    assignment: Assignment
    code: Code
    active: NDArray[np.intp]
    forecast: RoundForecast
    time: float
    decoder: CalibratedDecoder | None


def foresee(given: Given, assignment: Assignment) -> Lists:
    """Return lists with the forecast of their rounds at the deadline."""
    planning, rule = given.planning, given.planning.deadline
    assignment = in_order(given, assignment)
    code, active = assignment.code(segments=planning.sums, redraw=planning.redraw is not False)
    state = given.state
    gram = shard_gram(state.coherence, state.shard_examples, code, state.variance_factor)
    decoder = ranked_by(planning.decoder)
    ahead, calibrated = foresee_round(
        state, given.timing, code, decoder, gram, given.deadline, clients=active, early_end=planning.early_end
    )
    sensitivity = sensitivity_of(given.state, code)
    time = time_to_target(ahead) if rule is None else rule.time(ahead, sensitivity)
    return Lists(assignment, code, active, ahead, time, calibrated if decoder is planning.decoder else None)


def in_order(given: Given, assignment: Assignment) -> Assignment:
    """Return lists in the order that is asked for."""
    if given.planning.order == ORDERS[0]:
        return assignment
    reach = given.timing.reach(given.deadline, int(np.diff(assignment.first).max()))
    return in_worst_case_order(assignment, reach, rng=np.random.default_rng(0))


def with_everyone(given: Given, found: Assignment, reach: NDArray[np.float64]) -> Assignment:
    """Return lists with those whom they leave out as backups, unless without redundancy or with limits of their own.

    A backup cannot make a round longer where the decoder ends rounds once every block has been recovered: it is one
    more who may recover its block. Where weights are settled before, rounds end once everyone has replied, and those
    who are left out of lists for a known fleet then stay out if that is predicted to be sooner. A run that learns asks
    everyone all the same: who is never asked cannot show that it has come back.
    """
    learns = given.planning.timing is None
    # Without redundancy a client that is left out has to stay out, or there would be some.
    if given.planning.constraints is not None or (given.copies == 1 and not learns):
        return found
    everyone = with_backups(found, reach)
    if learns or everyone is found or not given.planning.decoder.weights_settled:
        return everyone
    return soonest([foresee(given, found), foresee(given, everyone)]).assignment


def first_lists(given: Given) -> Lists:
    """Return new lists: of those that miss least by the deadline and by earlier ends, those soonest at the target.

    While nothing is known of the nodes' times no end can be foreseen: lists are then those for the deadline.
    """
    by_deadline = _found(given, given.deadline)
    if not given.known:
        return by_deadline
    ends = earlier_ends(given, by_deadline)
    found = [by_deadline, *found_for(given, ends)]
    return soonest([*found, *_with_other_loads(given, [given.deadline, *ends], soonest(found).time)])


def better_lists(given: Given, present: Assignment) -> Lists:
    """Return lists to go on with: new ones where that is predicted to pay, else the present ones.

    New lists have to cut the predicted time to target, and by more than a draw; and either that or the predicted
    residual error by more than ``planning.reassignment_gain``. They are looked for by the deadline, unless the present
    ones miss next to nothing by then, and by earlier ends of the round.
    """
    now, gain = foresee(given, present), given.planning.reassignment_gain
    if not given.known or gain == 1.0:
        return now
    ends = [given.deadline] if now.forecast.residual_error > _DRAW else []
    ends += earlier_ends(given, now)
    found = [now, *found_for(given, ends)]
    best = soonest([*found, *_with_other_loads(given, ends, soonest(found).time)])
    less_error = best.forecast.residual_error < (1.0 - gain) * now.forecast.residual_error
    sooner = best.time < (1.0 - gain) * now.time
    return best if best.time < (1.0 - _DRAW) * now.time and (less_error or sooner) else now


def earlier_ends(given: Given, like: Lists) -> list[float]:
    """Return when rounds may end before the deadline: as those of these lists, or once all copies could be done."""
    end = like.forecast.round_time
    if end > _EARLY * given.deadline:
        return []
    all_copies = given.seconds_for_all_copies()
    # To assign takes most of the time that planning takes, so of two ends that are much alike one is tried.
    return [end, all_copies] if all_copies < _APART * end else [end]


def found_for(given: Given, ends: Sequence[float]) -> list[Lists]:
    """Return new lists of least residual error by each of these ends, without those for which none are found."""
    found = []
    for seconds in ends:
        try:
            found.append(_found(given, seconds))
        except InfeasibleAssignmentError:
            # Limits that cannot be met end the run when the first lists are made; a search may fail later on.
            continue
    return found


def _with_other_loads(given: Given, ends: Sequence[float], time: float) -> Iterator[Lists]:
    """Yield lists of more and of fewer holders, each way as long as that is sooner, if their number is left open."""
    if given.planning.load != AUTO:
        return
    for way in other_loads(given.copies, len(given.nodes)):
        least = time
        for copies in way:
            found = found_for(given._replace(copies=copies), ends)
            yield from found
            if not found or soonest(found).time > (1.0 - _DRAW) * least:
                break
            least = soonest(found).time


def _found(given: Given, seconds: float) -> Lists:
    reach = given.reach(seconds)
    found = assign_those_here(reach, given.n_shards, given.copies, given.planning, given.nodes)
    return foresee(given, with_everyone(given, found, reach))


def soonest(lists: Sequence[Lists]) -> Lists:
    """Return the lists of the least predicted time to target, of several the first."""
    return min(lists, key=lambda one: one.time)
