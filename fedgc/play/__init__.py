"""Rounds played without messages, and without Flower: for plans, replays and sweeps."""

from fedgc.play.draws import Draws, RoundDraws
from fedgc.play.rounds import PlayedRounds, play_rounds

__all__ = ["Draws", "PlayedRounds", "RoundDraws", "play_rounds"]
