"""Plan a fleet: forecast every candidate on a grid of deadlines, and recommend the soonest at the target."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from fedgc.assignment import AssignmentConstraints, InfeasibleAssignmentError
from fedgc.deadline import cover_time, time_to_target
from fedgc.decoders.optimal_quantised import noisy_gram
from fedgc.errors import ConfigError
from fedgc.fleets import Fleet
from fedgc.forecast import forecast_round, work_of
from fedgc.forecast.presence import MOST_CLIENTS, fail_together
from fedgc.gram import GramModel
from fedgc.planning.candidates import Candidate, candidates, fits_schemes
from fedgc.planning.choice import BLOCK_CODES, Choice, FleetPlan, recommend
from fedgc.planning.recorded import recorded_rounds
from fedgc.planning.rounding import SentSums, noise_apart, seconds_sending, with_noise, with_sending
from fedgc.planning.timing import AtRound, InUnits

#: Deadlines of the default grid from a cover on, and those before it if wanted; the growth from one to the next.
_GRID, _BEFORE, _GROWTH = 10, 10, 1.25
#: Seconds between which the grid begins, or failing that; and the part of what a fleet can do that counts if it cannot
#: do every shard.
_USUAL, _AT_ALL, _MOST_OF_IT = (1e-3, 3600.0), (1e-6, 1e8), 0.9
#: A choice whose rounds alone take so many times as long as its best time to target gets no longer deadlines.
_PAST = 1.4
#: More shards or rounds than this are a slip of the keyboard.
_MOST = 10_000_000


def plan_fleet(  # noqa: PLR0912  (every choice is a loop)
    fleet: Fleet,
    *,
    n_shards: int,
    coherence: float = 0.0,
    redundancies: Sequence[int] = (1, 2, 3, 4, 5),
    deadlines: Sequence[float] | None = None,
    cover: bool = True,
    constraints: AssignmentConstraints | None = None,
    noise_sensitivity: float = 1.0,
    schemes: bool = True,
    server_round: int = 0,
    sums: Sequence[SentSums] = (SentSums(),),
    on_step: Callable[[int, int], None] = lambda done, total: None,
) -> FleetPlan:
    """Predict round time, arrivals, residual error and time to target of all choices.

    Parameters
    ----------
    fleet : Fleet
        The clients.
    n_shards : int
        Number of shards, at least as many as blocks.
    coherence : float
        rho in ``G = rho 11' + (1 - rho) I``, in [0, 1): how far the shards' updates point the same way.
    redundancies : sequence of int
        Numbers of holders per shard to try.
    deadlines : sequence of float, optional
        Seconds; by default ten, from the one by which the fleet can do every shard once, see :func:`default_deadlines`.
    cover : bool
        Whether the default deadlines begin there, or at about a tenth of it: work lists whose shards change places
        train with less than a cover each round too, in more but far shorter rounds; how many more, `noise_sensitivity`
        says.
    constraints : AssignmentConstraints, optional
        Limits of the clients.
    noise_sensitivity : float
        See :func:`fedgc.deadline.time_to_target`.
    schemes : bool
        Whether to include the codes of the literature. They need a multiple of the clients as shards and know no
        limits, and are left out with a remark otherwise.
    server_round : int
        Round, for fleets that change.
    sums : sequence of SentSums
        How clients may send their sums, see :func:`fedgc.planning.rounding.sent_sums`: each is tried.
    on_step : callable
        Called with the number of deadlines done and their total.

    Raises
    ------
    ConfigError
        If an argument is out of range, or nothing can be decoded.
    InfeasibleAssignmentError
        If the constraints cannot be met with any of the numbers of holders; others are left out.

    Notes
    -----
    Of a recorded trace, round time and residual error are means over its own rounds, in each of which all clients do
    what they did together (:class:`fedgc.planning.recorded.RecordedRounds`); other fleets' clients are independent but
    for what sessions and sites do to them.

    Rounding to a few bits adds its variance to the residual error, and to what the optimal decoder goes by. Of blocks
    all that send the same sum round it alike, whereas sums of the literature's codes that overlap are rounded apart.
    Sending takes a client the seconds of one sum on whole blocks, and on work lists those of as many as a mean list has
    shards, since each is sent by itself.

    Examples
    --------
    >>> from fedgc.fleets import build_fleet
    >>> fleet = build_fleet({"model": "log-normal", "clients": 4, "dropout": 0.3, "sigma": 0.2}, seed=1)
    >>> plan = plan_fleet(fleet, n_shards=8, redundancies=(1, 2), deadlines=[3.0, 5.0])
    >>> plan.recommended.redundancy, plan.recommended.schedule
    (2, 'work-list')
    """
    _check(fleet, redundancies, n_shards=n_shards, coherence=coherence, server_round=server_round)
    if not 0.0 <= noise_sensitivity < np.inf:
        raise ConfigError(f"noise_sensitivity must be a finite number of at least 0; got {noise_sensitivity}")
    redundancies = list(dict.fromkeys(redundancies))
    grid = default_deadlines(fleet, n_shards, server_round, cover=cover) if deadlines is None else list(set(deadlines))
    if not grid or not all(0.0 < deadline < np.inf for deadline in grid):
        raise ConfigError(f"deadline must be a finite number above 0; got {grid}")
    grid.sort()
    searches = _searches(fleet, sums, redundancies, n_shards=n_shards)
    found: list[tuple[Candidate, float, Choice]] = []
    recorded, remark = recorded_rounds(fleet, server_round)
    timing = AtRound(fleet, server_round, recorded)
    infeasible: dict[int, InfeasibleAssignmentError] = {}
    for number, search in enumerate(searches):
        own_timing = timing if search.fleet is fleet else AtRound(search.fleet, server_round)
        own_grid = grid
        if deadlines is None and search.fleet is not fleet:
            own_grid = default_deadlines(search.fleet, n_shards, server_round, cover=cover)
        own: list[tuple[Candidate, float, Choice]] = []
        for done, deadline in enumerate(own_grid):
            on_step(number * len(grid) + done, len(searches) * len(grid))
            for holders in search.redundancies:
                past = _past_their_best(own) if deadlines is None else set()
                try:
                    for candidate in candidates(
                        search.fleet,
                        deadline,
                        n_shards=n_shards,
                        redundancies=[holders],
                        constraints=constraints,
                        schemes=schemes and "full" not in search.without,
                        coherence=coherence,
                        server_round=server_round,
                        skip=past | {(holders, schedule) for schedule in search.without},
                    ):
                        own += _forecast(own_timing, candidate, deadline, coherence, noise_sensitivity, search.sums)
                except InfeasibleAssignmentError as error:
                    infeasible[holders] = error
        found += own
    on_step(len(searches) * len(grid), len(searches) * len(grid))
    if infeasible and not found:
        raise next(iter(infeasible.values()))
    if not found:
        raise _nothing_done(timing, grid, given=deadlines is not None)
    if not all(np.isfinite(time) for _, time, _ in found):
        raise ConfigError(
            f"noise_sensitivity and deadline must be small enough for finite times to the target; "
            f"got {noise_sensitivity:g} and up to {max(grid):g}"
        )
    alone = min((time for c, time, _ in found if c.redundancy == 1), default=min(time for _, time, _ in found))
    plan = recommend([_relative(choice, time / alone) for _, time, choice in found])
    remarks = [remark] if remark else []
    everyone = np.arange(fleet.n_clients)
    if coherence > 0.0 and fleet.n_clients > MOST_CLIENTS and fail_together(timing.presence, everyone):
        remarks.append(
            f"clients that fail together count as independent beyond {MOST_CLIENTS}: "
            f"where updates are coherent, the residual error is a lower bound"
        )
    if schemes and constraints is not None:
        remarks.append("codes of the literature know no limits: where there are some they are left out")
    elif schemes and not fits_schemes(fleet, n_shards):
        remarks.append(
            f"codes of the literature need a multiple of the {fleet.n_clients} clients as shards: "
            f"with {n_shards} they are left out"
        )
    return replace(
        plan,
        infeasible=tuple((holders, str(error)) for holders, error in sorted(infeasible.items())),
        remarks=tuple(remarks),
    )


@dataclass(frozen=True)
class _Search:
    """A part of the choices: those with one way to send sums, on a fleet with the seconds that this takes."""

    fleet: Fleet
    sums: SentSums
    redundancies: Sequence[int]
    #: Schedules that are not among them.
    without: Sequence[str] = field(default=())


def _searches(fleet: Fleet, sums: Sequence[SentSums], redundancies: Sequence[int], *, n_shards: int) -> list[_Search]:
    if not sums:
        raise ConfigError("sums must hold at least one way to send them; got none")
    found = []
    for one in dict.fromkeys(sums):
        if one.seconds == 0.0:
            found.append(_Search(fleet, one, redundancies))
            continue
        found.append(_Search(with_sending(fleet, one.seconds), one, redundancies, ("work-list",)))
        for holders in redundancies:
            seconds = seconds_sending(one, "work-list", holders / fleet.n_clients * n_shards)
            found.append(_Search(with_sending(fleet, seconds), one, [holders], ("full",)))
    return found


def _check(fleet: Fleet, redundancies: Sequence[int], *, n_shards: int, coherence: float, server_round: int) -> None:
    if not 0.0 <= coherence < 1.0:
        raise ConfigError(f"coherence must lie in [0, 1); got {coherence}")
    if not 1 <= n_shards <= _MOST:
        raise ConfigError(f"shards must be an integer from 1 to {_MOST}; got {n_shards}")
    wrong = [value for value in redundancies if not 1 <= value <= fleet.n_clients]
    if wrong or not redundancies:
        raise ConfigError(f"redundancy must be an integer from 1 to clients = {fleet.n_clients}; got {wrong or 'none'}")
    if not 0 <= server_round <= _MOST:
        raise ConfigError(f"server_round must be an integer from 0 to {_MOST}; got {server_round}")


def _nothing_done(timing: AtRound, grid: Sequence[float], *, given: bool) -> ConfigError:
    if given:
        tried = ", ".join(f"{deadline:g}" for deadline in grid)
        return ConfigError(f"deadline must be long enough for every shard to be done at times; got {tried}")
    # Where nobody does anything however long one waits, the grid begins anywhere: the longest that was tried counts.
    never = not timing.reach(_AT_ALL[1], 1)[:, 1].any()
    return ConfigError(
        f"fleet must have clients that do every shard at times; got none that do by a deadline of "
        f"{_AT_ALL[1] if never else max(grid):g} seconds"
    )


def default_deadlines(fleet: Fleet, n_shards: int, server_round: int = 0, *, cover: bool = True) -> list[float]:
    """Return ten deadlines from the one by which the fleet is expected to do every shard once, or ten more before it.

    Notes
    -----
    With T1 that deadline and T0 the earliest at which one shard in a thousand that could be asked for is done, the grid
    is ``T0 + (T1 - T0) 1.25^k``, with k from 0, or from -10 without `cover`: where all clients need some time before
    anything comes, only what is beyond it counts. Of a fleet that is away too often to do every shard once, T1 is the
    time for nine tenths of what it can do.
    """
    timing = AtRound(fleet, server_round)
    every = cover_time(timing, n_shards, *_USUAL)
    if every == _USUAL[0]:
        every = cover_time(timing, n_shards, *_AT_ALL, part=_MOST_OF_IT)
    first = every
    while first > 1e-6 * every and float(timing.reach(first, 1)[:, 1].mean()) > 1e-3:
        first *= 0.98
    return [float(first + (every - first) * _GROWTH**step) for step in range(0 if cover else -_BEFORE, _GRID)]


def _past_their_best(found: Sequence[tuple[Candidate, float, Choice]]) -> set[tuple[int, str]]:
    """Return the holders and schedules whose rounds alone now take far longer than their best time to target."""
    best: dict[tuple[int, str], float] = {}
    last: dict[tuple[int, str], float] = {}
    for candidate, time, choice in found:
        if candidate.name in BLOCK_CODES:
            key = choice.redundancy, choice.schedule
            best[key] = min(best.get(key, np.inf), time)
            last[key] = choice.round_time
    return {key for key in best if last[key] > _PAST * best[key]}


def _forecast(  # noqa: PLR0917  (what a choice is made of)
    timing: AtRound,
    candidate: Candidate,
    deadline: float,
    coherence: float,
    noise_sensitivity: float,
    sums: SentSums,
) -> list[tuple[Candidate, float, Choice]]:
    unit, columns = candidate.unit, candidate.code.n_shards
    gram = GramModel(np.full(columns, (1.0 - coherence) * unit), np.full(columns, np.sqrt(coherence) * unit))
    noisy = gram if sums.variance_factor == 0.0 else noisy_gram(candidate.code, gram, sums.variance_factor)
    in_units = InUnits(timing, unit)
    seen, decoder = forecast_round(
        in_units, candidate.code, candidate.decoder, noisy or gram, deadline, clients=candidate.clients
    )
    if decoder is None or not np.isfinite(seen.residual_error):
        return []
    if timing.recorded is not None:
        seen = timing.recorded.forecast(candidate, decoder, noisy or gram, deadline, seen.arrivals)
    if noisy is None:
        load = np.zeros(candidate.n_clients, dtype=np.intp)
        load[candidate.clients] = work_of(candidate.code)
        come = 1.0 - in_units.straggle_prob(deadline, load)[candidate.clients]
        added = noise_apart(decoder, come, gram, sums.variance_factor)
        seen = replace(seen, residual_error=seen.residual_error + added)
    elif noisy is not gram:
        seen = replace(seen, residual_error=with_noise(seen.residual_error, gram, noisy))
    choice = Choice(
        redundancy=candidate.redundancy,
        schedule=candidate.schedule,
        code=candidate.name,
        decoder=candidate.decoder_name,
        deadline=deadline,
        round_time=seen.round_time,
        arrivals=seen.arrivals,
        residual_error=seen.residual_error,
        relative_time_to_target=np.nan,
        shards_moved=candidate.shards_moved,
        copies=len(candidate.held) / candidate.code.n_shards,
        bits=sums.bits,
    )
    return [(candidate, time_to_target(seen, noise_sensitivity), choice)]


def _relative(choice: Choice, time: float) -> Choice:
    return Choice(**{**vars(choice), "relative_time_to_target": float(time)})
