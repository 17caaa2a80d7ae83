"""Block-coordinate gradient coding: coordinates with different redundancy, for clients that are slow rather than gone.

:func:`optimal_split` and :func:`equalising_split` say how many coordinates are to have how many copies, :func:`runtime`
how long that takes, and :class:`BlockCoordinateCode` encodes and decodes. What has been used before are
:func:`single_layer`, :func:`two_layers` and :func:`hierarchical_split`.
"""

from fedgc.block_coordinates.closed_form import equalising_split
from fedgc.block_coordinates.code import BlockCoordinateCode, decoding_weights, exact_code
from fedgc.block_coordinates.hierarchical import hierarchical_split
from fedgc.block_coordinates.runtime import runtime, whole_coordinates
from fedgc.block_coordinates.single_layer import best_single_layer, single_layer, two_layers
from fedgc.block_coordinates.subgradient import DrawTimes, mean_runtime_bound, optimal_split
from fedgc.block_coordinates.times import ShiftedExponentialTimes

__all__ = [
    "BlockCoordinateCode",
    "DrawTimes",
    "ShiftedExponentialTimes",
    "best_single_layer",
    "decoding_weights",
    "equalising_split",
    "exact_code",
    "hierarchical_split",
    "mean_runtime_bound",
    "optimal_split",
    "runtime",
    "single_layer",
    "two_layers",
    "whole_coordinates",
]
