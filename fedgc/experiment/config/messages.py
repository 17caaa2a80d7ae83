"""What is wrong with a configuration, in one line."""

from __future__ import annotations

import re

from pydantic import BaseModel, ValidationError

from fedgc.experiment.config.block_coordinates import BLOCK_COORDINATES, BlocksConfig
from fedgc.experiment.config.nodes import DECENTRALISED, GraphConfig, NodesConfig
from fedgc.experiment.config.sections import (
    GRADIENT_CODING,
    KINDS,
    ExperimentConfig,
    GradientCodingConfig,
    RivalConfig,
    TuningConfig,
)
from fedgc.experiment.config.tasks import TASK_SECTIONS
from fedgc.validation import did_you_mean

#: The sections of which there are several kinds: by the table they are in, and the tag by which pydantic tells them
#: apart.
_SECTIONS: dict[tuple[str, str], type[BaseModel]] = {
    **{("task", name): section for name, section in TASK_SECTIONS.items()},
    ("strategies", "rival"): RivalConfig,
    ("strategies", GRADIENT_CODING): GradientCodingConfig,
    ("strategies", DECENTRALISED): NodesConfig,
    ("strategies", BLOCK_COORDINATES): BlocksConfig,
}
#: Those of one kind, by their table.
_TABLES: dict[str, type[BaseModel]] = {"decentralised": GraphConfig, "tuning": TuningConfig}
#: Of those of several kinds the key that says which kind a section is, and what it may be.
_KINDS = {"task": ("name", tuple(TASK_SECTIONS)), "strategies": ("kind", KINDS)}


def one_line(error: ValidationError) -> str:
    """Return one of pydantic's complaints as key, what is allowed, and value."""
    # What is missing may be there under a misspelt name, which is then the one to tell.
    first = min(error.errors(), key=lambda one: one["type"] == "missing")
    path = [str(part) for part in first["loc"]]
    # The tag stands behind the table, and behind the position where there is a list of them.
    tag = next((place for place in (1, 2) if len(path) > place and (path[0], path[place]) in _SECTIONS), None)
    section: type[BaseModel] = ExperimentConfig
    if tag is not None:
        section = _SECTIONS[path[0], path.pop(tag)]
    elif len(path) > 1:
        section = _TABLES.get(path[0], ExperimentConfig)
    key = ".".join(path) or "config"
    if first["type"] == "extra_forbidden":
        known = list(section.model_fields)
        hint = did_you_mean(path[-1], known)
        return f"{key} is not a known key, allowed are {', '.join(known)}; got {first['input']!r}{hint}"
    if first["type"] == "missing":
        return f"{key} must be given; got nothing"
    if first["type"] in ("union_tag_invalid", "union_tag_not_found"):
        name, kinds = _KINDS[path[0]]
        kind = first["input"].get(name) if isinstance(first["input"], dict) else first["input"]
        return f"{key}.{name} must be one of {', '.join(kinds)}; got {kind!r}{did_you_mean(kind, kinds)}"
    hint = ""
    if first["type"] == "literal_error":
        hint = did_you_mean(first["input"], re.findall(r"'([^']*)'", str(first["ctx"]["expected"])))
    requirement = re.sub(r"^(Input|List|String) should", "must", first["msg"])
    return f"{key} {requirement[0].lower() + requirement[1:]}; got {first['input']!r}{hint}"
