"""A status page: what is known of the run, to be looked at while it goes on, and the report on it at the end."""

from __future__ import annotations

import json
from pathlib import Path

from fedgc.strategies.reporting.base import RoundReporter
from fedgc.strategies.reporting.page import GENERATOR, status_html
from fedgc.strategies.reporting.report import RoundReport
from fedgc.strategies.reporting.status import FORMAT, RunStatus

#: What the data file begins with.
_DATA_BEGINS = f'{{"format": "{FORMAT}"'


class StatusPage(RoundReporter):
    """Keep a page that tells how the run is, and the same as data.

    The page shows how far the run is and what is left, who came, the residual error, the blocks of which nothing may
    come in the next round, and the clients: reliability, speed, when each was last seen. It is one HTML file that needs
    neither a server nor anything else; a browser that shows it reads it anew every 10 seconds while the run goes on. At
    the end it becomes the report. Of many clients and blocks it shows the worst 100; the file beside it,
    ``status.json`` for ``status.html``, has them all.

    Parameters
    ----------
    path : str or Path
        The page, a file whose name ends in ``.html``. Its folder is made if it does not exist. A page and data of an
        earlier run are replaced.

    Raises
    ------
    ValueError
        If the name ends otherwise, either file is there and holds something else, or cannot be written.

    Notes
    -----
    The data are what :meth:`fedgc.strategies.reporting.status.RunStatus.to_data` returns; their keys are that class's
    attributes. Each file is written under another name, then renamed: whoever reads it
    gets all of the old or all of the new one. It is not waited for until they are on the disk, since a page need not
    outlive a power cut. Two runs at a time need a page each.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     page = StatusPage(f"{folder}/status.html")
    ...     page.data_path.name
    'status.json'
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if self.path.suffix != ".html":
            raise ValueError(f"path must end in .html; got {str(path)!r}")
        self.data_path = self.path.with_suffix(".json")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            for file, begins in ((self.path, GENERATOR), (self.data_path, _DATA_BEGINS)):
                _check(file, begins.encode())
                _beside(file).write_bytes(b"")
                _beside(file).unlink()
        except OSError as error:
            raise ValueError(
                f"path must be a file that can be written; got {str(path)!r} ({error.strerror or error})"
            ) from None

    def write(self, report: RoundReport) -> None:
        """Do nothing: the report is part of the status."""

    def write_status(self, status: RunStatus) -> None:
        """Write both files anew."""
        data = json.dumps(status.to_data(), allow_nan=False)
        page = status_html(status, self.data_path.name)
        for file, text in ((self.data_path, data), (self.path, page)):
            # What UTF-8 cannot hold must not cost the page.
            _replace(file, text.encode("utf-8", errors="replace"))


def _check(file: Path, begins: bytes) -> None:
    """Raise ValueError if a file is there and does not begin with what we write."""
    if not file.exists():
        return
    with file.open("rb") as content:
        if content.read(len(begins)) not in {begins, b""}:
            raise ValueError(f"path must be a new file, or the page of an earlier run; got {str(file)!r}")


def _beside(file: Path) -> Path:
    return file.with_name(f".{file.name}.unfinished")


def _replace(file: Path, content: bytes) -> None:
    """Write a file anew, so that a reader sees all of it or all of the old one."""
    unfinished = _beside(file)
    try:
        unfinished.unlink(missing_ok=True)  # of a process that was killed
        with unfinished.open("xb") as opened:
            opened.write(content)
        unfinished.replace(file)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
