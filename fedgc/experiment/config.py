"""Experiment configurations: read, overridden and checked before anything runs."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fedgc.assignment import Schedule, Sums, number_of_blocks
from fedgc.deadline import DeadlineRule, build_deadline
from fedgc.decoders import DECODERS
from fedgc.errors import ConfigError
from fedgc.fleets import build_fleet
from fedgc.round import check_list_options, check_partial_work, check_sum_only
from fedgc.schemes import BALANCED_BLOCKS, CODES, LIST_CODES

Count = Annotated[int, Field(ge=1, le=1_000_000, strict=True)]
Name = Annotated[str, Field(min_length=1, max_length=200, strict=True)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False, strict=True)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TaskConfig(_Section):
    """What is trained: scikit-learn's digits, see :class:`fedgc.tasks.DigitsTask` for the keys."""

    name: Literal["digits"] = "digits"
    shards: Annotated[int, Field(ge=1, le=500, strict=True)] = 40
    alpha: Positive = 0.3
    hidden: Annotated[int, Field(ge=1, le=10_000, strict=True)] = 32
    local_epochs: Count = 1
    batch_size: Count = 16
    learning_rate: Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False, strict=True)] = 0.1


class FedAvgConfig(_Section):
    """Flower's FedAvg: waits for everyone, or for `deadline` seconds."""

    kind: Literal["fedavg"]
    label: Name
    deadline: Positive | None = None


class GradientCodingConfig(_Section):
    """fedgc's GradientCoding around FedAvg.

    With a rule for the deadline, `deadline` is that of the first round; `deadline_share` belongs to the rule "quantile"
    alone. With `secure_sum` the server uses only the sum
    of what arrives, in fixed point with so many `fractional_bits`; the decoder must then be one whose weights are
    settled before the round: "fixed", say.
    """

    kind: Literal["gradient-coding"]
    label: Name
    deadline: Positive
    deadline_rule: Literal["fixed", "quantile", "auto"] = "fixed"
    deadline_share: Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False, strict=True)] = 0.8
    load: Count = 2
    schedule: Schedule = "full"
    sums: Sums | None = None
    redraw: Annotated[bool | None, Field(strict=True)] = None
    early_end: Annotated[bool, Field(strict=True)] = True
    code: str = BALANCED_BLOCKS
    decoder: str = "optimal-unbiased"
    max_weight: Positive | None = None
    memory: Annotated[bool, Field(strict=True)] = False
    secure_sum: Annotated[bool, Field(strict=True)] = False
    fractional_bits: Annotated[int, Field(ge=8, le=48, strict=True)] = 32

    def build_deadline(self) -> DeadlineRule:
        """Return the rule for the deadline, or raise ValueError if the first one is beyond the rule's longest."""
        if self.deadline_rule == "fixed":
            return build_deadline(self.deadline)
        options = {"share": self.deadline_share} if self.deadline_rule == "quantile" else {}
        return build_deadline({"rule": self.deadline_rule, "initial": self.deadline, **options})


StrategyConfig = Annotated[FedAvgConfig | GradientCodingConfig, Field(discriminator="kind")]


class ExperimentConfig(_Section):
    """A whole experiment.

    Attributes
    ----------
    name : str
        Title of tables and figures.
    rounds : int
        Rounds per run.
    seeds : list of int
        One run per strategy and seed. A seed fixes shards, initial model, fleet and draws.
    target_accuracy : float
        Test accuracy whose first attainment is reported.
    tensorboard : str or None
        Folder for TensorBoard's curves; each strategy and seed gets a folder in it.
    task, fleet, strategies
        What is trained, by whom, and how. The fleet is a table as in :func:`fedgc.fleets.build_fleet`.
    """

    name: Name
    rounds: Count
    seeds: Annotated[list[Annotated[int, Field(ge=0, lt=2**32, strict=True)]], Field(min_length=1)]
    target_accuracy: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False, strict=True)] = 0.9
    tensorboard: Name | None = None
    task: TaskConfig = TaskConfig()
    fleet: dict[str, Any]
    strategies: Annotated[list[StrategyConfig], Field(min_length=1)]

    @property
    def n_clients(self) -> int:
        """Number of clients in the fleet."""
        return int(self.fleet["clients"])


def load_config(path: Path, overrides: Iterable[str] = ()) -> ExperimentConfig:
    """Read a TOML configuration, apply ``key=value`` overrides, and check it.

    Parameters
    ----------
    path : Path
        The file.
    overrides : iterable of str
        ``dotted.key=value``; positions in lists count from 0, values are written as in TOML, and a value that is not
        TOML is taken as a string.

    Raises
    ------
    ConfigError
        One line that names the key, the value and what is allowed.
    """
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"config must be a readable file; got {str(path)!r} ({error.strerror})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"config must be valid TOML; got {str(path)!r} ({error})") from None
    for override in overrides:
        _apply(raw, override)
    return check_config(raw)


def check_config(raw: Mapping[str, Any]) -> ExperimentConfig:
    """Check a configuration given as plain data, including what no single key shows."""
    try:
        config = ExperimentConfig.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(_one_line(error)) from None
    build_fleet(config.fleet, seed=config.seeds[0])
    if len(set(config.seeds)) < len(config.seeds):
        raise ConfigError(f"seeds must not name a seed twice; got {config.seeds}")
    labels = [strategy.label for strategy in config.strategies]
    for index, strategy in enumerate(config.strategies):
        where = f"strategies.{index}"
        if labels.index(strategy.label) != index:
            raise ConfigError(f"{where}.label must differ from the other labels; got {strategy.label!r} again")
        if isinstance(strategy, GradientCodingConfig):
            _check_coding(strategy, where, n_clients=config.n_clients, n_shards=config.task.shards)
    return config


def _check_coding(strategy: GradientCodingConfig, where: str, *, n_clients: int, n_shards: int) -> None:
    if strategy.decoder not in DECODERS:
        raise ConfigError(f"{where}.decoder must be one of {', '.join(DECODERS)}; got {strategy.decoder!r}")
    if "deadline_share" in strategy.model_fields_set and strategy.deadline_rule != "quantile":
        raise ConfigError(
            f"{where}.deadline_share must be left out unless deadline_rule is 'quantile'; "
            f"got {strategy.deadline_share} with {strategy.deadline_rule!r}"
        )
    if strategy.code not in CODES:
        raise ConfigError(f"{where}.code must be one of {', '.join(CODES)}; got {strategy.code!r}")
    try:
        strategy.build_deadline()
    except ValueError as error:
        raise ConfigError(f"{where}.deadline, {error} (of the rule {strategy.deadline_rule!r})") from None
    schedule, sums = strategy.schedule, strategy.sums
    try:
        check_list_options(schedule, sums=sums, redraw=strategy.redraw)
        if strategy.code not in (BALANCED_BLOCKS, *LIST_CODES) and schedule == "work-list":
            raise ConfigError(
                f"{where}.code must be one of {', '.join((BALANCED_BLOCKS, *LIST_CODES))} for schedule 'work-list'; "
                f"got {strategy.code!r}"
            )
        decoder = DECODERS[strategy.decoder]
        if strategy.secure_sum:
            check_sum_only(decoder, schedule=schedule, sums=sums or "shard", memory=strategy.memory)
        check_partial_work(decoder, schedule=schedule, sums=sums or "shard")
    except ValueError as error:
        raise ConfigError(f"{where}.{error}") from None
    try:
        n_blocks = number_of_blocks(n_clients, strategy.load)
    except ValueError as error:
        raise ConfigError(f"{where}.{error} (load may not exceed fleet.clients)") from None
    if n_blocks > n_shards:
        raise ConfigError(
            f"task.shards must be at least the number of blocks, fleet.clients // {where}.load = {n_blocks}; "
            f"got {n_shards}"
        )


def _apply(raw: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set must be of the form key=value; got {override!r}")
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        parsed = {"value": text}
    if len(parsed) > 1:
        raise ConfigError(f"--set must name one key; got {override!r}")
    value = parsed["value"]
    node: Any = raw
    *parents, last = key.strip().split(".")
    for part in parents:
        if isinstance(node, dict):
            node = node.setdefault(part, {})
        elif isinstance(node, list):
            node = node[_position(key, part, node)]
        else:
            raise ConfigError(f"--set {key}: {part!r} must be inside a table or a list; got {node!r}")
    if isinstance(node, list):
        node[_position(key, last, node)] = value
    elif isinstance(node, dict):
        node[last] = value
    else:
        raise ConfigError(f"--set {key}: {last!r} must be inside a table or a list; got {node!r}")


def _position(key: str, part: str, items: list[Any]) -> int:
    if not part.isdigit() or int(part) >= len(items):
        raise ConfigError(f"--set {key}: position must be an integer from 0 to {len(items) - 1}; got {part!r}")
    return int(part)


_SECTIONS: dict[str, type[BaseModel]] = {
    "task": TaskConfig,
    "fedavg": FedAvgConfig,
    "gradient-coding": GradientCodingConfig,
}


def _one_line(error: ValidationError) -> str:
    """Return pydantic's first complaint as key, what is allowed, and value."""
    first = error.errors()[0]
    kinds = [part for part in first["loc"] if part in ("fedavg", "gradient-coding")]
    path = [str(part) for part in first["loc"] if part not in kinds]
    key = ".".join(path) or "config"
    if first["type"] == "extra_forbidden":
        section = _SECTIONS.get(str(kinds[0]) if kinds else path[0], ExperimentConfig)
        if len(path) == 1:
            section = ExperimentConfig
        return f"{key} is not a known key, allowed are {', '.join(section.model_fields)}; got {first['input']!r}"
    if first["type"] == "missing":
        return f"{key} must be given; got nothing"
    if first["type"] in ("union_tag_invalid", "union_tag_not_found"):
        given = first["input"].get("kind") if isinstance(first["input"], dict) else first["input"]
        return f"{key}.kind must be one of fedavg, gradient-coding; got {given!r}"
    requirement = re.sub(r"^(Input|List|String) should", "must", first["msg"])
    return f"{key} {requirement[0].lower() + requirement[1:]}; got {first['input']!r}"
