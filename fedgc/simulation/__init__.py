"""The embedded runtime: Flower apps in one process and in virtual time."""

from fedgc.play import PlayedRounds, RoundDraws, play_rounds
from fedgc.simulation.clock import VirtualClock
from fedgc.simulation.grid import VirtualGrid
from fedgc.simulation.grid_state import Event
from fedgc.simulation.handed_out import HandedOut
from fedgc.simulation.run import VirtualRun, run_virtual

__all__ = [
    "Event",
    "HandedOut",
    "PlayedRounds",
    "RoundDraws",
    "VirtualClock",
    "VirtualGrid",
    "VirtualRun",
    "play_rounds",
    "run_virtual",
]
