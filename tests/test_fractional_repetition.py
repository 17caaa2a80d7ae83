"""Fractional repetition: which blocks are no code."""

from __future__ import annotations

import pytest

from fedgc.codes import FractionalRepetition


@pytest.mark.parametrize(
    ("clients", "shards", "message"),
    [
        ([0, 2], [0, 1, 2], "at least one member"),
        ([0, 1], [0, 0], "at least one shard"),
        ([0, -1], [0, 1], r"block_of_client must be integers of at least 0, in one dimension; got \[0, -1\]"),
        ([0, 0.5], [0, 1], r"block_of_client must be integers of at least 0, in one dimension; got \[0.0, 0.5\]"),
    ],
)
def test_blocks_without_members_or_shards_are_refused(clients: list[int], shards: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FractionalRepetition(clients, shards)
