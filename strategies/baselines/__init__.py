"""Rivals: what others do about stragglers, as Flower strategies; one file for each that is not a code and a decoder."""

from fedgc.strategies.baselines.build import build_rival
from fedgc.strategies.baselines.catalogue import RIVALS, CodedRival
from fedgc.strategies.baselines.fedbuff import FedBuff
from fedgc.strategies.baselines.over_selection import OverSelection
from fedgc.strategies.baselines.rival import Rival, RivalOptions

__all__ = [
    "RIVALS",
    "CodedRival",
    "FedBuff",
    "OverSelection",
    "Rival",
    "RivalOptions",
    "build_rival",
]
