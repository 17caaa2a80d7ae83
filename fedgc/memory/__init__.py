"""Memory: past updates as control variates, and where they are kept: in memory or in files, as they are or rounded."""

from fedgc.memory.control_variates import UpdateMemory, units_of
from fedgc.memory.store import MemoryStore
from fedgc.memory.stored import StoredUpdate

__all__ = ["MemoryStore", "StoredUpdate", "UpdateMemory", "units_of"]
