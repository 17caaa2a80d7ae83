"""What fleets do over rounds and in time, and that their probabilities say so."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad

from fedgc.fleets import Fleet, LogNormalFleet, ParetoFleet, ShiftedExponentialFleet, build_fleet
from fedgc.fleets.keys import Purpose
from fedgc.fleets.markov import PersistentStates
from fedgc.fleets.presence import stay_prob
from fedgc.fleets.sessions import client_sessions, session_stay_prob

#: Everything on, for one client at a site of its own.
EVERYTHING: dict[str, Any] = {
    "overhead": 0.5,
    "dropout": 0.2,
    "dropout_persistence": 0.6,
    "leave_prob": 0.3,
    "leave_by": 60,
    "slow_prob": 0.25,
    "slow_factor": 3.0,
    "slow_persistence": 0.5,
    "session_on": 30.0,
    "session_off": 20.0,
    "session_jitter": 0.5,
    "outage_fraction": 0.15,
    "outage_seconds": 12.0,
    "spread": 0.4,
    "drift": 0.01,
    "change_after": 20,
    "change_factor": 1.3,
}

BEHAVIOURS: dict[str, dict[str, Any]] = {
    "none": {"model": "log-normal"},
    "persistent absence": {"model": "log-normal", "dropout": 0.3, "dropout_persistence": 0.9},
    "persistent slowness": {
        "model": "shifted-exponential", "slow_prob": 0.3, "slow_factor": 4.0, "slow_persistence": 0.8
    },
    "sessions": {"model": "log-normal", "overhead": 0.2, "session_on": 6.0, "session_off": 9.0},
    "clockwork sessions": {"model": "pareto", "cap": 9.0, "session_on": 6.0, "session_off": 2.0, "session_jitter": 0.0},
    "irregular sessions": {"model": "log-normal", "session_on": 8.0, "session_off": 2.0, "session_jitter": 1.0},
    "outages": {"model": "shifted-exponential", "delay": 0.7, "outage_fraction": 0.3, "outage_seconds": 5.0},
    "drift, change and spread": {
        "model": "log-normal", "spread": 0.5, "drift": 0.02, "change_after": 30, "change_factor": 0.5
    },
    "paper": {"model": "paper", "session_on": 20.0, "session_off": 5.0},
    "everything": {"model": "log-normal", **EVERYTHING},
    "everything, heavy tail": {"model": "pareto", "cap": 20.0, **EVERYTHING},
}  # fmt: skip


def fleet_of(table: dict[str, Any], n_clients: int, seed: int = 1) -> Fleet:
    """Clients at sites of their own, so that what happens to them is independent."""
    return build_fleet({**table, "clients": n_clients, "site": list(range(n_clients))}, seed=seed)


@pytest.mark.parametrize("table", BEHAVIOURS.values(), ids=BEHAVIOURS)
def test_probabilities_agree_with_draws(table: dict[str, Any]) -> None:
    """One draw each of many clients, so that nothing is correlated, far from the start in rounds and in time."""
    n_clients, server_round = 1500, 37
    fleet = fleet_of(table, n_clients)
    draws = [fleet.draw(client, server_round, now=913.0) for client in range(n_clients)]
    for load in (1, 3):
        times = np.array([draw.completion_time(load) for draw in draws])
        for deadline in np.quantile(times[np.isfinite(times)], [0.1, 0.5, 0.95]):
            expected = fleet.straggle_prob(float(deadline), load, server_round=server_round)
            # z = 4.5 standard errors of a sum of independent coins with their own probabilities, 66 comparisons.
            error = 4.5 * np.sqrt((expected * (1 - expected)).sum()) + 1e-6
            assert abs((times > deadline).sum() - expected.sum()) <= error
            assert 0.005 < expected.mean() < 0.995


@pytest.mark.parametrize(("p", "rho"), [(0.05, 0.3), (0.4, 0.95), (0.2, 0.0)])
def test_chains_have_their_stationary_and_transition_probabilities(p: float, rho: float) -> None:
    chain = PersistentStates(3, Purpose.ABSENCE)
    n_clients = 6000
    before, after = (
        np.array([chain.state(c, r, probability=p, persistence=rho) for c in range(n_clients)]) for r in (70, 71)
    )
    for sample, expected in ((before, p), (after[before], p + rho * (1 - p)), (after[~before], p * (1 - rho))):
        # z = 4.5 standard errors.
        assert abs(sample.mean() - expected) <= 4.5 * np.sqrt(expected * (1 - expected) / sample.size)


def test_any_order_of_asking_gives_the_same_answers() -> None:
    table = {"model": "log-normal", **EVERYTHING, "leave_prob": 0.0}
    asked = [(client, r, stream, 7.5 * r) for client in range(5) for r in range(0, 200, 3) for stream in (0, 1)]
    first, second = fleet_of(table, 5), fleet_of(table, 5)
    forwards = {key: first.draw(*key[:2], stream=key[2], now=key[3]) for key in asked}
    shuffled = np.random.default_rng(0).permutation(len(asked))
    assert {asked[i]: second.draw(*asked[i][:2], stream=asked[i][2], now=asked[i][3]) for i in shuffled} == forwards
    other = fleet_of(table, 5, seed=2)
    assert any(other.draw(*key[:2], stream=key[2], now=key[3]) != draw for key, draw in forwards.items())


def test_sessions_last_as_long_as_they_should() -> None:
    fleet = build_fleet({"model": "log-normal", "clients": 40, "session_on": 30.0, "session_off": 60.0}, seed=2)
    process = client_sessions(2, fleet.parameters)
    lengths: dict[bool, list[float]] = {True: [], False: []}
    instants = np.arange(0.0, 2000.0, 0.5)
    for client in range(40):
        left = np.array([process.seconds_left(client, now) for now in instants])
        assert fleet.draw(client, 0, now=700.0).leaves_after == left[1400]
        # Within a session every instant names the same end.
        ends, begins = np.unique((instants + left)[left > 0].round(6), return_index=True)
        first = instants[left > 0][begins]
        lengths[True] += list((ends - first)[1:])
        lengths[False] += list(first[1:] - ends[:-1])
    for is_on, mean in ((True, 30.0), (False, 60.0)):
        found = np.array(lengths[is_on])
        assert found.min() >= 0.8 * mean - 0.5
        assert found.max() <= 1.2 * mean + 0.5
        # z = 4.5; a uniform distribution over 0.4 x mean, and the grid of instants shifts a length by up to 0.5.
        assert abs(found.mean() - mean) <= 4.5 * 0.4 * mean / np.sqrt(12 * found.size) + 0.5


@pytest.mark.parametrize("jitter", [0.0, 0.2, 1.0])
def test_what_is_left_of_a_session_has_its_closed_form(jitter: float) -> None:
    on, off = 30.0, 45.0
    low, high = on * (1 - jitter), on * (1 + jitter)

    def longer_than(x: float) -> float:
        return float(np.clip((high - x) / (high - low), 0.0, 1.0)) if jitter else float(x < on)

    prob = session_stay_prob({"session_on": on, "session_off": off, "session_jitter": jitter})
    for seconds in (0.0, 10.0, low, 0.3 * low + 0.7 * high, high, 80.0):
        points = sorted({min(max(x, seconds), 100.0) for x in (seconds, low, high, 100.0)})
        left = sum(quad(longer_than, a, b)[0] for a, b in pairwise(points)) / on
        assert float(prob(np.array(seconds))) == pytest.approx(on / (on + off) * left, abs=1e-12)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (LogNormalFleet, {"median": 30.0, "sigma": 0.6}),
        (LogNormalFleet, {"median": 60.0, "sigma": 0.01}),
        (LogNormalFleet, {"median": 20.0, "sigma": 1.5}),
        (ShiftedExponentialFleet, {"shift": 20.0, "mean": 40.0, "delay": 20.0}),
        (ParetoFleet, {"scale": 20.0, "cap": 150.0}),
    ],
)
@pytest.mark.parametrize(("on", "jitter", "fraction"), [(np.inf, 0.2, 0.2), (200.0, 0.2, 0.0), (100.0, 1.0, 0.2)])
def test_sessions_and_outages_agree_with_adaptive_quadrature(
    kind: type[Fleet], options: dict[str, float], on: float, jitter: float, fraction: float
) -> None:
    sessions = {"session_on": on, "session_off": 100.0, "session_jitter": jitter}
    fleet = kind(1, seed=1, overhead=2.0, site=0, outage_fraction=fraction, **sessions, **options)
    stays = stay_prob({name: value[0] for name, value in fleet.parameters.items()})
    nodes, weights = np.polynomial.legendre.leggauss(40)

    def done(seconds: np.ndarray) -> np.ndarray:
        """P(work <= seconds) without anything else, for as many seconds as it gets: one client for each."""
        return 1.0 - kind(seconds.size, seed=1, overhead=5000.0 - seconds, **options).straggle_prob(5000.0, 2)

    for deadline in (70.0, 250.0, 1000.0):
        # By parts: S(d) F(d) minus the integral of F dS over time; the quadrature under test works over quantiles.
        kinks = {0.0, 42.0, 122.0, 302.0, deadline, (1 - jitter) * on, (1 + jitter) * on, *np.linspace(0, deadline, 60)}
        knots = np.array(sorted(x for x in kinks if x <= deadline))
        width = np.diff(knots)[:, None]
        at = knots[:-1, None] + width * (nodes + 1) / 2
        slope = (stays(at + 5e-5 * width) - stays(at - 5e-5 * width)) / (1e-4 * width)
        within = done((at - 2.0).clip(0.0).ravel()).reshape(at.shape) * (at >= 2.0)
        whole = float(stays(np.array(deadline)) * done(np.array([deadline - 2.0]))[0])
        expected = whole - float((within * slope * weights * width / 2).sum())
        assert 1.0 - float(fleet.straggle_prob(deadline, 2)[0]) == pytest.approx(expected, abs=3e-6)


def test_clients_of_a_site_are_down_together() -> None:
    table = {"model": "log-normal", "clients": 6, "site": [0, 0, 1, 1, -1, -1], "outage_fraction": 0.3}
    fleet = build_fleet({**table, "outage_seconds": 20.0}, seed=5)
    left = np.array(
        [[fleet.draw(c, 0, now=now).leaves_after for c in range(6)] for now in np.arange(0.0, 3000.0, 11.0)]
    )
    assert np.array_equal(left[:, 0], left[:, 1])
    assert np.array_equal(left[:, 2], left[:, 3])
    assert np.isinf(left[:, 4:]).all()
    down = left[:, [0, 2]] == 0.0
    assert down.any(axis=0).all()
    assert (down[:, 0] != down[:, 1]).any()
    message = "outage_seconds must be the same for all clients of site 1; got 3 and 4"
    with pytest.raises(ValueError, match=message):
        LogNormalFleet(2, seed=1, site=1, outage_fraction=0.1, outage_seconds=[3.0, 4.0])


def test_some_leave_for_good() -> None:
    fleet = build_fleet({"model": "log-normal", "clients": 4000, "leave_prob": 0.02, "leave_by": 10}, seed=1)
    gone = np.array([[fleet.has_left(c, r) for r in (1, 2, 6, 10, 11, 1000)] for c in range(4000)])
    assert not gone[:, 0].any()  # every client is there in round 1
    assert (np.diff(gone.astype(int), axis=1) >= 0).all()
    assert np.array_equal(gone[:, 4], gone[:, 5])
    for column, share in ((1, 0.1), (2, 0.5), (4, 1.0)):
        expected = 0.02 * share
        # z = 4.5 standard errors.
        assert abs(gone[:, column].mean() - expected) <= 4.5 * np.sqrt(expected * (1 - expected) / 4000)
    missing = fleet.straggle_prob(np.inf, 1, server_round=11)
    assert np.array_equal(missing, gone[:, 4].astype(float))
    client = int(np.argmax(gone[:, 4]))
    assert fleet.draw(client, 11).leaves_after == 0.0


def test_work_times_drift_and_change() -> None:
    steady = {"model": "log-normal", "clients": 2, "sigma": 0.0, "overhead": 1.0}
    fleet = build_fleet({**steady, "drift": 0.1, "change_after": 3, "change_factor": 4.0}, seed=1)
    seconds = [fleet.completion_time(0, r, 2) - 1.0 for r in range(6)]
    np.testing.assert_allclose(seconds, 2.0 * 1.1 ** np.arange(6) * [1, 1, 1, 1, 4, 4])
    noisy = build_fleet({**steady, "sigma": 0.5, "drift": -0.05, "change_after": 3, "change_factor": 0.5}, seed=1)
    for server_round, factor in ((2, 0.95**2), (9, 0.5 * 0.95**9)):
        later = noisy.straggle_prob(1.0 + 2.5 * factor, 2, server_round=server_round)
        np.testing.assert_allclose(later, noisy.straggle_prob(3.5, 2), rtol=1e-12)


def test_speeds_spread_between_clients_for_good() -> None:
    fleet = build_fleet({"model": "log-normal", "clients": 2000, "sigma": 0.0, "spread": 0.6}, seed=3)
    logs = np.log([fleet.completion_time(c, 0, 1) for c in range(2000)])
    # z = 4.5; the standard error of a standard deviation s of n normal draws is s / sqrt(2 n).
    assert abs(logs.std() - 0.6) <= 4.5 * 0.6 / np.sqrt(4000)
    assert fleet.completion_time(7, 0, 1) == fleet.completion_time(7, 99, 1)
    assert np.array_equal(fleet.straggle_prob(1.5, 1), (np.exp(logs) > 1.5).astype(float))


@pytest.mark.parametrize("table", [BEHAVIOURS["none"], BEHAVIOURS["everything"]], ids=["none", "everything"])
def test_reach_says_what_straggle_prob_says(table: dict[str, Any]) -> None:
    fleet = fleet_of(table, 50)
    reach = fleet.reach(6.0, 12, server_round=5)
    assert (reach[:, 0] == 1.0).all()
    for load in range(1, 13):
        # Over sessions and outages `reach` is made to fall with the load, where quadrature is off by up to 1e-6.
        expected = 1.0 - fleet.straggle_prob(6.0, load, server_round=5)
        np.testing.assert_allclose(reach[:, load], expected, rtol=0, atol=1e-6 if "session_on" in table else 0)
    loads = np.arange(50) % 12 + 1
    own = 1.0 - fleet.straggle_prob(6.0, loads, server_round=5)
    np.testing.assert_allclose(own, reach[np.arange(50), loads], rtol=0, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(
    table=st.sampled_from(list(BEHAVIOURS.values())),
    deadlines=st.tuples(st.floats(0.0, 60.0), st.floats(0.0, 60.0)),
    server_round=st.integers(0, 1000),
)
def test_more_time_and_less_work_never_hurt(
    table: dict[str, Any], deadlines: tuple[float, float], server_round: int
) -> None:
    fleet = fleet_of(table, 6)
    less, more = (fleet.reach(deadline, 8, server_round=server_round) for deadline in sorted(deadlines))
    # 1e-6 is what the quadrature over sessions may be wrong by.
    assert (less <= more + 1e-6).all()
    assert (np.diff(less, axis=1) <= 0.0).all()
    assert (less >= 0.0).all()
    assert (more <= 1.0).all()


LEAVING = {name: table for name, table in BEHAVIOURS.items() if {"session_on", "outage_fraction"} & set(table)}


@pytest.mark.parametrize("table", LEAVING.values(), ids=LEAVING)
def test_partial_reach_agrees_with_draws(table: dict[str, Any]) -> None:
    """A shard counts if it is done by the deadline and its client is there at its reply, then or with the list done."""
    n_clients, server_round = 1500, 37
    fleet = fleet_of(table, n_clients)
    draws = [fleet.draw(client, server_round, now=913.0) for client in range(n_clients)]
    fixed, per_shard, leaves = (np.array(column) for column in zip(*draws, strict=True))
    lengths = np.arange(n_clients) % 4 + 1
    times = fixed + 2 * per_shard
    for deadline in np.quantile(times[leaves > 0], [0.2, 0.5, 0.9]).tolist():
        expected = fleet.partial_reach(deadline, lengths, server_round=server_round)
        replies = np.minimum(deadline, fixed + lengths * per_shard)
        there = (leaves > 0) & (leaves >= replies)
        for k in range(1, 5):
            on_list = lengths >= k
            counts = (fixed + k * per_shard <= deadline) & there & on_list
            prob = expected[on_list, k]
            # z = 4.5 standard errors of a sum of independent coins with their own probabilities, 84 comparisons.
            error = 4.5 * np.sqrt((prob * (1 - prob)).sum()) + 1e-6
            assert abs(counts.sum() - prob.sum()) <= error


@pytest.mark.parametrize("name", ["none", "persistent absence", "persistent slowness", "drift, change and spread"])
def test_partial_reach_is_reach_where_nobody_goes(name: str) -> None:
    fleet = fleet_of(BEHAVIOURS[name], 20)
    lengths = np.arange(20) % 5 + 1
    for deadline in (0.0, 2.0, 7.0):
        assert np.array_equal(
            fleet.partial_reach(deadline, lengths, server_round=9), fleet.reach(deadline, 5, server_round=9)
        )


def test_partial_reach_among_clients_that_go() -> None:
    """Of two clients, the second has no session: its probabilities are those of reach, and the first one's differ."""
    fleet = LogNormalFleet(2, seed=1, sigma=0.5, session_on=[20.0, np.inf], session_off=10.0)
    found, reach = fleet.partial_reach(6.0, [5, 5]), fleet.reach(6.0, 5)
    np.testing.assert_allclose(found[1], reach[1], rtol=1e-12)
    assert np.array_equal(found[:, 0], [1.0, 1.0])
    # Its whole list counts as it does in reach; less of it only if it is there at the deadline, so less often.
    assert found[0, 5] == pytest.approx(reach[0, 5], rel=1e-12)
    assert (found[0, 1:5] < reach[0, 1:5]).all()
    assert (np.diff(found, axis=1) <= 0).all()
    with pytest.raises(ValueError, match=r"lengths must have shape \(2,\); got shape \(3,\)"):
        fleet.partial_reach(6.0, [1, 2, 3])


def test_partial_reach_of_steady_work_has_a_closed_form() -> None:
    """Sessions of exactly 10 s on and off: a client is there for s more seconds with probability (10 - s) / 20."""
    sessions = {"session_on": 10.0, "session_off": 10.0, "session_jitter": 0.0}
    fleet = LogNormalFleet(1, seed=1, sigma=0.0, **sessions)
    # Three shards of 1 s by 4 s: the list is done, and sent, after 3 s.
    np.testing.assert_allclose(fleet.partial_reach(4.0, [3]), [[1.0, 0.35, 0.35, 0.35]], atol=1e-6)
    # Of six, four are done by 4.5 s, and sent then.
    np.testing.assert_allclose(fleet.partial_reach(4.5, [6]), [[1.0, *[0.275] * 4, 0.0, 0.0]], atol=1e-6)
