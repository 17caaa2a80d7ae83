"""Rivals: what others do about stragglers, as Flower strategies; one file for each that is not a code and a decoder."""

from fedgc.strategies.baselines.build import build_rival
from fedgc.strategies.baselines.catalogue import RIVALS, CodedRival
from fedgc.strategies.baselines.fedbuff import FedBuff
from fedgc.strategies.baselines.fedprox import PartialFedProx
from fedgc.strategies.baselines.over_selection import OverSelection
from fedgc.strategies.baselines.rival import SERVER_STEP, Rival, RivalOptions

__all__ = [
    "RIVALS",
    "SERVER_STEP",
    "CodedRival",
    "FedBuff",
    "OverSelection",
    "PartialFedProx",
    "Rival",
    "RivalOptions",
    "build_rival",
]
