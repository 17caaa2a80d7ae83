"""The convergence bounds against processes whose moments are known exactly."""

from __future__ import annotations

import numpy as np
import pytest

from fedgc.bounds import smooth_bound, smooth_strongly_convex_bound, strongly_convex_bound


@pytest.mark.parametrize("residual_error", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("strong_convexity", [0.2, 1.0, 3.0])
def test_decaying_steps_stay_below_the_bounds(residual_error: float, strong_convexity: float) -> None:
    """On f = lambda |theta|^2 / 2 with relative noise, E|theta|^2 follows a recursion in one number."""
    rounds, start, lam = 200, 4.0, strong_convexity
    options = {"residual_error": residual_error, "gradient_bound": lam * np.sqrt(start), "strong_convexity": lam}
    distance = strongly_convex_bound(rounds, **options)
    loss = smooth_strongly_convex_bound(rounds, smoothness=lam, **options)
    second_moment = start
    for t in range(1, rounds + 1):
        assert second_moment <= distance[t - 1]
        assert lam / 2 * second_moment <= loss[t - 1]
        step = 1 / (lam * t)
        second_moment *= (1 - step * lam) ** 2 + step**2 * lam**2 * residual_error


@pytest.mark.parametrize("residual_error", [0.0, 0.3, 2.0])
@pytest.mark.parametrize("step", [0.05, 0.5, 1.0])
def test_constant_steps_stay_below_the_bound_and_reach_its_floor_from_below(residual_error: float, step: float) -> None:
    """Noise of constant energy residual_error x B^2 on f = theta^2 / 2: the worst that the bound allows for."""
    rounds, start, gradient_bound = 3000, 4.0, 2.0
    options = {"gradient_bound": gradient_bound, "smoothness": 1.0, "step": step, "excess_loss": start / 2}
    bound = smooth_bound(rounds, residual_error=residual_error, **options)
    second_moment, total = start, 0.0
    for t in range(1, rounds + 1):
        total += second_moment
        assert total / t <= bound[t - 1] * (1 + 1e-12)
        second_moment = (1 - step) ** 2 * second_moment + step**2 * residual_error * gradient_bound**2
    if residual_error and step == 1.0:
        assert bound[-1] == pytest.approx(second_moment, rel=0.01)  # attained


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rounds": 0}, "rounds must be an integer of at least 1; got 0"),
        ({"residual_error": -1.0}, "residual_error must be a finite number of at least 0; got -1.0"),
        ({"step": 3.0}, "step must be at most 1 / smoothness = 1; got 3.0"),
        ({"gradient_bound": 0.0}, "gradient_bound must be a finite number above 0; got 0.0"),
    ],
)
def test_impossible_arguments_are_refused(change: dict[str, float], message: str) -> None:
    options = {"rounds": 2, "residual_error": 1.0, "gradient_bound": 1.0, "smoothness": 1.0, "step": 1.0}
    with pytest.raises(ValueError, match=message):
        smooth_bound(**{**options, "excess_loss": 1.0, **change})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"smoothness must be at least strong_convexity = 2\.0; got 1\.0"):
        smooth_strongly_convex_bound(2, residual_error=0.1, gradient_bound=1.0, strong_convexity=2.0, smoothness=1.0)
