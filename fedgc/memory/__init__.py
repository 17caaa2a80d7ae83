"""Where control variates are kept: in memory or in files, as they are or rounded."""

from fedgc.memory.store import MemoryStore
from fedgc.memory.stored import StoredUpdate

__all__ = ["MemoryStore", "StoredUpdate"]
