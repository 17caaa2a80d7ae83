"""Reliability as plain data, its summaries, and input that is off."""

from __future__ import annotations

import copy
import json
from functools import cache
from typing import Any

import numpy as np
import pytest

from fedgc.reliability import ReliabilityPosterior

#: A posterior whose learnt parts are still: fixed prior, one model.
from tests.reliability_worlds import (
    FLAT,
    PLAIN,
    after,
    without_shifts,
)

# --- storage, summaries, input --------------------------------------------------------------------------------------


@cache
def some_posterior(**options: Any) -> ReliabilityPosterior:
    rng = np.random.default_rng(12)
    posterior = ReliabilityPosterior(**options)
    for t in range(60):
        asked = rng.choice(12, 9, replace=False)
        arrived = {2**63 + int(i): bool(rng.random() < (0.99 if t < 45 or i % 3 else 0.01)) for i in asked}
        posterior = posterior.update(arrived | {7: 0.25 + 0.5 * (t % 2)})
    return posterior


@pytest.mark.parametrize("options", [{}, FLAT, {"conditional": False, "forgetting": 0.9}])
def test_the_round_trip_through_json_is_exact(options: dict[str, Any]) -> None:
    posterior = some_posterior(**options)
    # With a weak prior after a miss, a client that starts to miss is predicted at once: nothing need be reset.
    assert posterior.clients.resets.any() or options == FLAT
    again = ReliabilityPosterior.from_data(json.loads(json.dumps(posterior.to_data(), allow_nan=False)))
    assert again.to_data() == posterior.to_data()
    nodes = [*posterior.clients.index, 99]
    arrived = dict.fromkeys(nodes, False)
    for one, other in ((again, posterior), (again.update(arrived), posterior.update(arrived))):
        np.testing.assert_array_equal(one.straggle_prob(nodes), other.straggle_prob(nodes))
        assert one.describe(nodes) == other.describe(nodes)
        assert one.to_data() == other.to_data()
    start = ReliabilityPosterior(**options)
    assert ReliabilityPosterior.from_data(start.to_data()).to_data() == start.to_data()


def put(data: dict[str, Any], path: str, value: Any) -> None:
    *parents, last = path.split(".")
    for key in parents:
        data = data[key]
    data[last] = value


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("more", 1, r"^data must have no key but format, .*; got 'more'$"),
        ("clients.more", 1, r"^clients must have no key but node_ids, .*; got 'more'$"),
        ("format", "other", r"^format must be 'fedgc-reliability-2'; got 'other'$"),
        ("format", "fedgc-reliability-1", r"^format must be 'fedgc-reliability-2'; got 'fedgc-reliability-1'$"),
        ("forgetting", 0.0, r"^forgetting must lie in \(0, 1\]; got 0.0$"),
        ("forgetting", None, r"^forgetting must lie in \(0, 1\]; got None$"),
        ("conditional", 1, r"^conditional must be True or False; got 1$"),
        ("prior_misses", 1.0, r"^prior_arrivals and prior_misses must be given together; got None and 1.0$"),
        ("clients", [], r"^clients must be a mapping; got list$"),
        ("clients.node_ids", [1, 2], r"^last must have shape \(2,\); got shape \(13,\)$"),
        ("clients.node_ids", [1] * 13, r"^node_ids must be distinct; got 13 of which 1 differ$"),
        ("clients.node_ids", [1.5] * 13, r"^node_ids must be a list of integers$"),
        ("clients.node_ids", [True] * 13, r"^node_ids must be a list of integers$"),
        ("clients.last", [0.5] * 12, r"^last must have shape \(13,\); got shape \(12,\)$"),
        ("clients.last", [-0.5] * 13, r"^last must hold probabilities, or -1 for none; got -0.5$"),
        ("clients.before", [1.5] * 13, r"^before must be finite and lie in \[-1, 1\]; got 1.5$"),
        ("clients.score", [np.nan] * 13, r"^score must be finite and lie in \[0, inf\]; got nan$"),
        ("clients.score", ["1"] * 13, r"^score must be a list of numbers$"),
        ("clients.score", [[1.0], 2.0], r"^score must be a list of numbers$"),
        ("clients.score", None, r"^score must be a list of numbers$"),
        ("clients.shift", [0.5] * 13, r"^shift must have shape \(13, 4\); got shape \(13,\)$"),
        ("clients.shift", [[-0.1] * 4] * 13, r"^shift must be finite and lie in \[0, 1\]; got -0.1$"),
        ("clients.shift", [[0.3] * 4] * 13, r"^shift must hold probabilities of sum at most 1; got 1.2$"),
        ("clients.rounds", [0.5] * 13, r"^rounds must be a list of integers from 0 to 2\^53$"),
        ("clients.resets", [-1] * 13, r"^resets must be finite and lie in \[0, inf\]; got -1$"),
        ("clients.slow.rounds", [[-1.0] * 3] * 13, r"^slow rounds must be finite and lie in \[0, inf\]; got -1$"),
        ("clients.slow.misses", [[99.0] * 3] * 13, r"^slow misses must be at most slow rounds$"),
        ("clients.fast.squares", [[99.0] * 3] * 13, r"^fast squares must be at most fast rounds$"),
        ("clients.fast.alternations", [np.inf] * 13, r"^fast alternations must be finite and lie in .*; got inf$"),
        ("fleet.log_scores", [0.0], r"^log_scores must have shape \(\d,\); got shape \(1,\)$"),
        ("fleet.priors", [[0.0, 1.0, 0.0]] * 3, r"^priors must have pseudo-counts above 0; got 0$"),
        ("fleet.updates", -1, r"^updates must be an integer of at least 0; got -1$"),
        ("fleet.fitted_at", 1000, r"^fitted_at must be an integer from 0 to 60; got 1000$"),
    ],
)
def test_stored_data_that_is_off_is_refused(path: str, value: Any, message: str) -> None:
    data = copy.deepcopy(some_posterior().to_data())
    put(data, path, value)
    with pytest.raises(ValueError, match=message):
        ReliabilityPosterior.from_data(data)


@pytest.mark.parametrize("path", ["forgetting", "clients.slow", "clients.slow.rounds", "fleet.priors"])
def test_missing_keys_are_refused(path: str) -> None:
    data = copy.deepcopy(some_posterior().to_data())
    *parents, last = path.split(".")
    holder = data
    for key in parents:
        holder = holder[key]
    del holder[last]
    with pytest.raises(ValueError, match=rf"must have the key '{last}'"):
        ReliabilityPosterior.from_data(data)


def test_summaries_say_what_happened() -> None:
    posterior = after(after(ReliabilityPosterior(), [True, False], node=1), [0.5], node=2).update({3: True})
    summaries = posterior.describe([1, 2, 3, 4])
    assert [summary.node_id for summary in summaries] == [1, 2, 3, 4]
    assert [summary.rounds for summary in summaries] == [2, 1, 1, 0]
    assert [summary.last_outcome for summary in summaries] == ["missed", "unseen", "arrived", "none"]
    assert [summary.changed_at for summary in summaries] == [None] * 4
    assert [summary.straggle_prob for summary in summaries] == posterior.straggle_prob([1, 2, 3, 4]).tolist()
    low, high = posterior.credible_interval([1, 2, 3, 4], 0.9)
    assert [(summary.low, summary.high) for summary in summaries] == list(zip(low.tolist(), high.tolist(), strict=True))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"forgetting": 0.0}, r"forgetting must lie in \(0, 1\]; got 0.0"),
        ({"forgetting": 1.1}, r"forgetting must lie in \(0, 1\]; got 1.1"),
        ({"forgetting": np.nan}, r"forgetting must lie in \(0, 1\]; got nan"),
        ({"prior_misses": 1.0}, r"prior_arrivals and prior_misses must be given together; got None and 1.0"),
        ({"prior_arrivals": 0.0, "prior_misses": 1.0}, r"prior_arrivals must be a finite number above 0; got 0.0"),
        ({"conditional": "yes"}, r"conditional must be True or False; got 'yes'"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ReliabilityPosterior(**options)


@pytest.mark.parametrize(
    ("arrived", "message"),
    [
        ({1: True, 2: 1.5}, r"arrived must lie in \[0, 1\]; got 1.5 for node 2"),
        ({1: True, 2: np.nan}, r"arrived must lie in \[0, 1\]; got nan for node 2"),
        ({1: True, 2: None}, r"arrived must be True, False or a probability; got None for node 2"),
        ({1: True, 2: "0.5"}, r"arrived must be True, False or a probability; got '0.5' for node 2"),
        ({1: True, "2": True}, r"node_ids must be integers; got '2'"),
        ({5: True, False: True}, r"node_ids must be integers; got False"),
    ],
)
def test_bad_outcomes_are_refused_and_change_nothing(arrived: Any, message: str) -> None:
    posterior = after(ReliabilityPosterior(), [True, False], node=1)
    before = json.dumps(posterior.to_data())
    with pytest.raises(ValueError, match=message):
        posterior.update(arrived)
    assert json.dumps(posterior.to_data()) == before


@pytest.mark.parametrize("level", [0.0, 1.0, -1.0, np.nan, True, "0.9"])
def test_levels_lie_between_zero_and_one(level: Any) -> None:
    with pytest.raises(ValueError, match=r"level must lie in \(0, 1\)"):
        PLAIN.credible_interval([1], level)


def test_numpy_types_are_welcome() -> None:
    ids = np.array([3, 4])
    posterior = without_shifts(PLAIN.update(dict(zip(ids, np.array([True, False]), strict=True))))
    assert posterior.straggle_prob(ids).round(3).tolist() == [0.333, 0.667]
    assert posterior.straggle_prob([3, 3, 4]).round(3).tolist() == [0.333, 0.333, 0.667]
    assert posterior.straggle_prob([]).shape == (0,)
    json.dumps(posterior.to_data())
