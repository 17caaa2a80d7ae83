"""Hypothesis draws the same examples in every run, so that a failure is of the change at hand, and however slow."""

import os

from hypothesis import settings

# Before numpy and torch are loaded. Workers share the cores already, and processes that tests start do as well: threads
# for products this small only wait for one another.
os.environ.setdefault("OMP_NUM_THREADS", "1")

settings.register_profile("fixed", derandomize=True, deadline=None)
settings.load_profile("fixed")
