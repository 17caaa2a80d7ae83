"""Kinds of keys that several sections have."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainValidator
from pydantic_core import PydanticCustomError

from fedgc.decoders import AUTO

Count = Annotated[int, Field(ge=1, le=1_000_000, strict=True)]
Name = Annotated[str, Field(min_length=1, max_length=200, strict=True)]
#: Keys, and the values that each takes.
Grid = dict[Name, Annotated[list[Any], Field(min_length=1)]]
Seeds = Annotated[list[Annotated[int, Field(ge=0, lt=2**32, strict=True)]], Field(min_length=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False, strict=True)]
#: Of the server's step, or of a moment of it.
Momentum = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False, strict=True)]


def _as_load(value: object) -> object:
    if value != AUTO and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
        raise PydanticCustomError("load", f"must be an integer of at least 1, or {AUTO!r}")
    return value


#: Copies of each shard, or "auto". A union of the two types would be named by pydantic with the names of its branches.
Load = Annotated[int | Literal["auto"], PlainValidator(_as_load)]


class Section(BaseModel):
    """A table of the configuration: other keys than its own are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)
