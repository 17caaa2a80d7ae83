"""What training needs around its steps: batches on their device, means over examples, seeds that disturb no one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any, cast

import torch
from flwr.app import ConfigRecord
from torch import Tensor, nn

from fedgc.global_random import seeded_globals
from fedgc.protocol import SHARD_SEED

#: (output of the model, targets) to the mean over the examples of the batch.
BatchMean = Callable[[Any, Any], Tensor]


class BatchMeans:
    """Means over examples, summed where they were computed so that a GPU need not wait for each."""

    def __init__(self, functions: Mapping[str, BatchMean]) -> None:
        self._functions = functions
        self._sums: dict[str, Any] = dict.fromkeys(functions, 0.0)
        self.examples = 0

    @torch.no_grad()
    def add(self, count: int, loss: Tensor, output: Any, targets: Any) -> None:  # noqa: ANN401
        """Add a batch: its loss, which has been computed already, and the other functions."""
        for name, function in self._functions.items():
            value = loss if name == "train_loss" else function(output, targets)
            self._sums[name] += count * (value.detach().float() if isinstance(value, Tensor) else value)
        self.examples += count

    def values(self) -> dict[str, float]:
        """Return the means; of nothing, none."""
        return {name: float(total) / self.examples for name, total in self._sums.items()} if self.examples else {}


def batches(loader: Iterable[Any], device: torch.device) -> Iterator[tuple[Any, Any, int]]:
    """Yield inputs, targets and number of examples of each batch, on the device."""
    for batch in loader:
        if not isinstance(batch, tuple | list) or len(batch) != 2:
            raise ValueError(f"loader must yield pairs (inputs, targets); got a {type(batch).__name__}")
        inputs, targets = (_moved_to(device, part) for part in batch)
        yield inputs, targets, _count(targets)


def _moved_to(device: torch.device, value: Any) -> Any:  # noqa: ANN401
    if isinstance(value, Mapping):
        return {name: _moved_to(device, part) for name, part in value.items()}
    if isinstance(value, tuple | list):
        return [_moved_to(device, part) for part in value]
    return value.to(device) if isinstance(value, Tensor) else value


def _count(targets: Any) -> int:  # noqa: ANN401
    """Return the number of examples: the length of the targets, or of the first of several."""
    if isinstance(targets, Mapping | list) and targets:
        return _count(next(iter(targets.values() if isinstance(targets, Mapping) else targets)))
    if not isinstance(targets, Tensor) or targets.ndim == 0:
        raise ValueError(f"targets must be tensors with a row per example; got {targets!r:.80}")
    return len(targets)


def call(model: nn.Module, inputs: Any) -> Any:  # noqa: ANN401
    """Return the model's output for the inputs of a batch."""
    if isinstance(inputs, Mapping):
        return model(**inputs)
    return model(*inputs) if isinstance(inputs, list) else model(inputs)


@contextmanager
def seeded_training(config: ConfigRecord, device: torch.device, loader: Iterable[Any]) -> Iterator[None]:
    """Seed what training draws from, and restore what others draw from."""
    if SHARD_SEED not in config:
        raise ValueError(f"config must hold {SHARD_SEED!r}, as gradient_coded passes it; got {sorted(config)}")
    seed = int(cast(int, config[SHARD_SEED]))
    samplers = [loader, *(getattr(loader, name, None) for name in ("sampler", "batch_sampler"))]
    for owner in (*samplers, getattr(samplers[-1], "sampler", None)):
        generator = getattr(owner, "generator", None)
        if isinstance(generator, torch.Generator):
            generator.manual_seed(seed)
    # Python's and numpy's too: data augmentation draws from them.
    with seeded_globals(seed), nullcontext() if device.type == "cpu" else _seeded_device(device, seed):
        yield


@contextmanager
def _seeded_device(device: torch.device, seed: int) -> Iterator[None]:
    kind = torch.get_device_module(device)
    with torch.random.fork_rng(devices=[device], device_type=device.type), kind.device(device):
        kind.manual_seed(seed)
        with _same_convolutions() if device.type == "cuda" else nullcontext():
            yield


@contextmanager
def _same_convolutions() -> Iterator[None]:
    """Have cuDNN choose and sum the same way each time, for which it takes somewhat longer.

    Otherwise two runs of one update on one device differ, by more the more steps it takes, and by far too much for
    holders of a shard to be compared. `torch.use_deterministic_algorithms` would go further, and raise for layers that
    have no such algorithm; where differences were seen, cuDNN alone was their cause.
    """
    settings = torch.backends.cudnn
    before = settings.deterministic, settings.benchmark
    settings.deterministic, settings.benchmark = True, False
    try:
        yield
    finally:
        settings.deterministic, settings.benchmark = before
