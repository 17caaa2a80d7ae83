"""Checkpoints: everything that the next round depends on, in one file per round.

How: :mod:`fedgc.checkpoint.tree` turns plain data and arrays into arrays, :mod:`fedgc.checkpoint.file` writes them
whole or not at all, :mod:`fedgc.checkpoint.folder` keeps the last few. What: :mod:`fedgc.round.saved_state`.
"""

from fedgc.checkpoint.file import read_checkpoint, write_checkpoint
from fedgc.checkpoint.folder import CheckpointFolder
from fedgc.checkpoint.tree import Tree, pack_tree, unpack_tree

__all__ = ["CheckpointFolder", "Tree", "pack_tree", "read_checkpoint", "unpack_tree", "write_checkpoint"]
