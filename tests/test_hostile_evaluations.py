"""Evaluations of hostile clients: what cannot be averaged is left out, and the run goes on."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
from fedgc.clients import gradient_coded
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg

from tests.apps import shard_app, steady, train, train_shard
from tests.hostile_fleet import HOSTILE, N_CLIENTS, ONE, coding

EVALUATIONS: dict[str, Callable[[RecordDict], None]] = {
    "other metrics": lambda content: content["metrics"].update({"more": 1.0}),
    "no metrics": lambda content: content.clear(),
    "metrics twice": lambda content: content.update({"more": MetricRecord({"num-examples": 1})}),
    "no number of examples": lambda content: content["metrics"].pop("num-examples"),
    "a list of them": lambda content: content["metrics"].update({"num-examples": [1, 2]}),
    "less than none": lambda content: content["metrics"].update({"num-examples": -7}),
    "NaN": lambda content: content["metrics"].update({"loss": float("nan")}),
    "a list": lambda content: content["metrics"].update({"loss": [0.5] * 100}),
    "huge": lambda content: content["metrics"].update({"loss": [0.5] * 10**6}),
    "another name": lambda content: content.update({"scores": content.pop("metrics")}),
    "an empty array record": lambda content: content.update({"arrays": ArrayRecord()}),
}


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("kind", EVALUATIONS)
def test_an_evaluation_that_cannot_be_averaged_does_not_end_the_run(
    kind: str, first: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Flower raises an error if the replies are not all alike."""
    app = ClientApp()
    app.train()(gradient_coded()(train_shard))
    hostile = 0 if first else HOSTILE

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        partition = int(context.node_config["partition-id"])
        metrics = MetricRecord({"num-examples": 1 + partition, "loss": float(partition)})
        reply = Message(RecordDict({"metrics": metrics}), reply_to=message)
        if partition == hostile:
            EVALUATIONS[kind](reply.content)
        return reply

    strategy = coding(FedAvg(**ONE))
    with caplog.at_level(logging.WARNING, logger="flwr"):
        result, _ = train(strategy, steady(N_CLIENTS), rounds=2, app=app)
    honest = [client for client in range(N_CLIENTS) if client != hostile]
    mean = sum((1 + c) * c for c in honest) / sum(1 + c for c in honest)
    for server_round in (1, 2):
        assert result.evaluate_metrics_clientapp[server_round] == {"loss": pytest.approx(mean)}
        assert f"round {server_round}: node {100 + hostile} is left out of the evaluation: " in caplog.text
    assert len(caplog.text) < 10_000


def test_a_run_goes_on_if_nothing_can_be_averaged(caplog: pytest.LogCaptureFixture) -> None:
    app = ClientApp()
    app.train()(gradient_coded()(train_shard))

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        if context.node_config["partition-id"] != HOSTILE:
            raise RuntimeError("battery empty\n" * 1000)
        return Message(RecordDict({"metrics": MetricRecord({"num-examples": 0, "loss": 1.0})}), reply_to=message)

    with caplog.at_level(logging.WARNING, logger="flwr"):
        result, _ = train(coding(FedAvg(**ONE)), steady(N_CLIENTS), rounds=2, app=app)
    assert set(result.train_metrics_clientapp) == {1, 2}
    assert not result.evaluate_metrics_clientapp
    for server_round in (1, 2):
        line = f"round {server_round}: the evaluation has no result: num-examples is 0 in all 1 replies"
        assert caplog.text.count(line) == 1


def test_a_strategy_that_averages_in_its_own_way_gets_all_evaluations() -> None:
    seen: list[int] = []

    class Own(FedAvg):
        def aggregate_evaluate(self, server_round: int, replies: Any) -> MetricRecord | None:
            seen.append(len(list(replies)))
            return None

    app = shard_app()
    train(coding(Own(**ONE)), steady(N_CLIENTS), app=app)
    assert seen == [N_CLIENTS]
