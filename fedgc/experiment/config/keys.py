"""Kinds of keys that several sections have."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Count = Annotated[int, Field(ge=1, le=1_000_000, strict=True)]
Name = Annotated[str, Field(min_length=1, max_length=200, strict=True)]
#: Keys, and the values that each takes.
Grid = dict[Name, Annotated[list[Any], Field(min_length=1)]]
Seeds = Annotated[list[Annotated[int, Field(ge=0, lt=2**32, strict=True)]], Field(min_length=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False, strict=True)]


class Section(BaseModel):
    """A table of the configuration: other keys than its own are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)
