"""Gradient codes: one file per code, all behind :class:`Code`."""

from fedgc.codes.base import Blocks, Code
from fedgc.codes.fractional_repetition import FractionalRepetition

__all__ = ["Blocks", "Code", "FractionalRepetition"]
