"""Checkpoints of a run and going on from them: what a strategy adds to :mod:`fedgc.checkpoint`."""

from fedgc.strategies.resuming.journal import Journal

__all__ = ["Journal"]
