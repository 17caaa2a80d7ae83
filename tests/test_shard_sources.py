"""Where clients have their shards from: functions, folders, partitions of a data set."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fedgc.clients import FolderShards, FunctionShards, MissingShardError, PartitionShards, ShardUpdate, gradient_coded
from fedgc.strategies import GradientCoding
from flwr.app import ArrayRecord, ConfigRecord
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg, Strategy
from numpy.typing import NDArray

from tests.apps import EXAMPLES, N_SHARDS, arrays_of, shard_delta, steady, train

INNER = {"fraction_evaluate": 0.0, "min_train_nodes": 1, "min_available_nodes": 1}


class CsvPartitions:
    """A data set from one local file, with the methods of flwr-datasets' FederatedDataset that are used here."""

    def __init__(self, path: Path, n_partitions: int) -> None:
        with path.open(newline="") as file:
            self._rows = list(csv.DictReader(file))
        self._n_partitions = n_partitions

    def load_partition(self, partition_id: int, split: str = "train") -> CsvPartition:
        assert split == "train"
        return CsvPartition(self._rows[partition_id :: self._n_partitions])


class CsvPartition:
    def __init__(self, rows: list[dict[str, str]], columns: list[str] | None = None) -> None:
        self.rows, self._columns = rows, columns

    def with_format(self, kind: str, columns: list[str]) -> CsvPartition:
        assert kind == "numpy"
        return CsvPartition(self.rows, columns)

    def __getitem__(self, which: slice) -> dict[str, NDArray[Any]]:
        assert self._columns is not None
        return {name: np.array([float(row[name]) for row in self.rows[which]]) for name in self._columns}


def csv_file(folder: Path) -> Path:
    """Shard j has EXAMPLES[j] rows with its number as label, dealt out so that partition j is shard j."""
    path = folder / "data.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["x", "label"])
        writer.writerows([example, example % N_SHARDS] for example in range(4 * N_SHARDS))
    return path


def test_a_function() -> None:
    assert FunctionShards(lambda shard_id: f"shard {shard_id}").load(4) == "shard 4"
    with pytest.raises(ValueError, match="function must take a shard id; got 3"):
        FunctionShards(3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="shard_id must be an integer of at least 0; got -1"):
        FunctionShards(lambda shard_id: shard_id).load(-1)


def test_a_folder(tmp_path: Path) -> None:
    np.savez(tmp_path / "12.npz", x=np.arange(6.0).reshape(2, 3), label=[1, 0])
    np.savez_compressed(tmp_path / "3.npz", x=np.zeros(2))
    source = FolderShards(tmp_path)
    loaded = source.load(12)
    np.testing.assert_array_equal(loaded["x"], np.arange(6.0).reshape(2, 3))
    assert loaded["label"].tolist() == [1, 0]
    assert source.load(3).keys() == {"x"}
    with pytest.raises(MissingShardError, match=r"4\.npz does not exist"):
        source.load(4)
    with pytest.raises(ValueError, match="folder must be an existing folder"):
        FolderShards(tmp_path / "nowhere")


@pytest.mark.parametrize("shard_id", ["12", "../12", 12.0, True, -1, "/etc/passwd", None])
def test_file_names_are_made_of_integers_only(tmp_path: Path, shard_id: Any) -> None:
    np.savez(tmp_path / "12.npz", x=np.zeros(2))
    np.savez(tmp_path / "1.npz", x=np.zeros(2))
    (tmp_path / "in").mkdir()
    with pytest.raises(ValueError, match="shard_id must be an integer of at least 0"):
        FolderShards(tmp_path / "in").load(shard_id)


def test_objects_in_files_are_refused_unread(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "exploded",))

    np.savez(tmp_path / "0.npz", x=np.array([Bomb()], dtype=object), allow_pickle=True)
    np.array([Bomb()], dtype=object).dump(tmp_path / "1.npz")
    np.save(tmp_path / "2", np.zeros(3))
    (tmp_path / "2.npy").rename(tmp_path / "2.npz")
    for shard_id in (0, 1):
        with pytest.raises(ValueError, match="allow_pickle"):
            FolderShards(tmp_path).load(shard_id)
    assert not (tmp_path / "exploded").exists()
    with pytest.raises(ValueError, match="must be an npz file of arrays; got a single array"):
        FolderShards(tmp_path).load(2)


def test_partitions_of_a_data_set_from_a_file(tmp_path: Path) -> None:
    dataset = CsvPartitions(csv_file(tmp_path), N_SHARDS)
    source = PartitionShards(dataset, split="train", columns=["x", "label"])
    loaded = source.load(2)
    assert loaded["x"].tolist() == [2.0, 8.0, 14.0, 20.0]
    assert set(loaded["label"]) == {2.0}
    assert PartitionShards(dataset).load(2).rows[0] == {"x": "2", "label": "2"}
    with pytest.raises(ValueError, match="shard_id must be an integer of at least 0"):
        source.load("2")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="dataset must have a method load_partition"):
        PartitionShards([1, 2, 3])


def sourced_app(source: Any) -> ClientApp:
    app = ClientApp()

    @app.train()
    @gradient_coded(num_shards=N_SHARDS, source=source)
    def trainer(shard_id: int, arrays: ArrayRecord, config: ConfigRecord, shard: Any) -> ShardUpdate:
        label = int(shard["label"][0])  # the data alone says which shard it is
        return ShardUpdate(EXAMPLES[label], delta=shard_delta(label, arrays_of(arrays)))

    return app


@pytest.mark.parametrize("coded", [True, False])
def test_all_sources_train_the_same_model(tmp_path: Path, coded: bool) -> None:
    (tmp_path / "folder").mkdir()
    for shard_id in range(N_SHARDS):
        np.savez(tmp_path / "folder" / f"{shard_id}.npz", label=[shard_id])
    sources = [
        FunctionShards(lambda shard_id: {"label": [shard_id]}),
        FolderShards(tmp_path / "folder"),
        PartitionShards(CsvPartitions(csv_file(tmp_path), N_SHARDS), columns=["label"]),
        lambda context: FolderShards(tmp_path / str(context.run_config.get("data", "folder"))),
    ]
    models = []
    for source in [*sources, None]:
        inner = FedAvg(**INNER)  # type: ignore[arg-type]
        strategy: Strategy = GradientCoding(inner, num_shards=N_SHARDS, deadline=60.0) if coded else inner
        result, _ = train(strategy, steady(), rounds=2, app=None if source is None else sourced_app(source))
        models.append(arrays_of(result.arrays))
    for model in models[:-1]:
        for name, value in models[-1].items():
            np.testing.assert_array_equal(model[name], value)


def test_a_shard_that_is_missing_ends_a_work_list_and_is_an_error_elsewhere() -> None:
    def load(shard_id: int) -> dict[str, list[int]]:
        if shard_id == 4:
            raise MissingShardError("the disk is away")
        return {"label": [shard_id]}

    app = sourced_app(FunctionShards(load))
    options = {"num_shards": N_SHARDS, "deadline": 1e3, "load": 1}
    strategy = GradientCoding(FedAvg(**INNER), schedule="work-list", **options)  # type: ignore[arg-type]
    train(strategy, steady(2), app=app)
    assert strategy.history[0].rejected == {}
    # Whoever has shard 4 did what stands before it; what stands behind it is not done.
    coverage = strategy.history[0].coverage
    plan = strategy.state.plan
    assert plan is not None and coverage[4] == 0.0
    for client in range(2):
        ids = plan.code.shards_of(client).tolist()
        done = ids[: ids.index(4)] if 4 in ids else ids
        assert [shard_id for shard_id in ids if coverage[shard_id] > 0] == done

    strategy = GradientCoding(FedAvg(**INNER), **options)  # type: ignore[arg-type]
    train(strategy, steady(2), app=app)
    assert list(strategy.history[0].rejected.values()) == ["it lacks the data of shards [4]"]
    assert strategy.history[0].n_arrived == 1

    _, run = train(FedAvg(**INNER), steady(2), app=app)  # type: ignore[arg-type]
    assert [event.detail for event in run.trace if event.kind == "failed"] == ["MissingShardError: the disk is away"]


def test_the_function_and_the_options_must_agree() -> None:
    def without(shard_id: int, arrays: ArrayRecord, config: ConfigRecord) -> ShardUpdate:
        return ShardUpdate(1, delta={})

    def with_shard(shard_id: int, arrays: ArrayRecord, config: ConfigRecord, shard: Any) -> ShardUpdate:
        return ShardUpdate(1, delta={})

    with pytest.raises(ValueError, match="source or store must be given exactly if the function takes shard"):
        gradient_coded(source=FunctionShards(lambda shard_id: {}))(without)
    with pytest.raises(ValueError, match="source or store must be given exactly if the function takes shard"):
        gradient_coded()(with_shard)
