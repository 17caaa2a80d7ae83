"""Plans of small fleets: what is tried and forecast, limits of clients, and the picture."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedgc.assignment import AssignmentConstraints, InfeasibleAssignmentError, residual_error
from fedgc.deadline import RoundForecast, cover_time, time_to_target
from fedgc.errors import ConfigError
from fedgc.fleets import Fleet, build_fleet
from fedgc.planning import Choice, FleetPlan, constraints_of, plan_fleet, recommended_assignment
from fedgc.planning.choice import BLOCK_CODES
from fedgc.planning.figure import check_plot_path, draw_plan
from fedgc.planning.planner import default_deadlines
from tests.assignment_cases import check_valid

N_SHARDS = 10


def fleet_of(n_clients: int = 5, **settings: Any) -> Fleet:
    return build_fleet({"model": "log-normal", "clients": n_clients, "sigma": 0.2, **settings}, seed=1)


@pytest.mark.parametrize(
    "settings",
    [{"median": 1500.0}, {"dropout": 0.9}, {"median": 1e-5}, {"n_clients": 1, "dropout": 0.2}],
    ids=["hours a shard", "mostly away", "very fast", "a single client"],
)
def test_slow_fleets_and_such_as_are_mostly_away_are_planned_too(settings: dict[str, Any]) -> None:
    plan = plan_fleet(fleet_of(**settings), n_shards=8, redundancies=(1,))
    assert np.isfinite([choice.residual_error for choice in plan.choices]).all()
    best = plan.recommended
    assert best.arrivals > 0.0 and best.deadline > 0.2 * settings.get("median", 1.0)


def plan_of(fleet: Fleet, **options: Any) -> FleetPlan:
    return plan_fleet(fleet, **{"n_shards": N_SHARDS, "redundancies": (1, 2), "deadlines": [3.0, 5.0], **options})


UNRELIABLE, RELIABLE = fleet_of(dropout=0.3, spread=0.3), fleet_of(dropout=0.01)


@pytest.fixture(scope="module")
def unreliable() -> FleetPlan:
    return plan_of(UNRELIABLE)


@pytest.fixture(scope="module")
def reliable() -> FleetPlan:
    return plan_of(RELIABLE)


@pytest.mark.parametrize("name", ["unreliable", "reliable"])
def test_the_recommended_choice_follows_the_rule(name: str, request: pytest.FixtureRequest) -> None:
    plan: FleetPlan = request.getfixturevalue(name)
    times = [c.relative_time_to_target for c in plan.choices]
    alone = [c for c in plan.choices if c.redundancy == 1]
    assert times == sorted(times)
    assert min(c.relative_time_to_target for c in alone) == 1.0
    pays = times[0] < 0.98
    among = [c for c in plan.choices if pays or c.redundancy == 1]
    close = [c for c in among if c.relative_time_to_target <= 1.01 * among[0].relative_time_to_target]
    best = plan.recommended
    assert best in close
    assert best.redundancy == min(c.redundancy for c in close)
    assert best.shards_moved == min(c.shards_moved for c in close if c.redundancy == best.redundancy)
    assert plan.verdict.startswith("redundancy pays" if pays else "redundancy does not pay")
    assert pays == (name == "unreliable")


def test_relative_times_are_those_of_the_forecasts(unreliable: FleetPlan) -> None:
    def seconds(c: Choice, sensitivity: float) -> float:
        return time_to_target(RoundForecast(c.round_time, c.arrivals, c.residual_error), sensitivity)

    for plan, sensitivity in ((unreliable, 1.0), (plan_of(UNRELIABLE, noise_sensitivity=0.2, schemes=False), 0.2)):
        least = min(seconds(c, sensitivity) for c in plan.choices if c.redundancy == 1)
        for c in plan.choices:
            assert c.relative_time_to_target == pytest.approx(seconds(c, sensitivity) / least)
            assert 0 < c.round_time <= c.deadline in (3.0, 5.0)
            assert 0 < c.arrivals <= UNRELIABLE.n_clients


@pytest.mark.parametrize("seed", range(6))
def test_work_lists_of_more_holders_are_never_worse(seed: int) -> None:
    rng = np.random.default_rng([3, seed])
    n_clients = int(rng.integers(4, 7))
    fleet = fleet_of(
        n_clients, median=rng.uniform(0.5, 2.0, n_clients).tolist(), dropout=rng.uniform(0, 0.5, n_clients).tolist()
    )
    deadlines = [6.0, 9.0]
    plan = plan_of(fleet, n_shards=8, redundancies=(1, 2, 3), deadlines=deadlines, schemes=False)
    for deadline in deadlines:
        error = {
            c.redundancy: c.residual_error
            for c in plan.choices
            if (c.schedule, c.decoder, c.deadline) == ("work-list", "optimal-unbiased", deadline)
        }
        assert sorted(error) == [1, 2, 3]
        # Up to the 1e-9 to which the decoder is calibrated.
        assert error[2] <= error[1] * (1 + 1e-9)
        assert error[3] <= error[1] * (1 + 1e-9)


def test_the_plans_assignment_is_the_one_that_was_forecast(unreliable: FleetPlan) -> None:
    for c in unreliable.choices:
        found = recommended_assignment(UNRELIABLE, c, N_SHARDS)
        if c.code not in ("work-lists", "fractional-repetition"):
            assert found is None
            continue
        assert found is not None
        assert found.schedule == c.schedule
        # A copy is moved if its client's equal part of the shards, two in order, does not hold it.
        moved = sum(shard // 2 != client for client in range(UNRELIABLE.n_clients) for shard in found.shards_of(client))
        assert c.shards_moved == moved
        if c.schedule == "work-list" and c.decoder == "optimal-unbiased":
            reach = UNRELIABLE.reach(c.deadline, N_SHARDS)
            assert c.residual_error == pytest.approx(residual_error(found, reach), rel=1e-9)
            assert c.redundancy == 1 or (found.block_of_client >= 0).all()


def test_one_holder_is_one_holder_where_time_is_plenty() -> None:
    """By 40 s one reliable client does everything, and the others must not count as its backups."""
    fleet = fleet_of(4, dropout=[0.1, 0.5, 0.5, 0.5])
    plan = plan_of(fleet, n_shards=8, redundancies=(1,), deadlines=[40.0], schemes=False)
    for c in plan.choices:
        found = recommended_assignment(fleet, c, 8)
        assert found is not None
        assert found.holdings().size == 8
    # Every shard is with the first, so what is missed is missed with it.
    assert plan.choices[0].residual_error == pytest.approx(0.1 / 0.9, rel=1e-6)


def test_nothing_is_moved_where_all_are_alike_and_have_one_holder(reliable: FleetPlan) -> None:
    moved = {c.code: c.shards_moved for c in reliable.choices if c.redundancy == 1}
    assert moved["uncoded"] == 0
    full = [c.shards_moved for c in reliable.choices if c.redundancy == 2 and c.code == "fractional-repetition"]
    # Four of five clients in two pairs hold five shards each: 20 copies, of which their own parts are at most 8.
    assert min(full) >= 12


def test_codes_of_the_literature_have_the_holders_that_were_asked_for(
    unreliable: FleetPlan, reliable: FleetPlan
) -> None:
    """Between clients that are all alike, coefficients of scheme I and II vanish: one holder is left, and no code."""
    assert {c.redundancy for c in reliable.choices if c.code == "scheme-II"} == set()
    assert {c.redundancy for c in unreliable.choices if c.code == "scheme-II"} == {2}
    assert {c.redundancy for c in unreliable.choices if c.code == "sgc"} == {2}


def test_one_holder_is_compared_with_only_where_it_was_tried() -> None:
    """Scheme I and II have one holder here, though two were asked for: no choice, nor a measure of the others."""
    fleet = fleet_of(20, sigma=0.3)
    plan = plan_of(fleet, n_shards=40, redundancies=(2,), deadlines=[4.0])
    assert {c.redundancy for c in plan.choices} == {2}
    assert plan.choices[0].relative_time_to_target == 1.0
    assert plan.verdict.startswith("one holder per shard was not tried")
    both = plan_of(fleet, n_shards=40, redundancies=(1, 2), deadlines=[4.0])
    assert min(c.relative_time_to_target for c in both.choices if c.redundancy == 1) == 1.0
    assert "one holder" not in both.verdict


@pytest.mark.parametrize("n_shards", [3, 8])
def test_shards_that_are_no_multiple_of_the_clients_are_planned_whole(n_shards: int) -> None:
    """Codes with a column per client would have parts of shards; six clients on three shards leave three idle."""
    fleet = fleet_of(6, dropout=0.2)
    plan = plan_fleet(fleet, n_shards=n_shards, redundancies=(1, 2))
    assert {c.code for c in plan.choices} <= set(BLOCK_CODES)
    assert plan.remarks == (
        f"codes of the literature need a multiple of the 6 clients as shards: with {n_shards} they are left out",
    )
    for c in plan.choices:
        assignment = recommended_assignment(fleet, c, n_shards)
        assert assignment is not None
        held = np.concatenate(list(assignment.lists))
        assert set(held.tolist()) == set(range(n_shards))
    if n_shards == 8:
        # Somebody has two whole shards to do: whoever has one takes a second in the median.
        assert plan.verdict.startswith("redundancy pays")
        assert min(c.round_time for c in plan.choices if c.redundancy == 1 and c.schedule == "full") > 1.7
    even = plan_fleet(fleet, n_shards=12, redundancies=(1,), deadlines=[4.0])
    assert even.remarks == () and "uncoded" in {c.code for c in even.choices}


def test_what_is_asked_for_twice_is_tried_once() -> None:
    once = plan_of(RELIABLE, redundancies=(1, 2), deadlines=[3.0, 5.0])
    assert plan_of(RELIABLE, redundancies=(1, 2, 1), deadlines=[5.0, 3.0, 5.0]).choices == once.choices


def test_every_code_is_tried_with_every_unbiased_decoder_that_can_decode_it(unreliable: FleetPlan) -> None:
    tried: dict[tuple[str, str], set[str]] = {}
    for c in (*unreliable.choices, *plan_of(UNRELIABLE, redundancies=(2,), deadlines=[5.0], coherence=0.5).choices):
        tried.setdefault((c.code, c.schedule), set()).add(c.decoder)
    assert tried["work-lists", "work-list"] == {"optimal-unbiased", "fixed"}
    assert tried["fractional-repetition", "full"] == {"optimal-unbiased", "fixed", "inverse-probability"}
    assert tried["uncoded", "full"] == {"inverse-probability"}
    for code in ("scheme-I", "scheme-II", "sgc", "bernoulli", "random-regular", "cyclic-repetition"):
        assert {"fixed", "fixed-general"} <= tried[code, "full"], code


def test_on_blocks_the_optimal_decoder_is_never_worse_than_another(unreliable: FleetPlan) -> None:
    errors: dict[tuple[int, str, float], dict[str, float]] = {}
    for c in unreliable.choices:
        if c.code in BLOCK_CODES:
            errors.setdefault((c.redundancy, c.schedule, c.deadline), {})[c.decoder] = c.residual_error
    for found in errors.values():
        assert found["optimal-unbiased"] <= min(found.values()) * (1 + 1e-9)


def test_schemes_can_be_left_out() -> None:
    codes = {c.code for c in plan_of(RELIABLE, schemes=False).choices}
    assert codes == {"work-lists", "fractional-repetition"}


def test_coherence_enters_as_in_uniform_gram_models() -> None:
    """Of one shard per client without a code: coverages vary by p / (1 - p), and all of it is felt along 1."""
    fleet = fleet_of(4, sigma=0.0, dropout=0.2)
    for rho in (0.0, 0.5, 0.9):
        plan = plan_of(fleet, n_shards=4, redundancies=(1,), deadlines=[1.5], coherence=rho)
        (uncoded,) = (c for c in plan.choices if c.code == "uncoded")
        # E|v - 1|^2 under rho 11' + (1 - rho) I, with independent coverages of variance 0.25, over 4 + 12 rho.
        assert uncoded.residual_error == pytest.approx(4 * 0.25 / (4 + 12 * rho), rel=1e-9)
        assert uncoded.arrivals == pytest.approx(3.2)


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9])
def test_clients_of_a_site_fail_together_in_the_forecast_too(rho: float) -> None:
    """Of one shard per client in two sites of five: coverages vary by (1 - p) / p, and alike within a site."""
    sites = {"site": [0] * 5 + [1] * 5, "outage_fraction": 0.3, "outage_seconds": 1e5}
    fleet = fleet_of(10, sigma=0.0, **sites)
    # Rounds of one shard end with the deadline whoever is there, and are thus as good as random instants.
    options: dict[str, Any] = {"redundancies": (1,), "deadlines": [1.001], "coherence": rho}
    plan = plan_of(fleet, constraints=constraints_of(fleet), **options)
    errors = {c.decoder: c.residual_error for c in plan.choices if c.schedule == "full"}
    # E|v - 1|^2 under rho 11' + (1 - rho) I: each site's five move as one along 1.
    expected = (0.3 / 0.7) * ((1 - rho) * 10 + rho * 2 * 5**2) / (10 + 90 * rho)
    assert errors["inverse-probability"] == pytest.approx(expected, rel=1e-3 if rho == 0.0 else 0.06)


LIMITS: dict[str, dict[str, Any]] = {
    "storage": {"storage": [6, 6, 5, 4, 4]},
    "computation": {"computation": [5, 5, 5, 5, 3]},
    "sites": {"site": [0, 0, 1, 1, -1]},
    "all": {"storage": [7, 7, 7, 7, 7], "computation": [6, 6, 6, 6, 6], "site": [0, 0, 1, 1, 2]},
}


@pytest.mark.parametrize("limits", LIMITS.values(), ids=LIMITS)
def test_limits_are_kept(limits: dict[str, Any]) -> None:
    fleet = fleet_of(dropout=0.3, **limits)
    constraints = constraints_of(fleet)
    assert constraints is not None
    plan = plan_of(fleet, constraints=constraints, deadlines=[4.0])
    assert {c.code for c in plan.choices} == {"work-lists", "fractional-repetition"}
    assert {c.redundancy for c in plan.choices} == {1, 2}
    for c in plan.choices:
        found = recommended_assignment(fleet, c, N_SHARDS, constraints)
        assert found is not None
        check_valid(
            found, fleet.reach(4.0, N_SHARDS), holders=c.redundancy, schedule=c.schedule, constraints=constraints
        )


def test_a_fleet_without_limits_has_no_constraints() -> None:
    assert constraints_of(RELIABLE) is None
    some = constraints_of(fleet_of(site=[0, 0, -1, -1, -1]))
    assert some is not None
    assert some.storage is None
    assert some.domain is not None
    # Clients without a site are at sites of their own.
    assert len(set(some.domain)) == 4


@pytest.mark.parametrize(
    ("limits", "name"),
    [
        ({"storage": [2, 2, 2, 2, 1]}, "storage"),
        ({"computation": [2, 2, 2, 2, 1]}, "computation"),
        ({"domain": ["a"] * 5}, "domain"),
        ({"residency": {3: [0]}}, "residency"),
    ],
)
def test_limits_that_cannot_be_kept_are_named(limits: dict[str, Any], name: str) -> None:
    with pytest.raises(InfeasibleAssignmentError, match=f"^{name} must") as caught:
        plan_of(RELIABLE, constraints=AssignmentConstraints(**limits), redundancies=(2,))
    assert caught.value.constraints == (name,)


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "coherence 1": ({"coherence": 1.0}, "coherence must lie in [0, 1); got 1.0"),
    "coherence nan": ({"coherence": np.nan}, "coherence must lie in [0, 1); got nan"),
    "shards": ({"n_shards": 0}, "shards must be an integer from 1 to 10000000; got 0"),
    "redundancy 0": ({"redundancies": [1, 0]}, "redundancy must be an integer from 1 to clients = 5; got [0]"),
    "redundancy 6": ({"redundancies": [6]}, "redundancy must be an integer from 1 to clients = 5; got [6]"),
    "no redundancy": ({"redundancies": []}, "redundancy must be an integer from 1 to clients = 5; got none"),
    "deadline 0": ({"deadlines": [0.0]}, "deadline must be a finite number above 0; got [0.0]"),
    "deadline nan": ({"deadlines": [np.nan]}, "deadline must be a finite number above 0; got [nan]"),
    "deadline inf": ({"deadlines": [np.inf]}, "deadline must be a finite number above 0; got [inf]"),
    "no deadline": ({"deadlines": []}, "deadline must be a finite number above 0; got []"),
    "sensitivity": ({"noise_sensitivity": -0.5}, "noise_sensitivity must be a finite number of at least 0; got -0.5"),
    "sensitivity nan": (
        {"noise_sensitivity": np.nan}, "noise_sensitivity must be a finite number of at least 0; got nan"
    ),
    "round": ({"server_round": -1}, "server_round must be an integer from 0 to 10000000; got -1"),
}  # fmt: skip


@pytest.mark.parametrize(("options", "message"), BAD.values(), ids=BAD)
def test_arguments_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        plan_of(RELIABLE, **options)


def test_a_deadline_by_which_nothing_is_done_is_refused() -> None:
    steady = build_fleet({"model": "log-normal", "clients": 4, "sigma": 0.0}, seed=1)
    with pytest.raises(
        ConfigError, match=r"deadline must be long enough for every shard to be done at times; got 0\.5"
    ):
        plan_of(steady, deadlines=[0.5])
    # A longer one beside it is enough.
    assert {c.deadline for c in plan_of(steady, deadlines=[0.5, 6.0]).choices} == {6.0}


def test_the_default_deadlines_start_where_every_shard_can_be_done() -> None:
    grid = default_deadlines(UNRELIABLE, N_SHARDS)
    assert len(grid) == 10
    assert grid[0] == pytest.approx(cover_time(UNRELIABLE, N_SHARDS))
    steps = np.diff(grid)
    np.testing.assert_allclose(steps[1:] / steps[:-1], 1.25)
    plan = plan_of(fleet_of(4, dropout=0.3), n_shards=8, redundancies=(1,), deadlines=None, schemes=False)
    assert len({c.deadline for c in plan.choices}) > 3


def test_progress_is_told() -> None:
    seen: list[tuple[int, int]] = []
    plan_of(RELIABLE, redundancies=(1,), schemes=False, on_step=lambda done, total: seen.append((done, total)))
    assert seen == [(0, 2), (1, 2), (2, 2)]


@pytest.mark.parametrize(("name", "start"), [("p.png", b"\x89PNG"), ("p.svg", b"<?xml"), ("p.pdf", b"%PDF")])
def test_the_picture_is_drawn(name: str, start: bytes, unreliable: FleetPlan, tmp_path: Path) -> None:
    assignment = recommended_assignment(UNRELIABLE, unreliable.recommended, N_SHARDS)
    assert assignment is not None
    draw_plan(tmp_path / name, unreliable, assignment, "five $clients_{")
    assert (tmp_path / name).read_bytes().startswith(start)


def test_a_plan_without_blocks_is_drawn_too(unreliable: FleetPlan, tmp_path: Path) -> None:
    uncoded = next(c for c in unreliable.choices if c.code == "uncoded")
    draw_plan(tmp_path / "p.svg", replace(unreliable, recommended=uncoded), None, "uncoded")
    assert (tmp_path / "p.svg").stat().st_size > 1000


@pytest.mark.parametrize("name", ["p.txt", "p", "p.PNG.gz", "nowhere/p.png"])
def test_bad_picture_paths_are_refused(name: str, unreliable: FleetPlan, tmp_path: Path) -> None:
    message = "--plot must be a .png, .svg or .pdf file in a folder that exists; got"
    with pytest.raises(ConfigError, match=message):
        check_plot_path(tmp_path / name)
    with pytest.raises(ConfigError, match=message):
        draw_plan(tmp_path / name, unreliable, None, "")
    assert list(tmp_path.iterdir()) == []
