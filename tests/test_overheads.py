"""Clients stop in time to be heard: how much time is left for a reply, and what a plan makes of it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from fedgc.clients import gradient_coded
from fedgc.strategies import GradientCoding
from fedgc.strategies.options import as_decoder
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import ClientAppCallable
from hypothesis import given
from hypothesis import strategies as st

from fedgc.completion_times import CompletionTimes, Overheads, TimeObservation
from fedgc.deadline import FixedDeadline
from fedgc.fleets import build_fleet
from fedgc.protocol import BUDGET, DEADLINE, RECORD
from fedgc.round import Planning, RoundState
from fedgc.round.before.timing import list_timing
from tests.apps import N_SHARDS, train, train_shard


def test_a_constant_overhead_is_left_and_no_more() -> None:
    known = Overheads()
    for _ in range(20):
        known = known.update({1: 0.2, 2: 3.0})
    assert known.allowance([1, 2], deadline=10.0).tolist() == [0.2, 3.0]


@given(
    own=st.lists(st.floats(0.0, 20.0), min_size=1, max_size=40),
    others=st.lists(st.floats(0.0, 20.0), max_size=40),
    deadline=st.floats(0.5, 30.0),
)
def test_no_other_allowance_has_more_work_heard_of(own: list[float], others: list[float], deadline: float) -> None:
    known = Overheads()
    for node, seen in ((1, own), (2, others)):
        for value in seen:
            known = known.update({node: value})
    left = float(known.allowance([1], deadline)[0])
    assert 0.0 <= left < deadline
    kept = np.array([value for seen in known.seconds.values() for value in seen])
    fleet = np.quantile(kept, np.arange(1, 21) / 20, method="inverted_cdf")

    def heard(allowance: float) -> float:
        mine = np.array(own[-32:])
        return (deadline - allowance) * float((mine <= allowance).sum() + (fleet <= allowance).mean())

    if (kept < deadline).any():
        grid = np.append(np.linspace(0.0, deadline, 200, endpoint=False), kept[kept < deadline])
        assert heard(left) >= max(heard(other) for other in grid) - 1e-9


def test_where_no_overhead_leaves_time_half_of_it_is_left_all_the_same() -> None:
    assert Overheads().update({1: 9.0}).allowance([1, 5], deadline=4.0).tolist() == [2.0, 2.0]
    assert Overheads().allowance([1, 5], deadline=4.0).tolist() == [0.0, 0.0]


def test_only_the_last_32_count() -> None:
    known = Overheads()
    for value in range(100):
        known = known.update({3: float(value)})
    assert known.seconds[3] == tuple(float(v) for v in range(68, 100))


def test_state_is_plain_data() -> None:
    known = Overheads().update({2**64 - 1: 0.1, 5: 1.0 / 3.0})
    assert Overheads.from_data(json.loads(json.dumps(known.to_data()))) == known


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"version": 2, "seconds": {}},
        {"version": 1, "seconds": {"x": [1.0]}},
        {"version": 1, "seconds": {"1": [-1.0]}},
        {"version": 1, "seconds": {"1": [float("nan")]}},
        {"version": 1, "seconds": [1.0]},
    ],
)
def test_data_of_something_else_is_refused(data: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="must"):
        Overheads.from_data(data)


def test_progress_is_predicted_up_to_the_end_of_the_budget() -> None:
    times = CompletionTimes().update(
        [TimeObservation(7, shards=2, seconds=3.0 + 0.01 * k, fixed_seconds=1.0) for k in range(20)]
    )
    # One second per shard and one beside it. Whoever stops two seconds before the deadline has a second less to work.
    told = times.reach([7], 6, 6.0, allowance=[2.0])
    np.testing.assert_array_equal(told, times.reach([7], 6, 5.0))
    np.testing.assert_array_equal(times.reach([7], 6, 6.0, allowance=[0.5]), times.reach([7], 6, 6.0))
    assert told[0, 3] > 0.9 > told[0, 5]
    with pytest.raises(ValueError, match="allowance"):
        times.reach([7], 6, 6.0, allowance=[-1.0])


def planning(*, shared_clock: bool) -> Planning:
    deadline, decoder = FixedDeadline(6.0), as_decoder("auto", None)
    return Planning(load=2, decoder=decoder, schedule="work-list", deadline=deadline, shared_clock=shared_clock)


def test_clients_that_go_by_the_servers_clock_work_until_the_deadline() -> None:
    """In virtual time, whatever their overheads are: a deadline is an instant that they know."""
    told: list[tuple[float, float]] = []

    def note(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        record = message.content.config_records.get(RECORD)
        if record is not None and BUDGET in record:
            told.append((record[BUDGET], record[DEADLINE]))  # type: ignore[arg-type]
        return call_next(message, context)

    app = ClientApp()
    app.train(mods=[note])(gradient_coded(num_shards=N_SHARDS)(train_shard))
    fleet = build_fleet(
        {"model": "shifted-exponential", "clients": 6, "overhead": 0.5, "delay": 0.5, "shift": 0.5, "mean": 0.0}, seed=1
    )
    strategy = GradientCoding(num_shards=N_SHARDS, schedule="work-list", deadline=4.0)
    assert not strategy.planning.shared_clock
    train(strategy, fleet, rounds=4, app=app)
    assert strategy.planning.shared_clock and len(told) > 12 and {one == other for one, other in told} == {True}
    assert max(max(seen) for seen in strategy.state.overheads.seconds.values()) > 0.6


def test_what_is_foreseen_of_them_is_that_they_know_when_to_stop() -> None:
    times, overheads = CompletionTimes(), Overheads()
    for k in range(20):
        seen = [TimeObservation(node, 2, 3.0 + 0.01 * k, fixed_seconds=1.0 + 0.01 * k) for node in (7, 8)]
        times, overheads = times.update(seen), overheads.update({7: 1.0, 8: 3.0})
    state = RoundState(np.full(12, 2.0), completion_times=times, overheads=overheads, rounds=20)
    by_budget, by_clock = (list_timing(state, (7, 8), planning(shared_clock=way))[0] for way in (False, True))
    lengths = np.array([6, 6])
    assert np.allclose(by_clock.partial_reach(6.0, lengths)[0], by_clock.partial_reach(6.0, lengths)[1])
    short, whole = by_budget.partial_reach(6.0, lengths)[1, 4], by_clock.partial_reach(6.0, lengths)[1, 4]
    assert whole == pytest.approx(0.5, abs=0.01) and short < 0.1 * whole  # nobody has been seen to come or to stay away
