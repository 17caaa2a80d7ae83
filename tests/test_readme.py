"""What the README shows must work as shown."""

from __future__ import annotations

import re
import sys
import types
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fedgc.strategies import GradientCoding
from flwr.app import ArrayRecord, ConfigRecord, Context
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg, Result

from fedgc.deadline import AutomaticDeadline
from fedgc.simulation import run_virtual
from tests.apps import steady

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def block(marker: str) -> str:
    found = re.search(rf"<!-- {marker} -->\n```\w+\n(.*?)\n```", README, re.DOTALL)
    assert found, marker
    return found[1]


def side(diff: str, keep: str) -> str:
    """The file before ("-") or after ("+") a diff."""
    lines = diff.splitlines()
    return "\n".join(line[1:] for line in lines if not line or line[0] in (" ", keep))


@pytest.fixture
def task(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """The module that the README's app imports: a linear model on data in 40 shards."""
    module = types.ModuleType("task")
    features = np.random.default_rng(0).standard_normal((400, 3)).astype(np.float32)
    x, y = torch.from_numpy(features), torch.from_numpy(features @ np.array([[1.0], [-2.0], [0.5]], np.float32))

    class Net(torch.nn.Linear):
        def __init__(self) -> None:
            super().__init__(3, 1)

    def load_data(part: int, parts: int) -> torch.utils.data.TensorDataset:
        return torch.utils.data.TensorDataset(x[part::parts], y[part::parts])

    def train_fn(model: torch.nn.Module, data: torch.utils.data.TensorDataset, lr: float) -> float:
        inputs, targets = data.tensors
        loss = torch.nn.functional.mse_loss(model(inputs), targets)
        loss.backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.sub_(parameter.grad, alpha=lr)
        return float(loss.detach())

    module.Net, module.load_data, module.train_fn = Net, load_data, train_fn  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "task", module)
    return module


@pytest.mark.parametrize("keep", ["-", "+"])
def test_the_converted_app_runs_and_so_does_the_original(keep: str, task: types.ModuleType) -> None:
    client: dict[str, object] = {}
    server: dict[str, object] = {}
    exec(side(block("client diff"), keep), client)
    exec(side(block("server diff"), keep), server)
    fleet = steady(20, median=[1.0] * 19 + [100.0])
    run = run_virtual(server["app"], client["app"], fleet, num_shards=40)  # type: ignore[arg-type]
    replied = [event for event in run.trace if event.kind == "replied"]
    assert {event.server_round for event in replied} == {1, 2, 3}
    assert not [event for event in run.trace if event.kind == "failed"]
    # The original waits for the slow client in each round, the converted app for one member of each block.
    assert run.seconds == pytest.approx(600.0 if keep == "-" else 12.0)


def test_conversion_takes_about_ten_lines() -> None:
    added = [line for name in ("client diff", "server diff") for line in block(name).splitlines() if line[:1] == "+"]
    assert len(added) <= 10


def test_the_partial_work_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(block("partial work"), "README", "exec"), {})
    assert capsys.readouterr().out.startswith("CalibrationStatus.EXACT 0.22")


def test_the_example_of_shards_in_a_row_trains(task: types.ModuleType) -> None:
    data = task.load_data(0, 1)
    client: dict[str, Any] = {"app": ClientApp(), "Net": task.Net, "optim": torch.optim}
    client |= {"partial": partial, "dataset": data, "numbers_of": lambda shard_id: np.arange(400)[shard_id::40]}
    client["nn"] = types.SimpleNamespace(CrossEntropyLoss=torch.nn.MSELoss)  # the data here are a regression's
    exec(compile(block("in a row"), "README", "exec"), client)
    strategy = GradientCoding(
        FedAvg(fraction_evaluate=0.0, min_train_nodes=1, min_available_nodes=1),
        num_shards=40 * 6,
        in_a_row=True,
        schedule="work-list",
        deadline=AutomaticDeadline(initial=60.0),
    )

    start, results = ArrayRecord(task.Net().state_dict()), list[Result]()

    def main(grid: Grid, context: Context) -> None:
        results.append(strategy.start(grid, start, num_rounds=20, train_config=ConfigRecord({"lr": 0.2})))

    run = run_virtual(main, client["app"], steady(10), num_shards=40 * 6)
    assert not [event for event in run.trace if event.kind == "failed"]
    x, y = data.tensors
    model, losses = task.Net(), []
    for arrays in (start, results[0].arrays):
        model.load_state_dict(arrays.to_torch_state_dict())
        losses.append(float(torch.nn.functional.mse_loss(model(x).detach(), y)))
    assert losses[1] < 0.3 * losses[0]
