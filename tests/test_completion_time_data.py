"""Completion times: degenerate input, state in and out."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from fedgc.completion_times import FAMILIES, CompletionTimes, TimeObservation
from tests.observed_times import observed


@pytest.fixture(scope="module")
def times():
    return CompletionTimes().update(observed(np.random.default_rng(1), fixed=0.5, report=True))


# Input that is hardly any


def spread_out(rng):
    return [TimeObservation(i, 1, float(10 ** rng.uniform(-6, 6))) for i in range(20) for _ in range(6)]


DEGENERATE = {
    "nothing": [],
    "one": [TimeObservation(0, 1, 1.0)],
    "one silence": [TimeObservation(0, 1, 1.0, censored=True)],
    "all silent": [TimeObservation(i, 1, 5.0, censored=True) for i in range(9) for _ in range(9)],
    "identical": [TimeObservation(i, 2, 3.0) for i in range(9) for _ in range(40)],
    "twelve orders": spread_out(np.random.default_rng(0)),
    "twelve orders in one client": [TimeObservation(0, 1, 1e-6), TimeObservation(0, 1, 1e6)],
    "nothing but fixed": [TimeObservation(i, 1, 2.0, fixed_seconds=2.0 - 1e-12) for i in range(3)],
    "no fixed part": [TimeObservation(i, 1, 2.0, fixed_seconds=0) for i in range(3)],
    "a perfect line": [TimeObservation(0, k, 1.0 + k) for k in range(1, 6)],
    "extreme": [TimeObservation(0, 1e-6, 1e-300), TimeObservation(1, 1e6, 1e300)],
    "wide ids": [TimeObservation(2**64 - 1, 1, 1.0), TimeObservation(0, 1, 2.0)],
}


@pytest.mark.parametrize("family", ["auto", *FAMILIES])
@pytest.mark.parametrize("name", DEGENERATE)
def test_degenerate_input_gives_probabilities(name, family):
    seen = DEGENERATE[name]
    times = CompletionTimes(family=family).update(seen).update(seen[:1])
    nodes = [0, 1, 99]
    for deadline in (0.0, 1e-9, 2.0, 1e9, np.inf):
        for load in (0, 1, 3.5):
            p = times.in_time_prob(nodes, load, deadline)
            assert ((p >= 0.0) & (p <= 1.0)).all()
        for own in times.progress_prob(nodes, [0, 1, 3], deadline):
            assert own.sum() == pytest.approx(1.0, abs=1e-12)
            assert (own >= 0.0).all()
    missed = times.miss_prob_given_silent_until(nodes, 1, 1.0, 5.0)
    assert ((missed >= 0.0) & (missed <= 1.0)).all()
    for values in (times.seconds_per_shard(nodes), times.fixed_seconds(nodes), times.presence(nodes)):
        assert np.isfinite(values).all()
        assert (values >= 0.0).all()
    for fit in times.goodness_of_fit():
        assert np.isfinite([fit.mean_log_likelihood, fit.ks_distance]).all()
    data = json.loads(json.dumps(times.to_data()))
    again = CompletionTimes.from_data(data)
    assert again.to_data() == times.to_data()
    np.testing.assert_array_equal(again.reach(nodes, 3, 2.0), times.reach(nodes, 3, 2.0))


@given(
    st.lists(
        st.builds(
            TimeObservation,
            st.integers(0, 4),
            st.floats(0.1, 100.0),
            st.floats(1e-6, 1e6),
            censored=st.booleans(),
            complete=st.booleans(),
        ),
        max_size=25,
    )
)
@hypothesis_settings(max_examples=10, deadline=None)
def test_any_observations_give_probabilities_that_grow_with_time(seen):
    times = CompletionTimes().update(seen)
    steps = np.array([times.in_time_prob(range(6), 1.5, d) for d in (0.0, 1e-3, 0.1, 1.0, 10.0, 1e4, 1e9)])
    assert ((steps >= 0.0) & (steps <= 1.0)).all()
    assert (np.diff(steps, axis=0) >= -1e-12).all()


# State


def test_batches_keep_what_single_updates_keep():
    seen = observed(np.random.default_rng(3), n_clients=5, n_rounds=9)
    whole, bit_by_bit = CompletionTimes(window=4).update(seen), CompletionTimes(window=4)
    for start in range(0, len(seen), 7):
        bit_by_bit = bit_by_bit.update(seen[start : start + 7])
    for name in ("node_ids", "count", "shards", "seconds", "fixed_seconds", "censored", "complete"):
        np.testing.assert_array_equal(getattr(whole.history, name), getattr(bit_by_bit.history, name))
    own = [x for x in seen if x.node_id == 2][-4:]
    row, order = 2, np.argsort(-whole.history.age()[2])
    assert whole.history.seconds[row][order].tolist() == [x.seconds for x in own]


def test_update_leaves_the_old_state_as_it_was():
    before = CompletionTimes().update(observed(np.random.default_rng(4), 5, 3))
    data = json.dumps(before.to_data())
    before.update(observed(np.random.default_rng(5), 8, 3))
    with pytest.raises(ValueError, match=r"observations must be TimeObservation; got int"):
        before.update([1])  # type: ignore[list-item]
    assert json.dumps(before.to_data()) == data
    assert before.update([]) is before


def test_a_hundred_thousand_clients():
    rng = np.random.default_rng(12)
    seconds = np.exp(0.6 * rng.standard_normal(100_000)).tolist()
    times = CompletionTimes(window=4).update([TimeObservation(i, 1, x) for i, x in enumerate(seconds)])
    p = times.in_time_prob(np.arange(100_000), 1, 1.0)
    # Most of the spread is either between clients or between rounds, which one round cannot tell: near 1 / 2 on
    # average, standard error 0.5 / sqrt(400) of the fleet's 400 clients = 0.025, z = 3.
    assert p.mean() == pytest.approx(0.5, abs=0.075)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shards": 0}, "shards must be a finite number above 0"),
        ({"seconds": np.nan}, "seconds must be a finite number above 0"),
        ({"fixed_seconds": -1.0}, "fixed_seconds must be a finite number above 0"),
        ({"fixed_seconds": 5.0}, "fixed_seconds must be below seconds = 4; got 5"),
        ({"censored": 1}, "censored must be True or False"),
        ({"node_id": 1.5}, "node_id must be an integer"),
    ],
)
def test_observations_are_checked(change, message):
    with pytest.raises(ValueError, match=message):
        TimeObservation(**{"node_id": 1, "shards": 2.0, "seconds": 4.0, **change})


def test_arguments_are_checked(times):
    for options, message in [
        ({"family": "normal"}, "family must be one of"),
        ({"window": 0}, "window must be an integer"),
        ({"forgetting": 0.0}, "forgetting must lie in"),
        ({"slow_rounds": 1}, "slow_rounds must be True or False"),
    ]:
        with pytest.raises(ValueError, match=message):
            CompletionTimes(**options)
    with pytest.raises(ValueError, match="load must lie in"):
        times.in_time_prob([0], -1, 1.0)
    with pytest.raises(ValueError, match="deadline must be at least 0; got nan"):
        times.in_time_prob([0], 1, np.nan)
    with pytest.raises(ValueError, match="lengths must be integers of at least 0"):
        times.progress_prob([0], [1.5], 1.0)
    with pytest.raises(ValueError, match="node_ids must be integers"):
        times.presence([0.5])


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["version"], 2, "completion times must be in format version 3; got version 2"),
        (["family"], "x", "family must be one of"),
        (["count"], [1], "count must hold 30 integers"),
        (["observations", "seconds", 0, 0], -1.0, "seconds must be finite and above 0"),
        (["observations", "censored", 0, 0], 3.5, "censored must hold true and false"),
        (["observations", "fixed_seconds", 0, 0], 1e9, "fixed_seconds must lie in"),
        (["priors", "weibull", "slow_prob"], 1.5, "slow_prob in"),
        (["priors", "weibull", "spread"], [1.0], "two each of mean and spread"),
        (["scores"], {"weibull": None}, "data must be what to_data returns"),
        (["node_ids"], None, "must be"),
    ],
)
def test_data_are_checked(times, path, value, message):
    data = json.loads(json.dumps(times.to_data()))
    inside = data
    for key in path[:-1]:
        inside = inside[key]
    inside[path[-1]] = value
    with pytest.raises(ValueError, match=message):
        CompletionTimes.from_data(data)
    del data[path[0]]
    with pytest.raises(ValueError, match="data must be what to_data returns; got KeyError"):
        CompletionTimes.from_data(data)


def test_who_is_there_for_longer_than_can_be_is_no_division_by_zero() -> None:
    """Times that never vary, and then one wait of ten times as long by a client that says it is there."""
    seen = [
        TimeObservation(client, 1, seconds=(1.0 + 1e-15 * k) / 6.0, complete=False)
        for k in range(4)
        for client in range(20)
    ]
    late = TimeObservation(7, 1, seconds=1.7, censored=True, there=True, complete=False)
    times = CompletionTimes().update([*seen, late])
    reach = times.reach([7, 8], 3, 0.2)
    assert np.isfinite(reach).all() and 0.0 < reach[0, 1] <= reach[1, 1]


def test_node_ids_of_a_real_superlink_come_back() -> None:
    """They are unsigned 64-bit numbers, and some are farther apart than a signed one can tell."""
    far = [TimeObservation(node, shards=2, seconds=9.0) for node in (2**64 - 5, 2**63 - 1, 2**63 + 7, 3)]
    times = CompletionTimes().update(far)
    again = CompletionTimes.from_data(json.loads(json.dumps(times.to_data())))
    assert again.to_data() == times.to_data()
