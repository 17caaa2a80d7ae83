"""Experiments from configuration files: read, run in virtual time, summarise, draw."""
