"""Quantisers: unbiased stochastic rounding of vectors to a few bits per entry, packed, with variance that is known."""

from fedgc.quantisers.base import MOST_BITS, Quantiser, Rounding
from fedgc.quantisers.bit_allocation import BitAllocation, allocate_bits, allocate_bits_exactly, equal_bits
from fedgc.quantisers.bit_bisection import allocate_bits_by_bisection
from fedgc.quantisers.block_allocation import allocate_bits_to_blocks
from fedgc.quantisers.bucketed_norm import BucketedNorm
from fedgc.quantisers.global_norm import GlobalNorm
from fedgc.quantisers.rotated_norm import RotatedNorm

#: Every quantiser by name.
QUANTISERS: dict[str, type[Quantiser]] = {one.name: one for one in (GlobalNorm, BucketedNorm, RotatedNorm)}

__all__ = [
    "MOST_BITS",
    "QUANTISERS",
    "BitAllocation",
    "BucketedNorm",
    "GlobalNorm",
    "Quantiser",
    "RotatedNorm",
    "Rounding",
    "allocate_bits",
    "allocate_bits_by_bisection",
    "allocate_bits_exactly",
    "allocate_bits_to_blocks",
    "equal_bits",
]
