"""Gradient codes: one file per code, all behind :class:`Code`."""

from fedgc.codes.base import Blocks, Code
from fedgc.codes.bernoulli import BernoulliCode
from fedgc.codes.cyclic_repetition import CyclicRepetition
from fedgc.codes.erasure_head import ErasureHead
from fedgc.codes.fractional_repetition import FractionalRepetition
from fedgc.codes.matrix import MatrixCode
from fedgc.codes.random_regular import RandomRegularGraphCode
from fedgc.codes.redraw import mean_over_places, redraw_places
from fedgc.codes.song_choi import Chain, CommonShard, optimal_row_sums
from fedgc.codes.stochastic import StochasticGradientCode, StochasticGradientCodeAuthors
from fedgc.codes.uncoded import Uncoded
from fedgc.codes.units import over_shards
from fedgc.codes.work_lists import WorkLists

__all__ = [
    "BernoulliCode",
    "Blocks",
    "Chain",
    "Code",
    "CommonShard",
    "CyclicRepetition",
    "ErasureHead",
    "FractionalRepetition",
    "MatrixCode",
    "RandomRegularGraphCode",
    "StochasticGradientCode",
    "StochasticGradientCodeAuthors",
    "Uncoded",
    "WorkLists",
    "mean_over_places",
    "optimal_row_sums",
    "over_shards",
    "redraw_places",
]
