"""The status page: it says what the run is, whole at any instant, whatever clients send."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fedgc.strategies import GradientCoding, StatusPage
from fedgc.strategies.messages.reply_limits import one_line
from fedgc.strategies.reporting.report import METRICS
from fedgc.strategies.reporting.status import BlockStatus, ClientStatus, RunStatus
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg

from fedgc.deadline import AutomaticDeadline
from fedgc.protocol import LABEL, RECORD, SHARD_IDS
from tests.apps import N_SHARDS, initial_arrays, shard_app, steady, train
from tests.status_pages import Page, Statuses, coding, data_of

HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(2)>\u202e\x00&amp;'


def test_every_number_is_that_of_the_run(tmp_path: Path) -> None:
    kept, path = Statuses(), tmp_path / "folder" / "status.html"
    strategy = coding(kept, StatusPage(path))
    train(strategy, steady(dropout=[0.0, 0.1, 0.2, 0.4, 0.6, 0.9], median=[1.0, 1.0, 1.0, 1.0, 3.0, 1.0]), rounds=12)
    history, data = strategy.history, data_of(path.with_suffix(".json"))
    # When it begins, when each round is sent and when it is over, and when the run ends.
    assert [status.phase for status in kept.all] == ["waiting", *["training"] * 24, "ended"]
    assert [status.rounds_done for status in kept.all] == [0, *sorted([*range(12), *range(1, 13)]), 12]
    assert [status.round_open for status in kept.all[1:-1:2]] == list(range(1, 13))
    assert {status.round_open for status in kept.all[::2]} == {kept.all[-1].round_open} == {None}
    assert (data["rounds_done"], data["rounds_planned"], data["deadline"]) == (12, 12, 10.0)
    assert data["seconds_in_rounds"] == pytest.approx(sum(report.seconds or 0.0 for report in history))
    assert data["error_observed"] == pytest.approx(np.mean([report.model_residual_error for report in history]))
    assert data["error_predicted"] == pytest.approx(np.mean([report.predicted_residual_error for report in history]))
    assert data["rounds"] == list(range(1, 13))
    assert data["numbers"] == {name: [report.numbers[name] for report in history] for name in METRICS}
    for client, told in enumerate(data["clients"]):
        came = [report.server_round for report in history if report.arrived[client]]
        assert told["node_id"] == str(100 + client)
        assert (told["asked"], told["came"]) == (12, len(came))
        assert (told["last_asked"], told["last_seen"]) == (12, came[-1] if came else None)
    (known,) = strategy.state.reliability.describe([103])
    told = data["clients"][3]
    assert (told["straggle_prob"], told["low"], told["high"]) == (known.straggle_prob, known.low, known.high)
    page = Page(path)
    slow = page.rows[[row[:1] for row in page.rows].index(["104"])]
    assert float(slow[2]) == pytest.approx(3.0, rel=0.1)
    assert slow[4] == f"{sum(report.arrived[4] for report in history)} of 12"
    assert page.tags["svg"] > 2 and {"Totals", "Least reliable", "Slowest"} <= set(page.words)


@pytest.mark.parametrize("schedule", ["full", "work-list"])
def test_a_block_is_as_likely_to_be_silent_as_the_next_round_finds(schedule: str) -> None:
    """What is told after a round is what the plan of the next one assumes, if that keeps the blocks and the times."""
    kept, compared = Statuses(), 0
    strategy = coding(kept, schedule=schedule, reassignment_gain=1.0)
    train(strategy, steady(dropout=0.4), rounds=14)
    for status, report in zip(kept.between_rounds[:-1], strategy.history[1:], strict=True):
        if schedule == "work-list" and status.rounds_done < 6:
            continue  # times are learnt anew after each of these, which the last plan could not know
        place = {node: client for client, node in enumerate(report.node_ids)}
        for block in status.blocks:
            nothing = float(np.prod([report.straggle_prob[place[node]] for node in block.members]))
            assert block.silence_prob == pytest.approx(nothing, rel=1e-9 if schedule == "full" else 0.1)
            assert block.at_risk == (block.silence_prob > 0.05)
            compared += 1
    assert compared > 20


def test_blocks_tell_when_all_their_shards_last_counted() -> None:
    kept = Statuses()
    strategy = coding(kept, load=1, schedule="work-list", deadline=AutomaticDeadline(initial=1.5, cover=True))
    train(strategy, steady(dropout=0.5, clients=3), rounds=8)
    told = 0
    for status in kept.between_rounds:
        reports = strategy.history[: status.rounds_done]
        assert sorted(shard for block in status.blocks for shard in block.shards) == list(range(N_SHARDS))
        for block in status.blocks:
            last = [max([r.server_round for r in reports if r.coverage[j] != 0.0], default=0) for j in block.shards]
            assert block.last_recovered == (min(last) or None)
            told += block.last_recovered is not None
    assert told > 5


def test_the_keys_of_the_data_are_the_attributes(tmp_path: Path) -> None:
    evaluating = FedAvg(min_train_nodes=1, min_available_nodes=1, min_evaluate_nodes=1)
    strategy = coding(StatusPage(tmp_path / "status.html"), inner=evaluating)
    train(strategy, steady(), rounds=2)
    data = data_of(tmp_path / "status.json")
    assert list(data) == ["format", *(field.name for field in fields(RunStatus))]
    assert data["format"] == "fedgc-status-1"
    assert {tuple(client) for client in data["clients"]} == {ClientStatus._fields}
    assert {tuple(block) for block in data["blocks"]} == {BlockStatus._fields}
    assert data["clients_evaluation"] == {"server_round": 2, "metrics": {"loss": pytest.approx(0.5)}}
    assert data["server_evaluation"] is None
    assert "loss 0.5" in Page(tmp_path / "status.html").text
    for kind in (RunStatus, ClientStatus, BlockStatus):  # each of them is documented
        names = kind._fields if hasattr(kind, "_fields") else [field.name for field in fields(kind)]
        attributes = kind.__doc__.partition("Attributes")[2]
        assert all(name in attributes for name in names)


def test_who_reads_while_the_run_goes_on_gets_all_of_a_page(tmp_path: Path) -> None:
    path, seen, over = tmp_path / "status.html", Counter[Any](), threading.Event()
    page = StatusPage(path)

    def read() -> None:
        while not over.is_set():
            for file in (path, path.with_suffix(".json")):
                try:
                    content = file.read_text(encoding="utf-8")
                except FileNotFoundError:
                    continue
                if file is path:
                    seen["html", content.endswith("</body></html>\n")] += 1
                else:
                    seen["json", json.loads(content)["rounds_done"]] += 1

    def guarded() -> None:
        try:
            read()
        except ValueError as error:
            seen["torn", str(error)] += 1

    reader = threading.Thread(target=guarded)
    reader.start()
    try:
        train(coding(page), steady(clients=40, dropout=0.3), rounds=12)
    finally:
        over.set()
        reader.join()
    assert not [key for key in seen if key[0] == "torn" or key == ("html", False)]
    assert len([key for key in seen if key[0] == "json"]) > 5
    assert seen["html", True] > 20
    assert sorted(file.name for file in tmp_path.iterdir()) == ["status.html", "status.json"]


def test_what_clients_send_is_shown_and_not_obeyed(tmp_path: Path) -> None:
    def spoil(label: str) -> Any:
        def changed(reply: Message, partition: int) -> Message | None:
            said = reply.content.config_records.get(RECORD, ConfigRecord())
            if said.get(SHARD_IDS) == [] and partition < 3:  # the introduction
                said[f"{LABEL}{label}"] = label
            elif partition == 5:
                arrays = reply.content.array_records
                arrays[next(iter(arrays))] = ArrayRecord({label: initial_arrays()["bias"]})
            return reply

        return changed

    def evaluate(label: str) -> Any:
        return lambda server_round, arrays: MetricRecord({label: 0.5, "nan": float("nan")})

    pages = {}
    for name, label in (("harmless", "site"), ("hostile", HOSTILE)):
        path = tmp_path / f"{name}.html"
        strategy = coding(StatusPage(path), start_timeout=30.0)

        def start(grid: Grid, strategy: GradientCoding = strategy, label: str = label) -> None:
            strategy.start(grid, initial_arrays(), num_rounds=4, evaluate_fn=evaluate(label))

        train(coding(), steady(), on_grid=start, app=shard_app(spoil(label)))
        pages[name] = Page(path)
        told = data_of(path.with_suffix(".json"))
        assert told["clients"][1]["labels"] == {label: one_line(label)} and told["clients"][1]["partition"] == 1
        assert told["server_evaluation"]["metrics"] == {label: 0.5, "nan": None}
        assert repr(label)[1:-1] in told["clients"][5]["last_rejection"] and told["clients"][5]["rejected"] == 3
        assert told["clients"][5]["asked"] == 3  # in the fourth round it was set aside
    hostile, harmless = pages["hostile"], pages["harmless"]
    assert hostile.tags == harmless.tags and hostile.attributes == harmless.attributes
    assert not {"script", "img", "link"} & set(hostile.tags)
    assert not any(name.startswith("on") or name in {"src", "href", "srcset"} for name in hostile.attributes)
    assert '"><script>alert(1)' in hostile.text
    assert "\u202e" not in hostile.source and "\x00" not in hostile.source
    assert "url(" not in hostile.source and "default-src 'none'" in hostile.source


def test_a_client_that_is_set_aside_is_told_until_when(tmp_path: Path) -> None:
    def spoil(reply: Message, partition: int) -> Message | None:
        if partition == 5:
            arrays = reply.content.array_records
            arrays[next(iter(arrays))] = ArrayRecord({"other": initial_arrays()["bias"]})
        return reply

    kept, path = Statuses(), tmp_path / "status.html"
    train(coding(kept, StatusPage(path)), steady(), rounds=3, app=shard_app(spoil))
    client = kept.all[-1].clients[5]
    assert (client.asked, client.came, client.rejected, client.set_aside_until) == (3, 0, 3, 4)
    assert "set aside until round 4; left out 3 times, last: array names must be" in Page(path).text
    assert {client.set_aside_until for client in kept.between_rounds[-1].clients[:5]} == {None}


def test_progress_is_told_in_rounds_and_seconds() -> None:
    kept = Statuses()
    train(coding(kept, early_end=False), steady(dropout=[0.9] * 6), rounds=4)
    during = kept.between_rounds
    assert [status.seconds for status in during] == [10.0, 20.0, 30.0, 40.0]
    assert [status.seconds_left for status in during] == [30.0, 20.0, 10.0, 0.0]
    assert kept.all[0].seconds is None and kept.all[-1].seconds_left is None


def test_of_many_the_page_has_the_worst_and_the_data_all(tmp_path: Path) -> None:
    kept, page = Statuses(), StatusPage(tmp_path / "status.html")
    train(coding(kept), steady(clients=300, dropout=0.3), rounds=3)
    status, n_clients, n_blocks = kept.all[-1], 10_000, 5_000
    rng = np.random.default_rng(0)
    clients = tuple(
        status.clients[k % 300]._replace(node_id=2**63 + k, straggle_prob=float(prob))
        for k, prob in enumerate(rng.random(n_clients))
    )
    blocks = tuple(
        BlockStatus(k, (2**63 + 2 * k, 2**63 + 2 * k + 1), (k,), float(prob), bool(prob > 0.05), None)
        for k, prob in enumerate(rng.random(n_blocks))
    )
    large, seconds = replace(status, phase="training", clients=clients, blocks=blocks), []
    for _ in range(3):
        began = time.thread_time()
        page.write_status(large)
        seconds.append(time.thread_time() - began)
    assert min(seconds) < 0.3
    shown, data = Page(page.path), data_of(page.data_path)
    assert [client["node_id"] for client in data["clients"]] == [str(2**63 + k) for k in range(n_clients)]
    assert len(data["blocks"]) == n_blocks
    worst = sorted(clients, key=lambda client: -client.straggle_prob)[:100]
    named = [row[0] for row in shown.rows if len(row) == 8][1:]
    assert named == [str(client.node_id) for client in worst]
    risky = sum(block.at_risk for block in blocks)
    assert len([row for row in shown.rows if len(row) == 5]) == 101
    assert f"{risky:,} of 5,000" in shown.words
    likely = sum(client.straggle_prob > 0.5 for client in clients)
    assert f"{likely:,} of 10,000" in shown.words and f"{likely:,} above" in shown.text
    assert len(shown.source) < 100_000


def test_a_thousand_rounds_are_drawn_as_means(tmp_path: Path) -> None:
    kept, page = Statuses(), StatusPage(tmp_path / "status.html")
    train(coding(kept), steady(dropout=0.3), rounds=5)
    status = kept.all[-1]
    many = {name: values * 200 for name, values in status.numbers.items()}
    page.write_status(replace(status, rounds=tuple(range(1, 1001)), numbers=many))
    shown = Page(page.path)
    assert len(shown.source) < 60_000 and "1000" in shown.words
    page.write_status(replace(status, rounds=(1,), numbers={name: values[:1] for name, values in many.items()}))
    assert 'd="M0,' in Page(page.path).source  # a single round is a dot
