"""The embedded runtime: Flower apps in one process and in virtual time."""

from fedgc.simulation.clock import VirtualClock
from fedgc.simulation.grid import Event, VirtualGrid
from fedgc.simulation.run import VirtualRun, run_virtual

__all__ = ["Event", "VirtualClock", "VirtualGrid", "VirtualRun", "run_virtual"]
