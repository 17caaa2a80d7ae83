"""Updates: differences of models and weighted sums of them, what clients encode and the server decodes."""

from fedgc.updates.combination import Combination
from fedgc.updates.number_types import Arrays, Update, apply_update, in_dtypes, sum_dtype, without_rounding
from fedgc.updates.scaled_difference import ScaledDifference
from fedgc.updates.statistics import average_statistics, is_statistic
from fedgc.updates.sums import (
    add_combination,
    add_scaled,
    all_finite,
    difference,
    is_shorter,
    scale_in_place,
    scaled,
    squared_norm,
    zero_update,
)
from fedgc.updates.weighted_sum import add_weighted, squared_length

__all__ = [
    "Arrays",
    "Combination",
    "ScaledDifference",
    "Update",
    "add_combination",
    "add_scaled",
    "add_weighted",
    "all_finite",
    "apply_update",
    "average_statistics",
    "difference",
    "in_dtypes",
    "is_shorter",
    "is_statistic",
    "scale_in_place",
    "scaled",
    "squared_length",
    "squared_norm",
    "sum_dtype",
    "without_rounding",
    "zero_update",
]
