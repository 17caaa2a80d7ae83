"""Federated averaging on pfl-research's SimulatedBackend, in one process.

Needs the extra `peers`. Losses of single users, which pfl evaluates before and after their training in some rounds, are
left out but for the first round, in which it always does so.
"""

from __future__ import annotations

import os
from typing import Any

# As it is imported pfl asks for a device, and elsewhere there might be another one.
os.environ.setdefault("PFL_PYTORCH_DEVICE", "cpu")

import torch
from jobs import Job, Rounds, contestant, examples, loss_of, network, shards
from pfl.aggregate.simulate import SimulatedBackend
from pfl.aggregate.weighting import WeightByDatapoints
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.callback.base import TrainingProcessCallback
from pfl.data.federated_dataset import FederatedDataset
from pfl.data.pytorch import PyTorchTensorDataset
from pfl.data.sampling import get_user_sampler
from pfl.hyperparam import NNTrainHyperParams
from pfl.metrics import Metrics, Weighted
from pfl.model.pytorch import PyTorchModel
from torch import nn


class WithLoss(nn.Module):
    """A network with the two methods that pfl asks for."""

    def __init__(self, layers: nn.Module) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        return self.layers(x)  # type: ignore[no-any-return]

    def loss(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return the mean cross-entropy."""
        return nn.functional.cross_entropy(self(x), y)

    def metrics(self, x: torch.Tensor, y: torch.Tensor) -> dict[str, Any]:
        """Return the loss as pfl wants it."""
        return {"loss": Weighted(float(self.loss(x, y).detach()) * len(y), len(y))}


class Takes(TrainingProcessCallback):
    """Take down when rounds end."""

    def __init__(self, rounds: Rounds) -> None:
        self.rounds = rounds
        self.data = examples(rounds.job)

    def after_central_iteration(
        self, aggregate_metrics: Metrics, model: PyTorchModel, *, central_iteration: int
    ) -> tuple[bool, Metrics]:
        """Take down that a round has ended, and go on."""
        self.rounds.ended(central_iteration + 1, lambda: loss_of(model.pytorch_model, self.data))
        return False, Metrics()


def play(job: Job) -> Rounds:
    """Do the job."""
    rounds, layers = Rounds(job), WithLoss(network(job))
    parts = [PyTorchTensorDataset(part, user_id=str(user)) for user, part in enumerate(shards(job, examples(job)))]
    users = FederatedDataset(parts.__getitem__, get_user_sampler("minimize_reuse", range(job.clients)))
    model = PyTorchModel(layers, torch.optim.SGD, torch.optim.SGD(layers.parameters(), lr=1.0))
    FederatedAveraging().run(
        NNAlgorithmParams(
            central_num_iterations=job.rounds,
            evaluation_frequency=job.rounds + 1,
            train_cohort_size=job.clients,
            val_cohort_size=None,
        ),
        SimulatedBackend(users, users, postprocessors=[WeightByDatapoints()]),
        model,
        NNTrainHyperParams(local_num_epochs=1, local_learning_rate=job.learning_rate, local_batch_size=None),
        callbacks=[Takes(rounds)],
        send_metrics_to_platform=False,
    )
    return rounds


if __name__ == "__main__":
    contestant(__doc__, play)
