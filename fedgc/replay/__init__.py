"""Replay: descend with the rounds of a code and a decoder, without messages; for sweeps of many thousand runs."""

from fedgc.replay.descent import DescentStep, check_units, descend
from fedgc.replay.method import Method
from fedgc.replay.rounds import MethodRounds, known_rounds

__all__ = ["DescentStep", "Method", "MethodRounds", "check_units", "descend", "known_rounds"]
