"""What holds for all tests: one thread, and the same examples in every run, however slow the machine is."""

import os

from hypothesis import settings

# Before numpy and torch are loaded. Workers share the cores already, and processes that tests start do as well: threads
# for products this small only wait for one another.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# So that a failure is of the change at hand, and not of the draw or of a busy machine.
settings.register_profile("fixed", derandomize=True, deadline=None)
settings.load_profile("fixed")
