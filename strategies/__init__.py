"""Flower strategies of fedgc, for the ServerApp."""

from fedgc.strategies.gradient_coding import GradientCoding
from fedgc.strategies.reporting import CsvResults, RoundReporter, StatusPage, TensorBoardResults, read_csv_results
from fedgc.strategies.reporting.report import RoundReport
from fedgc.strategies.rounds.secure_sum import SecureSum
from fedgc.strategies.shard_push import PushedShards
from fedgc.strategies.variance_aware import VarianceAwareFedAdam, VarianceAwareFedYogi

__all__ = [
    "CsvResults",
    "GradientCoding",
    "PushedShards",
    "RoundReport",
    "RoundReporter",
    "SecureSum",
    "StatusPage",
    "TensorBoardResults",
    "VarianceAwareFedAdam",
    "VarianceAwareFedYogi",
    "read_csv_results",
]
