"""The sums that a server makes of large arrays, against plain double precision."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fedgc.updates import ScaledDifference, add_combination, is_shorter, zero_update
from fedgc.updates.weighted_sum import add_weighted, squared_length


def some(rng: np.random.Generator, size: int, kind: str) -> NDArray[Any]:
    return (8.0 * rng.standard_normal(size)).astype(kind)


@pytest.mark.parametrize("kind", ["f4", "f8"])
@pytest.mark.parametrize("size", [0, 1, 1023, 1024, 65_537, 200_000])
@pytest.mark.parametrize("n_arrays", [1, 2, 8, 9, 20])
def test_every_entry_is_summed_whatever_the_size(kind: str, size: int, n_arrays: int) -> None:
    rng = np.random.default_rng(size + n_arrays)
    news = [some(rng, size, "f2" if k == 3 else "i4" if k == 4 and kind == "f8" else kind) for k in range(n_arrays)]
    olds = [some(rng, size, kind) if k % 2 else None for k in range(n_arrays)]
    weights = rng.standard_normal((2, n_arrays))
    weights[0, -1] = 0.0
    totals = [np.ones(size, kind), np.zeros(size, kind)]
    add_weighted(totals, weights, news, olds)
    exact = [new.astype(float) - (0.0 if old is None else old) for new, old in zip(news, olds, strict=True)]
    for total, factors, start in zip(totals, weights, (1.0, 0.0), strict=True):
        expected = start + sum(factor * one for factor, one in zip(factors, exact, strict=True))
        np.testing.assert_allclose(total, expected, rtol=0.0, atol=1e-4 if kind == "f4" else 1e-12)


def test_small_changes_of_large_numbers_keep_their_digits() -> None:
    """Summed as models and not as differences, a thousandth of the change would be lost to rounding."""
    old = np.full(2000, 4096.0, dtype=np.float32)
    change = np.float32(2.0**-9)
    total = np.zeros(2000, dtype=np.float32)
    add_weighted([total], np.full((1, 7), 1.0 / 7.0), [old + change] * 7, [old] * 7)
    np.testing.assert_allclose(total, change, rtol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 1500, 69_999])
@pytest.mark.parametrize("weight", [0.0, 0.5, 1e-60])
def test_what_is_not_finite_shows_whatever_its_weight(bad: float, place: int, weight: float) -> None:
    news = [np.ones(70_000, dtype=np.float32) for _ in range(3)]
    assert is_shorter({"w": news[1]}, 1e10)
    news[1][place] = bad
    total = np.zeros(70_000, dtype=np.float32)
    add_weighted([total], np.array([[0.3, weight, 0.3]]), news, [None, np.ones(70_000, dtype=np.float32), None])
    assert not np.isfinite(total[place])
    assert np.isfinite(total).sum() == 69_999
    assert not np.isfinite(squared_length(news[1]))
    assert not is_shorter(ScaledDifference({"w": news[1]}, {"w": news[0]}, 0.0), 1e10)


@pytest.mark.parametrize("kind", ["f2", "f4", "f8", "i8", "?"])
def test_sum_of_squares_is_that_of_double_precision(kind: str) -> None:
    value = some(np.random.default_rng(1), 3001, kind).reshape(1, -1)
    assert squared_length(value) == pytest.approx(float(np.sum(value.astype(float) ** 2)), rel=1e-6)


def test_updates_are_combined_array_by_array() -> None:
    old = {"w": np.ones((3, 2), dtype=np.float32), "n": np.array(3)}
    new = {"w": np.full((3, 2), 2.0, dtype=np.float32), "n": np.array(5)}
    totals = [zero_update(old), zero_update(old)]
    plain = {"w": np.full((3, 2), 10.0), "n": np.array(1.0)}
    add_combination(totals, np.array([[1.0, 2.0], [0.0, 1.0]]), [ScaledDifference(new, old, 4.0), plain])
    assert [total["w"].tolist()[0] for total in totals] == [[24.0, 24.0], [10.0, 10.0]]
    assert [float(total["n"]) for total in totals] == [10.0, 1.0]
