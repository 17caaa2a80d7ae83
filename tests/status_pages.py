"""What tests of the status page share: a run with one, and a page as a browser has it."""

from __future__ import annotations

import json
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from fedgc.strategies import GradientCoding, RoundReporter
from fedgc.strategies.reporting.report import RoundReport
from fedgc.strategies.reporting.status import RunStatus
from flwr.serverapp.strategy import FedAvg

from tests.apps import EXAMPLES, N_SHARDS


def coding(*reporters: RoundReporter, **options: Any) -> GradientCoding:
    inner = options.pop("inner", None) or FedAvg(fraction_evaluate=0.0, min_train_nodes=1, min_available_nodes=1)
    given = {"num_shards": N_SHARDS, "deadline": 10.0, "shard_examples": EXAMPLES, "reporters": reporters}
    return GradientCoding(inner, **{**given, **options})


class Statuses(RoundReporter):
    def __init__(self) -> None:
        self.all: list[RunStatus] = []

    def write(self, report: RoundReport) -> None:
        pass

    def write_status(self, status: RunStatus) -> None:
        self.all.append(status)

    @property
    def between_rounds(self) -> list[RunStatus]:
        """What was known when each round was over."""
        return [status for status in self.all if status.phase == "training" and status.round_open is None]


class Page(HTMLParser):
    """The elements and the text of a page; every element that is opened must be closed in its turn."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.attributes: set[str] = set()
        self.words: list[str] = []
        self.rows: list[list[str]] = []
        self._open: list[str] = []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes |= {name for name, _ in attrs}
        if tag not in {"meta", "path"}:
            self._open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in {"td", "th"}:
            self.rows[-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)
        if {"td", "th"} & set(self._open):
            self.rows[-1][-1] += data

    @property
    def text(self) -> str:
        return " ".join(self.words)


def data_of(path: Path) -> dict[str, Any]:
    def not_json(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"), parse_constant=not_json)
    return data
