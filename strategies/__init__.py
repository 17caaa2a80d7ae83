"""Flower strategies of fedgc, for the ServerApp."""

from fedgc.strategies.gradient_coding import GradientCoding, RoundReport

__all__ = ["GradientCoding", "RoundReport"]
