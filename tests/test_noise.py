"""What residual error costs at a step size: the formula, and how it is learnt."""

from __future__ import annotations

import numpy as np
import pytest

from fedgc.coherence import CoherenceEstimate
from fedgc.deadline import AutomaticDeadline, RoundForecast, time_at_fixed_step, time_to_target
from fedgc.noise import NoiseSensitivity


def descend(
    curvatures: np.ndarray, step: float, error: float, rounds: int, rng: np.random.Generator
) -> tuple[NoiseSensitivity, list[float]]:
    """Run gradient descent on a quadratic with estimates of a relative squared error, and learn from them."""
    x, noise, losses = np.ones(curvatures.size) / np.sqrt(curvatures), NoiseSensitivity(), []
    for _ in range(rounds):
        gradient = curvatures * x
        deviation = np.sqrt(error * (gradient @ gradient) / gradient.size)
        direction = gradient + deviation * rng.standard_normal(gradient.size)
        noise = noise.update(-step * direction, error)
        losses.append(float(curvatures @ x**2) / 2.0)
        x = x - step * direction
    return noise, losses


@pytest.mark.parametrize("times_curvature", [0.3, 0.7, 1.0, 1.3, 1.7])
@pytest.mark.parametrize("error", [0.0, 0.5])
def test_the_curvature_along_the_step_is_found(times_curvature: float, error: float) -> None:
    curvatures = np.full(4000, 2.0)
    noise, _ = descend(curvatures, times_curvature / 2.0, error, 40, np.random.default_rng(1))
    # The prior counts as two rounds. Inner products with noise in 4000 dimensions deviate by sqrt(2 eps / 4000).
    expected = (40 - 1) / 41 * times_curvature + 2 / 41
    assert noise.curvature == pytest.approx(expected, abs=1e-9 if error == 0.0 else 0.05)
    assert noise.value == noise.curvature / (2.0 - noise.curvature)


@pytest.mark.parametrize("step", [0.1, 0.4, 0.6])
@pytest.mark.parametrize("error", [0.1, 0.4])
def test_the_time_at_a_fixed_step_is_what_a_round_gains(step: float, error: float) -> None:
    """On a quadratic of one curvature the expected gain of a step is known exactly."""
    curvature, rng = 2.0, np.random.default_rng(2)
    gradient = rng.standard_normal(5)
    sensitivity = step * curvature / (2.0 - step * curvature)

    def gain(eps: float) -> float:
        squared = float(gradient @ gradient)
        return step * squared - 0.5 * curvature * step**2 * squared * (1.0 + eps)

    forecast = RoundForecast(3.0, 1.0, error)
    assert time_at_fixed_step(forecast, sensitivity) == pytest.approx(3.0 * gain(0.0) / gain(error), rel=1e-12)


def test_to_first_order_it_is_the_time_with_the_best_step() -> None:
    forecast = RoundForecast(1.0, 1.0, 1e-6)
    assert time_at_fixed_step(forecast, 0.7) - time_to_target(forecast, 0.7) == pytest.approx(0.0, abs=1e-12)
    assert time_at_fixed_step(RoundForecast(1.0, 1.0, 2.0), 0.5) == np.inf
    assert time_at_fixed_step(RoundForecast(1.0, 1.0, np.inf), 0.0) == np.inf


def test_it_stays_between_bounds_and_passes_over_what_is_no_update() -> None:
    still, wild = NoiseSensitivity(), NoiseSensitivity()
    for number in range(30):
        still = still.update([1.0, 0.0], 0.0)
        wild = wild.update([(-1.5) ** number, 0.0], 0.0)
    assert (still.curvature, wild.curvature) == (0.2, 1.8)
    for bad in ([np.nan, 1.0], [np.inf, 0.0], [0.0, 0.0]):
        assert still.update(bad, 0.0) is still
    assert still.update([1.0, 0.0], np.inf) is still
    # After a change of the model there is nothing to compare with.
    assert still.update([1.0, 0.0, 0.0], 0.0).rounds == still.rounds


def test_with_a_memory_an_error_costs_as_much_as_changes_weigh() -> None:
    rng = np.random.default_rng(3)
    n, entries = 6, 50
    changes, sizes = rng.standard_normal((n, entries)), np.array([1.0, 2.0, 1.0, 3.0, 1.0, 2.0])
    coherence = CoherenceEstimate().update((changes**2).sum(axis=1), float((changes.sum(axis=0) ** 2).sum()))
    noise = NoiseSensitivity().update(10.0 * np.ones(entries), 0.0)
    part = sizes / sizes.sum()
    overlap = np.clip(coherence.overlap, 0.0, 0.999 * coherence.energy)
    expected = ((coherence.energy - overlap) * (part**2).sum() + overlap) / (100.0 * entries)
    assert noise.share_of_changes(coherence, sizes) == pytest.approx(expected, rel=1e-12)
    assert NoiseSensitivity().share_of_changes(coherence, sizes) == 1.0
    assert noise.share_of_changes(CoherenceEstimate(), sizes) == 1.0


def test_deadlines_do_not_shrink_to_where_nothing_is_learnt_from_a_round() -> None:
    """An error like one over the deadline makes time to target flat with the best step, but not with a fixed one."""

    def forecast(seconds: float) -> RoundForecast:
        return RoundForecast(seconds, seconds, 0.4 / seconds)

    rule = AutomaticDeadline(initial=1.0, cover=False)
    for sensitivity, least in ((0.5, 0.2), (1.0, 0.4), (3.0, 1.2)):
        deadline, last = rule.initial, None
        for _ in range(20):
            last = deadline
            deadline = rule.choose(outlook(forecast, last, sensitivity))
        # The least of t / (1 - s / t), with s = sensitivity x 0.4, is at 2 s.
        assert deadline == pytest.approx(2.0 * least, rel=0.1)


def outlook(forecast: object, last: float, sensitivity: float) -> object:
    from fedgc.deadline import Outlook  # noqa: PLC0415
    from fedgc.fleets import build_fleet  # noqa: PLC0415

    fleet = build_fleet({"preset": "lognormal", "clients": 3}, seed=1)
    return Outlook(fleet, np.ones(3, dtype=np.intp), 3, last, forecast, sensitivity)  # type: ignore[arg-type]


@pytest.mark.parametrize("schedule", ["work-list", "full"])
def test_a_biased_decoder_does_not_send_deadlines_to_zero(schedule: str) -> None:
    """Its residual error is one at most, by which the shortest deadline would be the best."""
    from fedgc.experiment.config import check_config  # noqa: PLC0415
    from fedgc.experiment.sweep import run_experiment  # noqa: PLC0415

    def seconds_of(decoder: str) -> float:
        coded = {"kind": "gradient-coding", "label": "x", "schedule": schedule, "memory": True, "decoder": decoder}
        raw = {
            "name": "n",
            "rounds": 12,
            "seeds": [1],
            "task": {"name": "digits-regression", "shards": 12},
            "fleet": {"preset": "uneven", "clients": 6},
            "strategies": [{**coded, "deadline": 2.0, "deadline_rule": "auto", "deadline_cover": False}],
        }
        return run_experiment(check_config(raw))[-1].seconds

    biased, unbiased = seconds_of("least-squares"), seconds_of("optimal-unbiased")
    assert biased == pytest.approx(unbiased, rel=0.5)
