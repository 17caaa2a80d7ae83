"""TensorBoard: a curve for each number, through torch's own writer."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path

from fedgc.strategies.reporting.base import RoundReporter
from fedgc.strategies.reporting.report import RoundReport


class TensorBoardResults(RoundReporter):
    """Write the numbers of each round as TensorBoard's scalars, for ``tensorboard --logdir FOLDER``.

    Parameters
    ----------
    folder : str or Path
        Folder of this run, made if it does not exist; the folder above it is what to show, to compare runs. What it
        already holds stays, but a second run's curves in it would be drawn over the first's.

    Raises
    ------
    ImportError
        If tensorboard is not installed (extra ``tensorboard``).
    ValueError
        If the folder cannot be written.

    Notes
    -----
    The tags are the names of :attr:`fedgc.strategies.RoundReport.metrics` with a slash for the first hyphen
    (``fedgc/arrived``), by which TensorBoard shows them together; the step is the round. Each round is on disk before
    the next begins.

    References
    ----------
    ``torch.utils.tensorboard.SummaryWriter``, https://docs.pytorch.org/docs/stable/tensorboard.html

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     results = TensorBoardResults(folder)
    ...     results.close()
    ...     print([path.name[:19] for path in Path(folder).iterdir()])
    ['events.out.tfevents']
    """

    def __init__(self, folder: str | Path) -> None:
        try:
            tensorboard = importlib.import_module("torch.utils.tensorboard")
        except ImportError:
            raise ImportError("TensorBoardResults needs tensorboard: pip install 'fedgc[tensorboard]'") from None
        self.folder = Path(folder)
        try:
            self._writer = tensorboard.SummaryWriter(str(folder))
        except OSError as error:
            raise ValueError(
                f"folder must be one that can be written; got {str(folder)!r} ({error.strerror or error})"
            ) from None

    def write(self, report: RoundReport) -> None:
        """Write the round's numbers, and wait until they are on disk."""
        self.write_numbers(report.server_round, report.metrics)

    def write_numbers(self, server_round: int, numbers: Mapping[str, float]) -> None:
        """Write numbers by name as those of a round, likewise.

        Raises
        ------
        OSError
            If they cannot be written.
        """
        if not self.folder.is_dir():  # torch's writer would notice in a thread, which would end with a traceback
            raise FileNotFoundError(f"{str(self.folder)!r} has been removed")
        for name, value in numbers.items():
            self._writer.add_scalar(name.replace("-", "/", 1), value, server_round)
        self._writer.flush()

    def close(self) -> None:
        """Close the file; a further run begins another one in the same folder."""
        self._writer.close()
