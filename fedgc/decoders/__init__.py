"""Decoders: one file per rule, all behind :class:`Decoder`; what the optimal one needs in ``optimal_*.py``."""

from fedgc.decoders.automatic import AUTO, automatic_decoder
from fedgc.decoders.base import CalibratedDecoder, Decoder
from fedgc.decoders.bounded_mass import BoundedMassDecoder
from fedgc.decoders.capped import CappedDecoder
from fedgc.decoders.decoding import CalibrationStatus, Decoding, DecodingStatus
from fedgc.decoders.first_arrival import FirstArrivalDecoder
from fedgc.decoders.fixed import FixedDecoder
from fedgc.decoders.fixed_aligned import FixedAlignedDecoder
from fedgc.decoders.fixed_general import FixedGeneralDecoder
from fedgc.decoders.inverse_probability import InverseProbabilityDecoder
from fedgc.decoders.least_squares import LeastSquaresDecoder
from fedgc.decoders.optimal_unbiased import OptimalUnbiasedDecoder
from fedgc.decoders.partial_mean import PartialMeanDecoder
from fedgc.decoders.streaming import StreamingSum
from fedgc.decoders.sums import NormalisedSumDecoder, ScaledMeanDecoder, SumDecoder
from fedgc.decoders.variance import variance_weights

#: Every decoder of an update by the name that configurations use.
DECODERS: dict[str, type[Decoder]] = {
    decoder.name: decoder
    for decoder in (
        FixedDecoder,
        FixedAlignedDecoder,
        FixedGeneralDecoder,
        InverseProbabilityDecoder,
        FirstArrivalDecoder,
        LeastSquaresDecoder,
        NormalisedSumDecoder,
        OptimalUnbiasedDecoder,
        PartialMeanDecoder,
        ScaledMeanDecoder,
        SumDecoder,
    )
}

__all__ = [
    "AUTO",
    "DECODERS",
    "BoundedMassDecoder",
    "CalibratedDecoder",
    "CalibrationStatus",
    "CappedDecoder",
    "Decoder",
    "Decoding",
    "DecodingStatus",
    "FirstArrivalDecoder",
    "FixedAlignedDecoder",
    "FixedDecoder",
    "FixedGeneralDecoder",
    "InverseProbabilityDecoder",
    "LeastSquaresDecoder",
    "NormalisedSumDecoder",
    "OptimalUnbiasedDecoder",
    "PartialMeanDecoder",
    "ScaledMeanDecoder",
    "StreamingSum",
    "SumDecoder",
    "automatic_decoder",
    "variance_weights",
]
