"""What is wrong with a configuration, in one line."""

from __future__ import annotations

import re

from pydantic import BaseModel, ValidationError

from fedgc.experiment.config.sections import (
    GRADIENT_CODING,
    KINDS,
    ExperimentConfig,
    GradientCodingConfig,
    RivalConfig,
    TaskConfig,
)
from fedgc.validation import did_you_mean

_SECTIONS: dict[str, type[BaseModel]] = {
    "task": TaskConfig,
    "rival": RivalConfig,
    GRADIENT_CODING: GradientCodingConfig,
}


def one_line(error: ValidationError) -> str:
    """Return pydantic's first complaint as key, what is allowed, and value."""
    first = error.errors()[0]
    kinds = [part for part in first["loc"] if part in ("rival", GRADIENT_CODING)]
    path = [str(part) for part in first["loc"] if part not in kinds]
    key = ".".join(path) or "config"
    if first["type"] == "extra_forbidden":
        section = _SECTIONS.get(str(kinds[0]) if kinds else path[0], ExperimentConfig)
        if len(path) == 1:
            section = ExperimentConfig
        known = list(section.model_fields)
        hint = did_you_mean(path[-1], known)
        return f"{key} is not a known key, allowed are {', '.join(known)}; got {first['input']!r}{hint}"
    if first["type"] == "missing":
        return f"{key} must be given; got nothing"
    if first["type"] in ("union_tag_invalid", "union_tag_not_found"):
        kind = first["input"].get("kind") if isinstance(first["input"], dict) else first["input"]
        return f"{key}.kind must be one of {', '.join(KINDS)}; got {kind!r}{did_you_mean(kind, KINDS)}"
    requirement = re.sub(r"^(Input|List|String) should", "must", first["msg"])
    return f"{key} {requirement[0].lower() + requirement[1:]}; got {first['input']!r}"
