"""Second moments: estimates of the square of the exact update, for inner strategies that divide by its root."""

from fedgc.moments.base import SecondMoment, SquareOfRound
from fedgc.moments.build import DECODED, SECOND_DECODERS, SECOND_MOMENTS, build_second_moment
from fedgc.moments.scaled_square import ScaledSquare
from fedgc.moments.second_track import SecondTrack
from fedgc.moments.subtracted_variance import SubtractedVariance

__all__ = [
    "DECODED",
    "SECOND_DECODERS",
    "SECOND_MOMENTS",
    "ScaledSquare",
    "SecondMoment",
    "SecondTrack",
    "SquareOfRound",
    "SubtractedVariance",
    "build_second_moment",
]
