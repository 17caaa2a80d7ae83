"""Decoders: one file per rule, all behind :class:`Decoder`."""

from fedgc.decoders.base import CalibratedDecoder, Decoder, Decoding, DecodingStatus
from fedgc.decoders.fixed import FixedDecoder
from fedgc.decoders.optimal_unbiased import OptimalUnbiasedDecoder

#: Every decoder by the name that configurations use.
DECODERS: dict[str, type[Decoder]] = {decoder.name: decoder for decoder in (FixedDecoder, OptimalUnbiasedDecoder)}

__all__ = [
    "DECODERS",
    "CalibratedDecoder",
    "Decoder",
    "Decoding",
    "DecodingStatus",
    "FixedDecoder",
    "OptimalUnbiasedDecoder",
]
