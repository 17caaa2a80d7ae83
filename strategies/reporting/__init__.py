"""Where the reports of rounds go, beside the log and Flower's results: one file per kind.

To add one (MLflow, Weights & Biases, a database), subclass :class:`RoundReporter` in a file of its own and export it
here.
"""

from fedgc.strategies.reporting.base import RoundReporter
from fedgc.strategies.reporting.csv_results import CsvResults, read_csv_results
from fedgc.strategies.reporting.dispatch import Reporting
from fedgc.strategies.reporting.status_page import StatusPage
from fedgc.strategies.reporting.tensorboard_results import TensorBoardResults

__all__ = ["CsvResults", "Reporting", "RoundReporter", "StatusPage", "TensorBoardResults", "read_csv_results"]
