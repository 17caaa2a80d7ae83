"""Block-coordinate gradient coding: runtimes against a played queue, splits against a linear programme, exact codes."""

from __future__ import annotations

import itertools
import re

import cvxpy as cp
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.integrate import quad
from scipy.special import exp1

from fedgc.block_coordinates import (
    BlockCoordinateCode,
    ShiftedExponentialTimes,
    best_single_layer,
    equalising_split,
    exact_code,
    hierarchical_split,
    mean_runtime_bound,
    optimal_split,
    runtime,
    single_layer,
    two_layers,
    whole_coordinates,
)
from fedgc.block_coordinates.subgradient import onto_simplex, subgradient
from fedgc.fleets import ShiftedExponentialFleet

Vector = NDArray[np.float64]
RISE = "order_times must be finite, above 0, and rise from the fastest on; got "
PAPER = ShiftedExponentialTimes(shift=50.0, mean=1000.0)


def sample_optimum(times: Vector) -> tuple[float, Vector]:
    """Return the least mean runtime over these rows of times and the shares that attain it, by a linear programme."""
    n = times.shape[1]
    slowest_first = np.sort(times, axis=1)[:, ::-1]
    share, end = cp.Variable(n, nonneg=True), cp.Variable(times.shape[0])
    work = cp.cumsum(cp.multiply(np.arange(1.0, n + 1.0), share))
    limits = [end >= cp.multiply(slowest_first[:, k], work[k]) for k in range(n)]
    problem = cp.Problem(cp.Minimize(cp.sum(end) / times.shape[0]), [cp.sum(share) == 1.0, *limits])
    problem.solve(solver=cp.HIGHS)
    return float(problem.value), np.maximum(share.value, 0.0)


def two() -> BlockCoordinateCode:
    return BlockCoordinateCode([1, 1], rng=np.random.default_rng(0))


def played(sizes: NDArray[np.intp], times: Vector) -> float:
    """Return when the last coordinate can be decoded, by following every client through every coordinate."""
    n = times.size
    clocks, ends = np.zeros(n), []
    for copies, size in enumerate(sizes, 1):
        for _ in range(size):
            clocks = clocks + copies * times
            ends.append(np.sort(clocks)[n - copies])
    return float(max(ends))


@pytest.mark.parametrize("seed", range(20))
def test_the_runtime_is_that_of_clients_followed_coordinate_by_coordinate(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 7))
    sizes = rng.integers(0, 4, n) * (rng.random(n) < 0.7)
    sizes[rng.integers(n)] += 1
    times = rng.exponential(size=(3, n)) + 0.1
    np.testing.assert_allclose(runtime(sizes, times), [played(sizes, row) for row in times], rtol=1e-12)


def test_clients_that_do_not_work_cost_nothing_where_enough_copies_are() -> None:
    assert runtime([0, 0, 4], [1.0, np.inf, np.inf]).item() == 12.0
    assert runtime([0, 4, 0], [1.0, 2.0, np.inf]).item() == 16.0
    assert runtime([4, 0, 0], [1.0, 2.0, np.inf]).item() == np.inf


def test_order_statistics_of_the_shifted_exponential() -> None:
    for n in (1, 2, 10, 50):
        drawn = np.sort(PAPER.draw(n, 40_000, np.random.default_rng(n)), axis=1)
        for value, mean in ((drawn, PAPER.order_means(n)), (1.0 / drawn, PAPER.order_inverse_means(n))):
            z = (value.mean(axis=0) - mean) / (value.std(axis=0) / np.sqrt(40_000))
            assert np.abs(z).max() < 4.5
        # The fastest of N is shifted exponential again: E[1 / T_(1)] is an exponential integral.
        exact = n / 1000.0 * np.exp(n * 0.05) * exp1(n * 0.05)
        assert PAPER.order_inverse_means(n)[0] == pytest.approx(exact, rel=1e-10)
        # And the sum over all places is N times the mean of any.
        assert PAPER.order_inverse_means(n).sum() == pytest.approx(n * PAPER.order_inverse_means(1)[0], rel=1e-9)
    assert quad(lambda y: np.exp(-y) / (50.0 + 1000.0 * y), 0.0, np.inf)[0] == pytest.approx(
        PAPER.order_inverse_means(1)[0], rel=1e-7
    )


def test_times_are_those_of_the_fleet_of_this_name() -> None:
    fleet = ShiftedExponentialFleet(400, seed=3, shift=50.0, mean=1000.0)
    own = np.sort([fleet.draw(client, 1, now=0.0).per_shard for client in range(400)])
    drawn = PAPER.draw(400, 1, np.random.default_rng(0))[0]
    for times in (own, drawn):
        # Kolmogorov and Smirnov's distance from the distribution, below its 0.1 % point.
        at = 1.0 - np.exp(-(np.sort(times) - 50.0) / 1000.0)
        assert np.abs(at - (np.arange(400) + 0.5) / 400).max() < 1.95 / 20.0


@pytest.mark.parametrize("n", [1, 2, 5, 9])
def test_the_closed_form_is_optimal_for_times_that_are_certain(n: int) -> None:
    rng = np.random.default_rng(n)
    times = np.sort(rng.exponential(size=n) + 0.01)
    split = equalising_split(times, 100.0)
    assert split.sum() == pytest.approx(100.0) and (split >= 0.0).all()
    work = np.cumsum(np.arange(1, n + 1) * split)
    np.testing.assert_allclose(times[::-1] * work, runtime(split, times), rtol=1e-9)
    assert 100.0 * sample_optimum(times[None])[0] == pytest.approx(runtime(split, times).item(), rel=1e-7)


def test_clients_that_are_all_as_fast_need_no_copies() -> None:
    assert equalising_split([2.0] * 4, 12.0).tolist() == [12.0, 0.0, 0.0, 0.0]
    assert best_single_layer([2.0] * 4, 12.0).tolist() == [12.0, 0.0, 0.0, 0.0]


@pytest.mark.parametrize("n", [2, 4, 6])
def test_the_subgradient_method_finds_the_optimum_of_a_sample(n: int) -> None:
    """Draws are rows of a fixed sample, whose exact optimum a linear programme tells."""
    sample = PAPER.draw(n, 400, np.random.default_rng(n))
    value, shares = sample_optimum(sample)
    assert runtime(shares, sample).mean() / shares.sum() == pytest.approx(value, rel=1e-6)
    start = np.zeros(n)
    start[0] = 1.0  # nothing coded, far from the optimum
    split = optimal_split(
        lambda k, rng: sample[rng.integers(400, size=k)], 7.0, start=start, rng=np.random.default_rng(0)
    )
    assert split.sum() == pytest.approx(7.0)
    found = runtime(split / 7.0, sample).mean()
    assert value * (1.0 - 1e-9) <= found <= value * 1.002
    assert runtime(start, sample).mean() > 1.05 * value
    # That it is near the optimum it can tell by itself.
    assert 7.0 * value * 0.95 < mean_runtime_bound(split, sample) <= 7.0 * value * (1.0 + 1e-9)
    assert mean_runtime_bound(start, sample) <= value


def test_the_subgradient_supports_the_mean_runtime_from_below() -> None:
    rng = np.random.default_rng(0)
    times = PAPER.draw(5, 50, rng)
    for _ in range(50):
        x, y = rng.dirichlet(np.ones(5), 2)
        linear = runtime(x, times).mean() + subgradient(x, times) @ (y - x)
        assert linear <= runtime(y, times).mean() * (1.0 + 1e-12)
        # The runtime is positively homogeneous: the subgradient gives its value.
        assert subgradient(x, times) @ x == pytest.approx(runtime(x, times).mean(), rel=1e-12)


def test_projections_onto_the_simplex_are_nearest() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        point = rng.normal(size=4)
        y = cp.Variable(4, nonneg=True)
        cp.Problem(cp.Minimize(cp.sum_squares(y - point)), [cp.sum(y) == 1.0]).solve(solver=cp.CLARABEL)
        np.testing.assert_allclose(onto_simplex(point), y.value, atol=1e-6)


def test_no_split_beats_the_bound_from_mean_times_and_the_optimum_is_ahead_of_the_others() -> None:
    n, drawn = 10, PAPER.draw(10, 20_000, np.random.default_rng(1))
    means = PAPER.order_means(n)
    closed = [equalising_split(times, 1.0) for times in (means, 1.0 / PAPER.order_inverse_means(n))]
    best = optimal_split(lambda k, rng: PAPER.draw(n, k, rng), 1.0, start=closed[0], rng=np.random.default_rng(2))
    others = [
        *closed,
        best_single_layer(means, 1.0),
        single_layer(n, 1.0, 0),
        single_layer(n, 1.0, 2),
        two_layers(n, 1.0, 3, slowdown=5.0),
        hierarchical_split(means, 1.0, 100),
    ]
    bound = runtime(closed[0], means).item()
    least = runtime(best, drawn)
    for split in others:
        assert split.sum() == pytest.approx(1.0)
        gap = runtime(split, drawn) - least
        assert gap.mean() > 4.0 * gap.std() / np.sqrt(20_000)
    assert bound < least.mean()


def test_a_single_layer_has_a_mean_runtime_in_closed_form() -> None:
    means = PAPER.order_means(8)
    drawn = PAPER.draw(8, 20_000, np.random.default_rng(0))
    exact = np.array([runtime(single_layer(8, 3.0, s), means).item() for s in range(8)])
    np.testing.assert_allclose(exact, 3.0 * np.arange(1, 9) * means[::-1], rtol=1e-12)
    simulated = [runtime(single_layer(8, 3.0, s), drawn).mean() for s in range(8)]
    np.testing.assert_allclose(simulated, exact, rtol=0.03)
    assert best_single_layer(means, 3.0)[exact.argmin()] == 3.0


def test_stragglers_of_the_assumed_slowdown_end_their_two_layers_in_time() -> None:
    for s, slowdown in ((1, 2.0), (2, 6.5), (4, 1.0)):
        split = two_layers(5, 10.0, s, slowdown)
        assert split.sum() == pytest.approx(10.0)
        both_end = split[0] + (s + 1) * split[s]
        times = np.ones(5)
        times[:s] = slowdown
        assert slowdown * split[0] == pytest.approx(both_end) == pytest.approx(runtime(split, times).item())


@pytest.mark.parametrize(("n", "r"), [(2, 1), (3, 3), (3, 4), (4, 4)])
def test_the_layers_are_the_best_of_all_choices(n: int, r: int) -> None:
    for seed in range(5):
        times = np.sort(np.random.default_rng(seed).exponential(size=n) + 0.05)
        ends = {}
        for chosen in itertools.product(range(1, n + 1), repeat=r):
            end = max(layer * times[k - 1] for layer, k in enumerate(chosen, 1)) / sum(chosen)
            ends[chosen] = end
        least = min(ends.values())
        splits = [
            np.bincount([n - k for k in chosen], chosen, n) / sum(chosen)
            for chosen, end in ends.items()
            if end <= least * (1.0 + 1e-9)
        ]
        split = hierarchical_split(times, 1.0, r)
        assert min(np.abs(split - other).max() for other in splits) < 1e-12


def test_more_layers_come_nearer_to_those_of_no_thickness() -> None:
    times = PAPER.order_means(6)
    k = np.arange(1, 7)
    limit = k * (1.0 / times - np.append(1.0 / times[1:], 0.0))
    limit = limit[::-1] / limit.sum()
    for r in (10, 100, 1000, 10_000):
        assert np.abs(hierarchical_split(times, 1.0, r) - limit).max() < 6.0 / r


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 6, 7])
def test_every_block_is_decoded_exactly_from_every_set_that_is_enough(n: int) -> None:
    rng = np.random.default_rng(n)
    sizes = rng.integers(1, 4, n)
    code = BlockCoordinateCode(sizes, rng=rng)
    gradients = rng.normal(size=(n, sizes.sum()))
    sent = np.stack([code.encode(client, gradients) for client in range(n)])
    scale = np.abs(gradients.sum(axis=0)).max()
    for copies in range(1, n + 1):
        own = code.codes[copies]
        assert all(own.shards_of(client).size == copies for client in range(n))
        for missing in range(copies):
            for stragglers in itertools.combinations(range(n), missing):
                # The stragglers of this block have done all before it, and what they would send is not looked at.
                done = np.full(n, n)
                done[list(stragglers)] = copies - 1
                rest = sent.copy()
                rest[list(stragglers), code.coordinates_of(copies).start :] = np.nan
                partial = BlockCoordinateCode(np.where(np.arange(1, n + 1) == copies, sizes, 0), rng=rng)
                partial.codes[copies] = own
                block = code.coordinates_of(copies)
                decoded = partial.decode(rest[:, block], done)
                np.testing.assert_allclose(decoded, gradients[:, block].sum(axis=0), rtol=0.0, atol=1e-10 * scale)
        few = np.full(n, n)
        few[:copies] = copies - 1
        with pytest.raises(ValueError, match=f"^blocks_done must let block {copies} be decoded"):
            code.decode(sent, few)


@pytest.mark.parametrize("seed", range(10))
def test_a_round_is_decoded_at_its_runtime_and_not_before(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 9))
    times = PAPER.draw(n, 1, rng)[0]
    sizes = whole_coordinates(equalising_split(PAPER.order_means(n), 1.0), 60)
    code = BlockCoordinateCode(sizes, rng=rng)
    gradients = rng.normal(size=(n, 60))
    sent = np.stack([code.encode(client, gradients) for client in range(n)])
    end = runtime(sizes, times).item()
    done = code.done_at(end, times)
    unsent = np.arange(60) >= np.concatenate(([0], np.cumsum(sizes)))[done][:, None]
    sent[unsent] = np.nan
    np.testing.assert_allclose(code.decode(sent, done), gradients.sum(axis=0), rtol=0.0, atol=1e-10 * n)
    with pytest.raises(ValueError, match="be decoded, which needs"):
        code.decode(sent, code.done_at(end * (1.0 - 1e-9), times))


def test_whole_coordinates_sum_up_and_are_off_by_less_than_one() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        n, total = int(rng.integers(1, 60)), int(rng.integers(1, 30_000))
        split = rng.dirichlet(np.full(n, 0.3)) + 1e-12
        sizes = whole_coordinates(split, total)
        assert sizes.sum() == total and sizes.min() >= 0
        assert np.abs(sizes - split * total / split.sum()).max() < 1.0 + 1e-6
    assert whole_coordinates([1.0, 2.0, 3.0], 60).tolist() == [10, 20, 30]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: runtime([1.0, -1.0], [1.0, 2.0]),
            "split must be finite numbers of at least 0, not all 0; got [1.0, -1.0]",
        ),
        (
            lambda: runtime([0.0, 0.0], [1.0, 2.0]),
            "split must be finite numbers of at least 0, not all 0; got [0.0, 0.0]",
        ),
        (lambda: runtime([[1.0]], [1.0]), "split must have one entry per client, in one dimension; got shape (1, 1)"),
        (lambda: runtime([1.0, 1.0], [1.0]), "times must have one entry per block in the last axis, 2; got shape (1,)"),
        (lambda: runtime([1.0, 1.0], [1.0, 0.0]), "times must be above 0; got 0"),
        (lambda: runtime([1.0, 1.0], [1.0, np.nan]), "times must be above 0; got nan"),
        (
            lambda: mean_runtime_bound([1.0, 1.0], [1.0, 2.0]),
            "times must have shape (n_draws, 2); got shape (2,)",
        ),
        (lambda: mean_runtime_bound([1.0], [[np.inf]]), "times must be above 0 and finite; got inf"),
        (lambda: equalising_split([2.0, 1.0], 4.0), RISE + "[2.0, 1.0]"),
        (lambda: equalising_split([1.0, 2.0], 0.0), "n_coordinates must be a finite number above 0; got 0.0"),
        (lambda: hierarchical_split([0.0, 1.0], 4.0, 2), RISE + "[0.0, 1.0]"),
        (lambda: hierarchical_split([1.0], 4.0, 0), "n_layers must be an integer of at least 1; got 0"),
        (lambda: single_layer(3, 4.0, 3), "n_stragglers must be an integer from 0 to 2; got 3"),
        (lambda: two_layers(3, 4.0, 1, 0.5), "slowdown must be a finite number of at least 1; got 0.5"),
        (lambda: whole_coordinates([1.0], 0), "n_coordinates must be an integer of at least 1; got 0"),
        (lambda: ShiftedExponentialTimes(-1.0, 1.0), "shift must be a finite number of at least 0; got -1.0"),
        (lambda: ShiftedExponentialTimes(1.0, 0.0), "mean must be a finite number above 0; got 0.0"),
        (
            lambda: ShiftedExponentialTimes(0.0, 1.0).order_inverse_means(2),
            "shift must be above 0 for the mean of 1 / T, which is infinite otherwise; got 0",
        ),
        (lambda: exact_code(3, 4, np.random.default_rng()), "copies must be an integer from 1 to 3; got 4"),
        (
            lambda: BlockCoordinateCode([0, 0], rng=np.random.default_rng()),
            "number of coordinates must be an integer of at least 1; got 0",
        ),
        (lambda: two().encode(2, np.ones((2, 2))), "client must be an integer from 0 to 1; got 2"),
        (lambda: two().encode(0, np.ones((2, 3))), "gradients must have shape (2, 2); got shape (2, 3)"),
        (lambda: two().decode(np.ones((2, 2)), [1, 3]), "blocks_done must be 2 integers from 0 to 2; got [1, 3]"),
        (
            lambda: optimal_split(lambda k, rng: np.ones((k, 3)), 1.0, start=[1.0, 1.0], rng=np.random.default_rng(0)),
            "draw_times must return an array of shape (200, 2); got (200, 3)",
        ),
    ],
)
def test_bad_input_gives_one_line(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        call()  # type: ignore[operator]
