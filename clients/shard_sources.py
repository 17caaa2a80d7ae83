"""Where a client has its shards from, if the server does not push them: one class per source."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from fedgc.validation import check_integer

Data = TypeVar("Data")
Data_co = TypeVar("Data_co", covariant=True)


class MissingShardError(LookupError):
    """A shard is not there for the moment.

    A client that meets it leaves the shard undone instead of failing: see :func:`fedgc.clients.gradient_coded`.
    """


class ShardSource(Protocol[Data_co]):
    """Loads shards by id. Every client must be able to load any shard that it may be assigned."""

    def load(self, shard_id: int) -> Data_co:
        """Return a shard's data: arrays by name, a data set, whatever the train function takes as ``shard``.

        Raises
        ------
        MissingShardError
            If the shard cannot be had at the moment. Any other error fails the client's round.
        """
        ...


class FunctionShards(Generic[Data]):
    """Shards from a function.

    Parameters
    ----------
    function : callable
        Takes a shard id, returns the shard's data.

    Examples
    --------
    >>> FunctionShards(lambda shard_id: {"x": np.full(2, shard_id)}).load(3)["x"].tolist()
    [3, 3]
    """

    def __init__(self, function: Callable[[int], Data]) -> None:
        if not callable(function):
            raise ValueError(f"function must take a shard id; got {function!r:.80}")
        self._function = function

    def load(self, shard_id: int) -> Data:
        """Return what the function returns."""
        return self._function(check_integer("shard_id", shard_id, low=0))


class FolderShards:
    """Shards from a folder with a file of arrays for each: ``0.npz``, ``1.npz`` and so on, as ``numpy.savez`` writes.

    Parameters
    ----------
    folder : str or Path
        The folder.

    Raises
    ------
    ValueError
        If the folder does not exist.

    Notes
    -----
    File names are made of integers and of nothing else that a message says. Files with objects in them are refused:
    to read such a file would be to run what it contains.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.savez(f"{folder}/3.npz", x=np.eye(2), y=[0, 1])
    ...     FolderShards(folder).load(3)["y"].tolist()
    [0, 1]
    """

    def __init__(self, folder: str | Path) -> None:
        self._folder = Path(folder)
        if not self._folder.is_dir():
            raise ValueError(f"folder must be an existing folder; got {str(folder)!r}")

    def load(self, shard_id: int) -> dict[str, NDArray[Any]]:
        """Return the arrays of a shard's file.

        Raises
        ------
        MissingShardError
            If there is no such file.
        ValueError
            If it is no npz file of arrays, or holds objects.
        """
        path = self._folder / f"{check_integer('shard_id', shard_id, low=0)}.npz"
        try:
            archive = np.load(path, allow_pickle=False)
        except FileNotFoundError:
            raise MissingShardError(f"{path} does not exist") from None
        if not isinstance(archive, np.lib.npyio.NpzFile):  # a single array under this name
            raise ValueError(f"{path} must be an npz file of arrays; got a single array")
        with archive:
            return {name: archive[name] for name in archive.files}


class PartitionShards:
    """Shards from the partitions of a data set, such as flwr-datasets' ``FederatedDataset``: shard i is partition i.

    Parameters
    ----------
    dataset : FederatedDataset
        Anything with a method ``load_partition``, made with as many partitions as there are shards and the same seed on
        all clients, so that a shard is the same data everywhere.
    split : str, optional
        Passed on to ``load_partition`` if given: "train", say.
    columns : sequence of str, optional
        Columns that are returned as numpy arrays, by name. If not given, the partition is returned as it is.

    Raises
    ------
    ValueError
        If `dataset` has no ``load_partition``.

    Examples
    --------
    >>> class Halves:
    ...     def load_partition(self, partition_id):
    ...         return {"label": [0, 1] if partition_id == 0 else [1, 1]}
    >>> PartitionShards(Halves(), columns=["label"]).load(1)["label"].tolist()
    [1, 1]
    """

    # Data sets are told by what they can do: neither flwr-datasets nor the datasets package is needed to import this.
    def __init__(
        self,
        dataset: Any,  # noqa: ANN401
        *,
        split: str | None = None,
        columns: Sequence[str] | None = None,
    ) -> None:
        if not callable(getattr(dataset, "load_partition", None)):
            raise ValueError(f"dataset must have a method load_partition; got {dataset!r:.80}")
        self._dataset = dataset
        self._options = {} if split is None else {"split": split}
        self._columns = None if columns is None else list(columns)

    def load(self, shard_id: int) -> Any:  # noqa: ANN401
        """Return a partition, or its columns as arrays."""
        partition = self._dataset.load_partition(check_integer("shard_id", shard_id, low=0), **self._options)
        if self._columns is None:
            return partition
        if hasattr(partition, "with_format"):  # lets the datasets package decode images and nested lists by itself
            partition = partition.with_format("numpy", columns=self._columns)[:]
        return {name: np.asarray(partition[name]) for name in self._columns}
