"""Federated training that does not wait for stragglers: gradient coding with exactly unbiased decoding.

A round, file by file: :mod:`fedgc.assignment` gives overlapping shards to clients, :mod:`fedgc.updates` sums a
client's shard updates, :mod:`fedgc.deadline` chooses how long to wait and collects replies until then,
:mod:`fedgc.arrivals` model what comes by then, :mod:`fedgc.decoders` weigh it (the optimal one after
:mod:`fedgc.calibration`), and :mod:`fedgc.reliability` and :mod:`fedgc.completion_times` learn who comes, and when.
:mod:`fedgc.round` strings them together, :mod:`fedgc.planning` says what to expect, :mod:`fedgc.strategies` and
:mod:`fedgc.clients` bind them to Flower. Importing this package loads neither Flower nor torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedgc.assignment import (
        Assignment,
        AssignmentConstraints,
        InfeasibleAssignmentError,
        assign,
        fractional_repetition_blocks,
        reassign,
    )
    from fedgc.codes import FractionalRepetition
    from fedgc.completion_times import CompletionTimes, TimeObservation
    from fedgc.decoders import DECODERS, FixedDecoder, OptimalUnbiasedDecoder
    from fedgc.gram import GramModel
    from fedgc.reliability import ReliabilityPosterior

__version__ = "0.1.0"

__all__ = [
    "DECODERS",
    "Assignment",
    "AssignmentConstraints",
    "CompletionTimes",
    "FixedDecoder",
    "FractionalRepetition",
    "GramModel",
    "InfeasibleAssignmentError",
    "OptimalUnbiasedDecoder",
    "ReliabilityPosterior",
    "TimeObservation",
    "__version__",
    "assign",
    "fractional_repetition_blocks",
    "reassign",
]

# Imported when asked for: on a device each message starts a process, and plans and posteriors would take it longer to
# load than Flower does.
_NAMES = {
    "assignment": (
        "Assignment",
        "AssignmentConstraints",
        "InfeasibleAssignmentError",
        "assign",
        "fractional_repetition_blocks",
        "reassign",
    ),
    "codes": ("FractionalRepetition",),
    "completion_times": ("CompletionTimes", "TimeObservation"),
    "decoders": ("DECODERS", "FixedDecoder", "OptimalUnbiasedDecoder"),
    "gram": ("GramModel",),
    "reliability": ("ReliabilityPosterior",),
}
_MODULES = {name: module for module, names in _NAMES.items() for name in names}


def __getattr__(name: str) -> Any:  # noqa: ANN401
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
