"""Tables with short rows, column by column: what numpy gives row by row, to the last bit."""

from __future__ import annotations

import numpy as np
import pytest

from fedgc.short_rows import any_in_rows, row_sums, sorted_rows


@pytest.mark.parametrize("width", range(13))
def test_they_are_those_of_numpy_to_the_last_bit(width: int) -> None:
    rng = np.random.default_rng(width)
    table = rng.normal(size=(40, 50, width)) * 10.0 ** rng.integers(-8, 8, (40, 50, width))
    flags = table > 1e6
    numbers = rng.integers(0, 5, (2000, width))
    np.testing.assert_array_equal(row_sums(table), table.sum(axis=-1))
    np.testing.assert_array_equal(any_in_rows(flags), flags.any(axis=-1))
    np.testing.assert_array_equal(sorted_rows(numbers), np.sort(numbers, axis=-1))
