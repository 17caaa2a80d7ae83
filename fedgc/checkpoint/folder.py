"""A folder of checkpoints: the newest good one is what a run goes on from."""

from __future__ import annotations

import logging
import re
from os import PathLike
from pathlib import Path

from fedgc.checkpoint.file import UNFINISHED, read_checkpoint, write_checkpoint
from fedgc.checkpoint.tree import Tree
from fedgc.errors import CheckpointError
from fedgc.validation import check_integer

logger = logging.getLogger("flwr.fedgc")

_NAME = re.compile(r"round-(\d{8,})\.safetensors")


class CheckpointFolder:
    """Checkpoints of one run, a file per round, of which the last few are kept.

    Parameters
    ----------
    folder : str or Path
        The folder; it is made if it is not there.
    keep : int
        Checkpoints that are kept, at least 2: should the newest be unreadable, the run goes on from the one before.

    Raises
    ------
    ValueError
        If `keep` is below 2.
    CheckpointError
        If the folder cannot be made.

    Examples
    --------
    >>> import tempfile
    >>> folder = CheckpointFolder(tempfile.mkdtemp())
    >>> for server_round in (1, 2, 3):
    ...     folder.write(server_round, {"model": [0.5]})
    >>> folder.rounds, folder.newest()
    ([2, 3], (3, {'model': [0.5]}))
    """

    def __init__(self, folder: str | PathLike[str], *, keep: int = 2) -> None:
        if not isinstance(folder, str | PathLike):
            raise ValueError(f"folder must be a path; got {folder!r:.80}")
        self.folder = Path(folder)
        self.keep = check_integer("keep", keep, low=2)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CheckpointError(f"{self.folder}: the folder cannot be made: {error.strerror or error}") from error

    def __repr__(self) -> str:
        """Return the folder."""
        return f"CheckpointFolder({str(self.folder)!r}, keep={self.keep})"

    @property
    def rounds(self) -> list[int]:
        """Rounds of which there is a file, ascending."""
        return sorted(self._files())

    def write(self, server_round: int, tree: Tree) -> None:
        """Write the checkpoint of a round, and remove those that are too old and what a killed process left.

        Raises
        ------
        CheckpointError
            If it cannot be written; those before it are untouched then.
        """
        write_checkpoint(self._path(server_round), tree)
        files = self._files()
        for old in sorted(files)[: -self.keep]:
            files[old].unlink(missing_ok=True)
        for path in self.folder.glob(f"{UNFINISHED}*"):
            path.unlink(missing_ok=True)

    def newest(self) -> tuple[int, Tree] | None:
        """Return the round and content of the newest checkpoint that can be used, None if there is no file.

        Raises
        ------
        CheckpointError
            If there are files, and none can be used: starting anew would write over what may still be rescued.

        Notes
        -----
        What is wrong with a newer one is logged, and the one before is used.
        """
        files = self._files()
        for server_round in sorted(files, reverse=True):
            try:
                return server_round, read_checkpoint(files[server_round])
            except CheckpointError as error:
                logger.warning("%s; the checkpoint before it is used", error)
        if files:
            raise CheckpointError(f"{self.folder}: none of the {len(files)} checkpoints can be used, see the log")
        return None

    def _files(self) -> dict[int, Path]:
        found = ((_NAME.fullmatch(path.name), path) for path in self.folder.iterdir())
        return {int(match[1]): path for match, path in found if match is not None}

    def _path(self, server_round: int) -> Path:
        return self.folder / f"round-{server_round:08d}.safetensors"
