"""A folder of checkpoints: one run at a time, the newest that fits, and a disk that fails."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fedgc.strategies import CsvResults, read_csv_results

from fedgc.checkpoint import CheckpointFolder
from fedgc.checkpoint.file import write_checkpoint
from fedgc.errors import CheckpointError
from fedgc.simulation.grid import VirtualGrid
from tests import test_resume
from tests.test_resume import ROUNDS, check_same, newest, refused, run

NAME = "memory"
HOLDER = """
import sys, time
from fedgc.checkpoint import CheckpointFolder
with CheckpointFolder(sys.argv[1]).held():
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_folder_is_one_runs_until_it_ends_or_is_killed(tmp_path: Path) -> None:
    run(NAME, tmp_path, rounds=2)
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        (tmp_path / ".unfinished-abc").write_bytes(b"the other run is writing this")
        refused(f"{tmp_path}: another run (process {holder.pid} on ", NAME, tmp_path, resume=True)
        refused("has its checkpoints here; name a folder of its own for this one", NAME, tmp_path, resume=True)
        holder.kill()
    run(NAME, tmp_path, resume=True)
    assert not (tmp_path / ".unfinished-abc").exists()
    with CheckpointFolder(tmp_path).held(), pytest.raises(CheckpointError, match=f"process {os.getpid()} on"):
        run(NAME, tmp_path, resume=True)


def test_where_files_cannot_be_locked_the_log_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(handle: int, how: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    (tmp_path / ".unfinished-abc").write_bytes(b"of another run, maybe")
    for fcntl in ("fedgc.checkpoint.lock.fcntl.flock", refuse), ("fedgc.checkpoint.lock.fcntl", None):
        monkeypatch.setattr(*fcntl)
        with CheckpointFolder(tmp_path).held():
            pass
    assert "cannot be locked (No locks available); take care that no other run" in caplog.text
    assert "cannot be locked (this system has no flock)" in caplog.text
    assert (tmp_path / ".unfinished-abc").exists()


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a folder in which nobody can make a file")
def test_a_folder_that_cannot_be_written_to_ends_the_run_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sent: list[Any] = []
    monkeypatch.setattr(VirtualGrid, "push_messages", lambda self, messages: sent.extend(messages) or [])
    with pytest.raises(CheckpointError, match=r"/proc/\d+: checkpoints cannot be written here: ") as caught:
        run(NAME, Path(f"/proc/{os.getpid()}"))
    assert "\n" not in str(caught.value)
    assert not sent


def test_what_is_called_like_a_checkpoint_and_is_a_folder_is_in_nobodys_way(tmp_path: Path) -> None:
    (tmp_path / ".unfinished-abc").mkdir()
    (tmp_path / "round-00000099.safetensors").mkdir()
    run(NAME, tmp_path, rounds=3)
    assert CheckpointFolder(tmp_path).rounds == [2, 3]
    check_same(run(NAME, tmp_path, resume=True), run(NAME, tmp_path / "whole"))


def foreign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the newest checkpoint of another model's run, of five rounds."""
    with monkeypatch.context() as patch:
        patch.setattr(test_resume, "MODEL", np.zeros(5))
        run(NAME, tmp_path / "foreign", rounds=5)
    return newest(tmp_path / "foreign")


def test_the_newest_checkpoint_that_fits_is_used_and_others_are_kept_under_another_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder, other = tmp_path / "ours", foreign(tmp_path, monkeypatch)
    run(NAME, folder, rounds=3)
    for server_round in (4, 5):
        shutil.copy(other, folder / f"round-{server_round:08d}.safetensors")
    caplog.clear()
    resumed = run(NAME, folder, resume=True)
    assert resumed[3][0] == 4
    path = folder / "round-00000005.safetensors"
    assert f"{path}: the checkpoint must be of the same model; array 'w' is float64 of shape (5,)" in caplog.text
    assert "; the checkpoint before it is used" in caplog.text
    assert f"{path}: is called {path.name}.passed-over from now on" in caplog.text
    assert (folder / f"{path.name}.passed-over").read_bytes() == other.read_bytes()
    assert CheckpointFolder(folder).rounds == [5, 6]
    check_same(resumed, run(NAME, tmp_path / "whole"))
    # Another one of the same round does not take its name.
    shutil.copy(other, folder / "round-00000007.safetensors")
    (folder / "round-00000007.safetensors.passed-over").write_bytes(b"?")
    run(NAME, folder, resume=True, rounds=7)
    assert (folder / "round-00000007.safetensors.passed-over").read_bytes() == b"?"
    assert (folder / "round-00000007.safetensors.passed-over1").read_bytes() == other.read_bytes()


def test_where_none_fits_the_run_ends_and_all_files_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    foreign(tmp_path, monkeypatch)
    folder = tmp_path / "foreign"
    newest(folder).write_bytes(b"?")
    expected = f"{folder}: none of the 2 checkpoints can be used; the newest, round-00000005.safetensors: not a whole"
    refused(expected, NAME, folder, resume=True)


@pytest.mark.parametrize("tree", [{}, None, [], 3, {"server_round": 4}, {"server_round": 4, "metrics": {}, "run": {}}])
def test_a_file_with_something_else_in_it_is_passed_over(tree: Any, tmp_path: Path) -> None:
    run(NAME, tmp_path / "hurt", rounds=3)
    write_checkpoint(tmp_path / "hurt" / "round-00000004.safetensors", tree)
    check_same(run(NAME, tmp_path / "hurt", resume=True), run(NAME, tmp_path / "whole"))


def test_a_file_that_was_renamed_to_another_round_is_not_believed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "renamed"
    run(NAME, folder, rounds=3)
    shutil.copy(newest(folder), folder / "round-00000005.safetensors")
    resumed = run(NAME, folder, resume=True)
    assert "round-00000005.safetensors: must be of round 5, as its name says; got 3" in caplog.text
    check_same(resumed, run(NAME, tmp_path / "whole"))
    last = newest(folder)
    for path in folder.glob("round-*"):
        if path != last:
            path.unlink()
    last.rename(folder / "round-00000002.safetensors")
    refused("must be of round 2, as its name says; got 6", NAME, folder, resume=True)


WORK_LISTS = "work lists, clients evaluate"
FILLING = """
import sys
from pathlib import Path
from tests.test_checkpoint_folder import fill_the_disk
fill_the_disk(Path(sys.argv[1]), Path(sys.argv[2]))
"""


def fill_the_disk(folder: Path, path: Path) -> None:
    """Train in this process, which can write no file as large as a checkpoint in rounds 3 to 5, until round 6."""

    class Filling(CsvResults):
        def write(self, report: Any) -> None:
            largest = 2000 * report.server_round if report.server_round in {3, 4, 5} else resource.RLIM_INFINITY
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest, resource.RLIM_INFINITY))
            super().write(report)

    run(WORK_LISTS, folder, kill_at=("train", 6), resume=True, reporters=[Filling(path)])


def rounds_in(path: Path) -> list[int]:
    return [int(row["round"] or 0) for row in read_csv_results(path)]


def test_training_goes_on_while_checkpoints_cannot_be_written(tmp_path: Path) -> None:
    folder, path = tmp_path / "killed", tmp_path / "results.csv"
    run(WORK_LISTS, tmp_path / "before", rounds=2, reporters=[CsvResults(path)])  # another run, in the same file
    command = [sys.executable, "-c", FILLING, str(folder), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = [line for line in (done.stdout + done.stderr).splitlines() if "could not be written" in line]
    end = "File too large; training goes on, and a run that is resumed would begin after round 2"
    assert len(told) >= 3, done.stdout
    assert all("ERROR" in line and line.endswith(end) for line in told), told
    assert CheckpointFolder(folder).rounds == [1, 2]
    assert not list(folder.glob(".unfinished-*"))
    # Rounds 3 to 5 are in the results, and in no checkpoint: they come again.
    assert rounds_in(path) == [1, 2, 1, 2, 3, 4, 5]
    resumed = run(WORK_LISTS, folder, resume=True, reporters=[CsvResults(path)])
    assert rounds_in(path) == [1, 2, 1, 2, 3, 4, 5, 6]
    check_same(resumed, run(WORK_LISTS, tmp_path / "whole"))


def test_rows_of_another_run_stay_when_a_run_is_resumed(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    run(NAME, tmp_path / "other", seed=7, reporters=[CsvResults(path)])
    run("Adam, automatic deadline", tmp_path / "ours", rounds=3)
    before = path.read_bytes()
    run("Adam, automatic deadline", tmp_path / "ours", resume=True, reporters=[CsvResults(path)])
    assert path.read_bytes().startswith(before)
    assert rounds_in(path) == [*range(1, ROUNDS + 1), 4, 5, 6]


def test_a_report_without_a_checkpoint_is_not_written_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process dies between a round's report and its checkpoint."""
    path = tmp_path / "results.csv"

    def dying(self: CheckpointFolder, server_round: int, tree: Any) -> None:
        if server_round == 3:
            raise test_resume.Killed
        write_checkpoint(self._path(server_round), tree)

    with monkeypatch.context() as patch:
        patch.setattr(CheckpointFolder, "write", dying)
        assert run(NAME, tmp_path / "c", reporters=[CsvResults(path)])[1] is None
    run(NAME, tmp_path / "c", resume=True, reporters=[CsvResults(path)])
    assert rounds_in(path) == [*range(1, ROUNDS + 1)]
