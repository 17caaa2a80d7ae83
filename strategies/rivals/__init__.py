"""Rivals: what others do about stragglers, as Flower strategies; one file for each that is not a code and a decoder."""

from fedgc.strategies.rivals.build import build_rival
from fedgc.strategies.rivals.catalogue import RIVALS, CodedRival
from fedgc.strategies.rivals.fedbuff import FedBuff
from fedgc.strategies.rivals.fedprox import PartialFedProx
from fedgc.strategies.rivals.over_selection import OverSelection
from fedgc.strategies.rivals.rival import SERVER_STEP, Rival, RivalOptions

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
