"""The errors that fedgc raises on purpose."""

from __future__ import annotations


class ConfigError(ValueError):
    """A configuration holds an unknown key, a wrong type or an impossible value.

    The message is one line that names the key, the value that came and what is allowed.
    """


class ExperimentError(RuntimeError):
    """An experiment cannot go on; the message is one line."""


class ReplyRejectedError(ValueError):
    """A client's reply cannot be used in this round; the message is the reason that is logged."""


class ReplyTooLargeError(ReplyRejectedError):
    """A client's reply holds more than it may; nothing of it was looked at."""


class NothingToReadError(ReplyRejectedError):
    """There is no reply to judge the client by: the network lost it, or it had no data to work on."""


class NoUnbiasedDecoderError(ValueError):
    """Some shard update can never arrive, so that no choice of decoding weights is unbiased."""


class CheckpointError(RuntimeError):
    """A checkpoint cannot be written, read or used; the message is one line that names the file or folder."""


class TooFewNodesError(RuntimeError):
    """Too few nodes are there for a round, for too long; the message is one line that says how many are missing."""


class RunInterruptedError(Exception):
    """The user has interrupted a run; the message says what is left of it."""
