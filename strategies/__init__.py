"""Flower strategies of fedgc, for the ServerApp."""

from fedgc.strategies.gradient_coding import GradientCoding
from fedgc.strategies.report import RoundReport

__all__ = ["GradientCoding", "RoundReport"]
