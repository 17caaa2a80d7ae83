"""Hypothesis draws the same examples in every run, so that a failure is of the change at hand."""

from hypothesis import settings

settings.register_profile("fixed", derandomize=True)
settings.load_profile("fixed")
