"""What is learnt of failure domains: how often each is down as a whole, apart from what its clients miss."""

from __future__ import annotations

import itertools
import json
from typing import Any

import numpy as np
import pytest
from scipy.special import betaln

from fedgc.reliability import OutagePosterior

AFTER_UP, AFTER_DOWN = (0.5, 3.0), (1.5, 1.0)


def stationary() -> float:
    begin, stay = AFTER_UP[0] / sum(AFTER_UP), AFTER_DOWN[0] / sum(AFTER_DOWN)
    return begin / (begin + 1.0 - stay)


def enumerated(silence: list[float | None]) -> tuple[float, float, float]:
    """Return P(down in the last round) and the means of both probabilities, over all hidden states, exactly."""
    total, down, begin, stay = 0.0, 0.0, 0.0, 0.0
    for states in itertools.product((0, 1), repeat=len(silence) + 1):
        likelihood = stationary() if states[0] else 1.0 - stationary()
        counts = np.array([[*AFTER_UP], [*AFTER_DOWN]])
        for last, now, one in zip(states, states[1:], silence, strict=False):
            counts[last, 1 - now] += 1.0
            likelihood *= (0.0 if one is None else 1.0) if now else (1.0 if one is None else one)
        prior = betaln(*AFTER_UP) + betaln(*AFTER_DOWN)
        weight = likelihood * float(np.exp(betaln(*counts[0]) + betaln(*counts[1]) - prior))
        total += weight
        down += weight * states[-1]
        begin += weight * counts[0, 0] / counts[0].sum()
        stay += weight * counts[1, 0] / counts[1].sum()
    return down / total, begin / total, stay / total


def learnt(silence: list[float | None], forgetting: float = 1.0) -> OutagePosterior:
    posterior = OutagePosterior(AFTER_UP, AFTER_DOWN, forgetting).for_domains(1)
    for one in silence:
        posterior = posterior.update({0: one})
    return posterior


def means(posterior: OutagePosterior) -> Any:
    return posterior.counts[0, :, 0] / posterior.counts[0].sum(axis=1)


@pytest.mark.parametrize("seen", [None, 0.3, 0.01, 1.0])
def test_one_round_is_learnt_from_exactly(seen: float | None) -> None:
    posterior = learnt([seen])
    down, begin, stay = enumerated([seen])
    assert posterior.down[0] == pytest.approx(down, abs=1e-14)
    np.testing.assert_allclose(means(posterior), [begin, stay], rtol=1e-13)


def test_several_rounds_are_learnt_from_nearly_as_over_all_hidden_states() -> None:
    """What is judged once is not judged again, and mixtures become one distribution: that costs a few hundredths."""
    far = []
    for silence in itertools.product((None, 0.3, 0.02), repeat=5):
        posterior, (down, begin, stay) = learnt(list(silence)), enumerated(list(silence))
        far.append(np.abs([posterior.down[0] - down, *(means(posterior) - [begin, stay])]))
    assert np.max(far) < 0.1
    assert np.mean(far, axis=0).max() < 0.02


def test_where_silence_tells_nothing_nothing_is_learnt() -> None:
    """Clients that never reply leave their domain as unknown as it was, and do not make it any surer."""
    posterior = learnt([1.0] * 20)
    start = OutagePosterior(AFTER_UP, AFTER_DOWN).for_domains(1)
    assert posterior.outage_prob[0] == pytest.approx(start.outage_prob[0], rel=0.02)
    np.testing.assert_allclose(posterior.counts[0, 0], start.counts[0, 0], rtol=0.05)


@pytest.mark.parametrize(("begin", "stay"), [(0.1, 0.1), (0.05, 0.6), (0.0, 0.0)])
def test_how_often_a_domain_goes_down_and_stays_down_is_learnt(begin: float, stay: float) -> None:
    rng = np.random.default_rng(4)
    n, rounds, prob = 200, 300, np.array([0.2, 0.3, 0.5, 0.5])
    posterior, down = OutagePosterior(forgetting=1.0).for_domains(n), np.zeros(n, dtype=bool)
    said, truth = np.zeros(n), np.zeros(n)
    for t in range(rounds):
        down = rng.random(n) < np.where(down, stay, begin)
        came = (rng.random((n, 4)) >= prob) & ~down[:, None]
        if t >= rounds // 2:
            said, truth = said + posterior.outage_prob, truth + down
        posterior = posterior.update({d: None if came[d].any() else float(prob.prod()) for d in range(n)})
    found = posterior.counts[:, :, 0] / posterior.counts.sum(axis=2)
    assert found[:, 0].mean() == pytest.approx(begin, abs=0.007 + 3 * np.sqrt(begin / (rounds * n)))
    if begin:
        assert found[:, 1].mean() == pytest.approx(stay, abs=0.06)
    assert 2 * said.sum() / (n * rounds) == pytest.approx(2 * truth.sum() / (n * rounds), abs=0.01)


def test_what_is_known_of_other_domains_stays() -> None:
    posterior = OutagePosterior().for_domains(3).update({1: 0.01})
    np.testing.assert_array_equal(posterior.counts[[0, 2]], OutagePosterior().for_domains(2).counts)
    assert posterior.outage_prob[1] > 5 * posterior.outage_prob[0]
    assert posterior.update({}) is posterior
    assert posterior.for_domains(2) is posterior


def test_what_was_learnt_can_be_stored() -> None:
    posterior = learnt([0.1, None, 0.02], forgetting=0.9)
    again = OutagePosterior.from_data(json.loads(json.dumps(posterior.to_data())))
    np.testing.assert_array_equal(again.counts, posterior.counts)
    assert again.update({0: 0.3}).outage_prob == posterior.update({0: 0.3}).outage_prob


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"after_up": (0.0, 1.0)}, "after_up's pseudo-counts must be"),
        ({"after_down": 3.0}, "after_down must be two pseudo-counts, of down and of up; got 3.0"),
        ({"forgetting": 0.0}, r"forgetting must lie in \(0, 1\]; got 0.0"),
    ],
)
def test_bad_priors_are_told(given: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OutagePosterior(**given)


@pytest.mark.parametrize(
    ("silence", "message"),
    [
        ({2: 0.1}, r"silence must be of domains 0 .. 1; got \[2\]"),
        ({0: 1.5}, r"silence must be None or lie in \[0, 1\]"),
    ],
)
def test_bad_evidence_is_told(silence: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OutagePosterior().for_domains(2).update(silence)


def test_bad_data_is_told() -> None:
    data = learnt([0.1]).to_data()
    for change, message in (
        ({"format": "x"}, "format must be"),
        ({"counts": [[[0.0, 1.0], [1.0, 1.0]]]}, "counts must be above 0"),
        ({"down": [2.0]}, r"down must be finite and lie in \[0, 1\]"),
        ({"more": 1}, "data must have no key but"),
    ):
        with pytest.raises(ValueError, match=message):
            OutagePosterior.from_data({**data, **change})
