"""Chances from tables are those of times that are at most one point of the table off."""

from __future__ import annotations

import numpy as np
import pytest

from fedgc.completion_times import FAMILIES, CompletionTimes, TimeObservation
from fedgc.completion_times.mixing import Mixing
from fedgc.completion_times.tabulated import TabulatedClients

N_CLIENTS = 12
UNKNOWN = 10**6
NODES = [*range(N_CLIENTS), UNKNOWN]


def learnt(family: str) -> CompletionTimes:
    """Return what is learnt of clients of which some are often away, some steady, some hardly seen."""
    rng, times = np.random.default_rng(0), CompletionTimes(family=family)
    spread = np.where(np.arange(N_CLIENTS) % 3 == 0, 0.02, 0.5)
    for round_ in range(15):
        fixed = rng.exponential(0.5, N_CLIENTS)
        work = 2.0 * np.exp(spread * rng.standard_normal(N_CLIENTS)) * np.where(rng.random(N_CLIENTS) < 0.1, 5.0, 1.0)
        late = (fixed + work > 4.0) | (rng.random(N_CLIENTS) < 0.2)
        seen = [
            TimeObservation(i, 2, 4.0, censored=True)
            if late[i]
            else TimeObservation(i, 2, fixed[i] + work[i], fixed_seconds=fixed[i])
            for i in range(N_CLIENTS if round_ < 3 else N_CLIENTS - 2)
        ]
        times = times.update(seen)
    return times


@pytest.mark.parametrize("scores", [(0.0, -20.0, -20.0), (-20.0, 0.0, -20.0), (-20.0, -20.0, 0.0)])
@pytest.mark.parametrize("family", FAMILIES)
def test_tables_lie_between_the_chances_of_the_points_beside(family: str, scores: tuple[float, float, float]) -> None:
    base = learnt(family)
    times = CompletionTimes(
        family=family, history=base.history, priors=base.priors, scores=base.scores, mixing=Mixing(scores)
    )
    exact, tables = times._fit, times.tabulated(NODES)._fit
    assert isinstance(tables, TabulatedClients)
    rng, rows = np.random.default_rng(1), np.repeat(np.arange(N_CLIENTS + 1), 40)
    step = tables.step[tables.table_of[rows]]
    assert step.max() < 0.15  # the unknown client's, whose chances are spread widest
    last = tables.low[tables.table_of[rows]] + 127 * step
    log_x = rng.uniform(-4.0, 4.0, rows.size)
    found = tables.by_log_time(rows, log_x)
    inside = (log_x <= last) & (log_x >= tables.low[tables.table_of[rows]])
    assert 0.3 < inside.mean() < 0.95
    assert (found >= exact.by_log_time(rows, log_x - step) - 1e-9)[inside].all()
    assert (found <= exact.by_log_time(rows, log_x + step) + 1e-9)[inside].all()
    # Before it hardly any have come, beyond it as good as all that will.
    np.testing.assert_allclose(found[~inside], exact.by_log_time(rows, log_x)[~inside], atol=0.02)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_a_plan_asks_is_the_same_from_tables(family: str) -> None:
    times = learnt(family)
    tables = times.tabulated(NODES)
    for deadline in (0.5, 2.0, 3.0, 4.0, 9.0, np.inf):
        exact = times.reach(NODES, 4, deadline)
        found = tables.reach(NODES, 4, deadline)
        assert np.abs(found - exact).mean() < 0.005
        assert (np.diff(found, axis=1) <= 0.0).all()
        given = tables.in_time_prob(NODES, 2, deadline, given_present=True)
        assert np.abs(given - times.in_time_prob(NODES, 2, deadline, given_present=True)).mean() < 0.005
        stops = [0.3 if np.isfinite(deadline) else 0.0] * len(NODES)
        found, exact = (one.reach(NODES, 3, deadline, allowance=stops) for one in (tables, times))
        assert np.abs(found - exact).mean() < 0.005
    np.testing.assert_allclose(tables.presence(NODES), times.presence(NODES), atol=1e-12)


@pytest.mark.parametrize("family", FAMILIES)
def test_work_that_nobody_has_time_for_has_no_chance_where_times_are_all_alike(family: str) -> None:
    base = CompletionTimes(family=family)
    for round_ in range(8):
        fixed = [0.6 + 0.1 * ((round_ + i) % 3) for i in range(N_CLIENTS)]
        base = base.update(
            [
                TimeObservation(i, 1, 1.9, censored=True)
                if i == round_  # who may come in a slow round, up to which tables reach
                else TimeObservation(i, 4, 0.8 + fixed[i], fixed_seconds=fixed[i], complete=False)
                for i in range(N_CLIENTS)
            ]
        )
    for scores in ((0.0, -20.0, -20.0), (-20.0, 0.0, -20.0), (-20.0, -20.0, 0.0), base.mixing.log_scores):
        mixing = Mixing(scores)
        times = CompletionTimes(
            family=family, history=base.history, priors=base.priors, scores=base.scores, mixing=mixing
        )
        exact = times.reach(NODES[:-1], 24, 1.9, allowance=[0.9] * N_CLIENTS)
        found = times.tabulated(NODES[:-1]).reach(NODES[:-1], 24, 1.9, allowance=[0.9] * N_CLIENTS)
        assert (exact[:, 4] > 0.8).all() and (exact[:, 8:] < 0.1).all()
        # A line between two points of the outer part is off by what the curve bends there; it was 0.09 and more.
        np.testing.assert_allclose(found[:, 8:], exact[:, 8:], atol=0.02)


def test_tables_are_made_once_and_change_nothing() -> None:
    times = learnt("log-normal")
    before = times.to_data()
    assert times.tabulated(NODES) is times.tabulated(NODES)
    assert times.tabulated(NODES[:3]) is not times.tabulated(NODES)
    assert times.tabulated(NODES[:3]).to_data() == before == times.to_data()
    # Of clients without a table nothing is told, rather than something wrong.
    with pytest.raises(IndexError):
        times.tabulated(NODES[:3]).in_time_prob([5], 1, 2.0)
