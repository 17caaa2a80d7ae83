"""Federated training that does not wait for stragglers: gradient coding with exactly unbiased decoding.

A round, file by file: :mod:`fedgc.assignment` gives overlapping shards to clients, :mod:`fedgc.encoding` sums a
client's shard updates, :mod:`fedgc.deadline` collects replies until time is up, :mod:`fedgc.arrivals` model what
comes by then, :mod:`fedgc.decoders` weigh it (the optimal one after :mod:`fedgc.calibration`), and
:mod:`fedgc.reliability` learns who comes. :mod:`fedgc.round` strings them together, :mod:`fedgc.strategies` and
:mod:`fedgc.clients` bind them to Flower. Importing this package loads neither Flower nor torch.
"""

from fedgc.assignment import fractional_repetition_blocks
from fedgc.codes import FractionalRepetition
from fedgc.decoders import DECODERS, FixedDecoder, OptimalUnbiasedDecoder
from fedgc.gram import GramModel
from fedgc.reliability import ReliabilityPosterior

__version__ = "0.1.0"

__all__ = [
    "DECODERS",
    "FixedDecoder",
    "FractionalRepetition",
    "GramModel",
    "OptimalUnbiasedDecoder",
    "ReliabilityPosterior",
    "__version__",
    "fractional_repetition_blocks",
]
