"""Run one method without a server, with one seed: nodes on a graph that average with their neighbours."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from fedgc.codes import Code, StochasticGradientCode, Uncoded
from fedgc.decentralised import (
    Graph,
    GraphFixedDecoder,
    NodeRounds,
    RegressionLoss,
    deadline_rounds,
    gossip_descent,
    waiting_rounds,
)
from fedgc.decoders import DECODERS, Decoder
from fedgc.experiment.config import ExperimentConfig, GraphConfig, NodesConfig
from fedgc.experiment.deadlines import in_seconds, time_limit_seconds
from fedgc.experiment.draws import draws_met
from fedgc.experiment.recording import KeptRows, RunEnded
from fedgc.experiment.row import Row
from fedgc.fleets import Fleet, build_fleet
from fedgc.gram import GramModel
from fedgc.play import RoundDraws
from fedgc.tasks.digits_data import digits_data
from fedgc.tasks.partition import build_shards

Matrix = NDArray[np.float64]
Told = dict[str, float]


def run_nodes(config: ExperimentConfig, choice: NodesConfig, seed: int, keep: Callable[[Row], None]) -> str:
    """Run one method with one seed, and return what identifies the draws that it met.

    As :func:`fedgc.experiment.runner.run_one`, for the runtime "decentralised". The loss is the mean over all nodes of
    the whole training loss, l2 term and all, at each node's own model, the accuracy likewise on the test set; a
    round is over once its last node has averaged.

    Parameters
    ----------
    config : ExperimentConfig
        A checked configuration without a sweep.
    choice : NodesConfig
        One of its strategies.
    seed : int
        One of its seeds: of shards, holders and graph, which are the same for all methods, and of the fleet.
    keep : callable
        Called with every row that is kept as soon as it is known.
    """
    given = config.decentralised or GraphConfig()
    fleet, n = build_fleet(config.fleet, seed=seed), config.n_clients
    graph, mixing, loss, test = world(config, given, seed)
    choice = in_seconds(choice, config, fleet)
    code = code_of(choice.load, n, config.task.shards, seed)
    loads = np.array([code.shards_of(node).size for node in range(n)])
    rounds = _played(choice, fleet, graph, loads, config.rounds)
    missed = np.zeros(n) if choice.deadline is None else fleet.straggle_prob(choice.deadline, loads)
    decoder = _rule(choice, mixing).calibrate(code, missed, GramModel.uniform(config.task.shards, 0.0))
    first, number = float(config.task.options["learning_rate"]), np.arange(config.rounds)
    rows = KeptRows(config, keep, time_limit=time_limit_seconds(config, fleet))
    steps = 1.0 / (1.0 / first + given.decay * number)
    for t, models in enumerate(gossip_descent(loss, decoder, mixing, rounds.finished, steps)):
        seconds = 0.0 if t == 0 else float(rounds.ends[t - 1].max())
        arrived = 0.0 if t == 0 else float(rounds.finished[t - 1].sum())
        numbers = {"fedgc-asked": float(n) if t else 0.0, "fedgc-arrived": arrived}
        value = float(loss.values(models).mean())
        # To test models takes as long as a round: where the target is a loss, only kept rounds are tested.
        accuracy = test(models) if config.target.quantity == "accuracy" else math.nan

        def row(
            t: int = t, seconds: float = seconds, value: float = value, models: Matrix = models, told: Told = numbers
        ) -> Row:
            return Row(choice.label, seed, t, seconds, test(models), value, told)

        try:
            rows.add(t, accuracy, value, seconds, row)
        except RunEnded:
            break
    rows.close()
    return draws_met(RoundDraws(fleet), config.rounds)


def world(
    config: ExperimentConfig, given: GraphConfig, seed: int
) -> tuple[Graph, Matrix, RegressionLoss, Callable[[Matrix], float]]:
    """Return graph, mixing matrix, loss and the accuracy on the test set: the same for all methods with one seed."""
    data, task = digits_data(), config.task
    shards = build_shards(data.train_y, task.shards, task.partition, task.alpha, np.random.default_rng([seed, 7]))
    loss = digits_loss(shards, given.regularisation, np.random.default_rng([seed, 83]))
    graph = given.build(config.n_clients, seed)
    test_x = np.hstack([data.test_x, np.ones((data.test_y.size, 1))])

    def accuracy(models: Matrix) -> float:
        scores = test_x @ models.reshape(len(models), test_x.shape[1], -1)
        return float((scores.argmax(axis=2) == data.test_y).mean())

    return graph, given.mixing_on(graph), loss, accuracy


def digits_loss(shards: Sequence[NDArray[np.intp]], regularisation: float, rng: np.random.Generator) -> RegressionLoss:
    """Return the loss of logistic regression on the digits, whose training examples are divided into these shards.

    Parameters
    ----------
    shards : sequence of ndarray of int
        Indices of the examples of each shard.
    regularisation : float
        The l2 term's weight.
    rng : numpy.random.Generator
        Orders the shards. Which node comes to hold which label is random, or neighbours on a ring would hold the same
        ones.
    """
    data = digits_data()
    of = np.empty(data.train_y.size, dtype=np.intp)
    for place, shard in zip(rng.permutation(len(shards)), shards, strict=True):
        of[shard] = place
    features = np.hstack([data.train_x, np.ones((data.train_y.size, 1))])
    return RegressionLoss(features, data.train_y, of, regularisation)


def code_of(load: int, n_clients: int, n_shards: int, seed: int) -> Code:
    """Return who holds what: the same for all methods of one load and seed."""
    if load == 1:
        return Uncoded(n_clients, n_shards)
    return StochasticGradientCode(n_clients, n_shards, load, rng=np.random.default_rng([seed, 89, load]))


def _rule(choice: NodesConfig, mixing: Matrix) -> Decoder:
    return GraphFixedDecoder(mixing) if choice.decoder == GraphFixedDecoder.name else DECODERS[choice.decoder]()


def _played(choice: NodesConfig, fleet: Fleet, graph: Graph, loads: NDArray[np.intp], rounds: int) -> NodeRounds:
    if choice.deadline is not None:
        return deadline_rounds(RoundDraws(fleet), loads, choice.deadline, rounds)
    return waiting_rounds(RoundDraws(fleet), loads, rounds, graph=graph if choice.waits_for == "neighbours" else None)
