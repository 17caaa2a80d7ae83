"""Digits with clients that fail at random, to see whether the residual error is as predicted."""
