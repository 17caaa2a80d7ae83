"""Decoders: one file per rule, all behind :class:`Decoder`."""

from fedgc.decoders.base import CalibratedDecoder, Decoder, Decoding, DecodingStatus
from fedgc.decoders.fixed import FixedDecoder
from fedgc.decoders.optimal import OptimalDecoder

#: Every decoder by the name that configurations use.
DECODERS: dict[str, type[Decoder]] = {decoder.name: decoder for decoder in (FixedDecoder, OptimalDecoder)}

__all__ = [
    "DECODERS",
    "CalibratedDecoder",
    "Decoder",
    "Decoding",
    "DecodingStatus",
    "FixedDecoder",
    "OptimalDecoder",
]
