"""A folder of checkpoints: the newest good one is what a run goes on from."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from os import PathLike
from pathlib import Path

from fedgc.checkpoint.file import UNFINISHED, read_checkpoint, try_to_write, write_checkpoint
from fedgc.checkpoint.lock import folder_lock
from fedgc.checkpoint.tree import Tree
from fedgc.errors import CheckpointError
from fedgc.validation import check_integer

logger = logging.getLogger("flwr.fedgc")

_NAME = re.compile(r"round-(\d{8,})\.safetensors")
#: What is added to the name of a file that was passed over.
_ASIDE = ".passed-over"


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

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep the folder for one run, as long as the block lasts.

        Raises
        ------
        CheckpointError
            If another run has it, see :func:`fedgc.checkpoint.lock.folder_lock`, or nothing can be written there: that
            is told before a round has been trained in vain.
        """
        with folder_lock(self.folder) as locked:
            try_to_write(self.folder)
            for path in self.folder.glob(f"{UNFINISHED}*") if locked else ():  # else it may be another run's
                with suppress(OSError):
                    path.unlink()
            yield

    def write(self, server_round: int, tree: Tree) -> None:
        """Write the checkpoint of a round, and remove those before it that are too old.

        Raises
        ------
        CheckpointError
            If it cannot be written; those before it are untouched then.
        """
        write_checkpoint(self._path(server_round), tree)
        files = self._files()
        for old in sorted(number for number in files if number <= server_round)[: -self.keep]:
            with suppress(OSError):  # it is tried again after the next round
                files[old].unlink()

    def newest(self, use: Callable[[int, Tree], None] = lambda server_round, tree: None) -> tuple[int, Tree] | None:
        """Return the round and content of the newest checkpoint that can be used, None if there is no file.

        Parameters
        ----------
        use : callable
            Called with the round and the content of one after the other, from the newest, until one is used. It raises
            CheckpointError if it cannot use what it is given, and has then changed nothing.

        Raises
        ------
        CheckpointError
            If there are files, and none can be used: starting anew would write over what may still be rescued.

        Notes
        -----
        Which newer ones are passed over is logged, with the reasons.
        """
        files = self._files()
        reasons: list[str] = []
        for server_round in sorted(files, reverse=True):
            try:
                tree = read_checkpoint(files[server_round])
                use(server_round, tree)
            except CheckpointError as error:
                path = f"{files[server_round]}: "
                reasons.append(path + str(error).removeprefix(path))
                continue
            for reason in reasons:
                logger.warning("%s; the checkpoint before it is used", reason)
            return server_round, tree
        for reason in reasons[1:]:
            logger.warning("%s", reason)
        if reasons:
            newest = reasons[0].removeprefix(f"{self.folder}{os.sep}")
            raise CheckpointError(
                f"{self.folder}: none of the {len(reasons)} checkpoints can be used; the newest, {newest}"
            )
        return None

    def put_aside(self, after: int) -> None:
        """Give the files of later rounds another name, so that neither is one written over nor read again.

        Raises
        ------
        CheckpointError
            If a file cannot be renamed.
        """
        for server_round, path in sorted(self._files().items()):
            if server_round <= after:
                continue
            names = (path.with_name(f"{path.name}{_ASIDE}{n or ''}") for n in count())
            other = next(name for name in names if not name.exists())
            try:
                path.rename(other)
            except OSError as error:
                raise CheckpointError(f"{path}: cannot be renamed: {error.strerror or error}") from error
            logger.warning("%s: is called %s from now on", path, other.name)

    def _files(self) -> dict[int, Path]:
        found = ((_NAME.fullmatch(path.name), path) for path in self.folder.iterdir())
        return {int(match[1]): path for match, path in found if match is not None and path.is_file()}

    def _path(self, server_round: int) -> Path:
        return self.folder / f"round-{server_round:08d}.safetensors"
