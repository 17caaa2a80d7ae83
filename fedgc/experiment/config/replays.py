"""What the runtime "replay" can do, checked before anything runs."""

from __future__ import annotations

from fedgc.errors import ConfigError
from fedgc.experiment.config.block_coordinates import BlocksConfig
from fedgc.experiment.config.sections import ExperimentConfig, GradientCodingConfig, StrategyConfig
from fedgc.strategies.rivals import RIVALS, SERVER_STEP, CodedRival

#: Tasks of one gradient step per shard.
GRADIENT_TASKS = ("digits-regression", "digits-conv")
#: What the section of a code and a decoder may say; whatever else there is or will be is refused.
_HEEDED = {"kind", "label", "grid", "deadline", "load", "code", "decoder", "max_weight", "memory", "coherence"}
#: What all shards' gradients are added up for, once everyone has answered: gradient descent.
_DESCENT = CodedRival("uncoded", "sum")


def replayed_rival(kind: str) -> CodedRival:
    """Return the code and the decoder of a rival.

    Raises
    ------
    ConfigError
        If it is no code and decoder.

    Examples
    --------
    >>> replayed_rival("erasure-head").decoder
    'first-arrival'
    """
    build = RIVALS[kind].build
    if kind == "fedavg":
        return _DESCENT
    if not isinstance(build, CodedRival):
        able = [name for name, rival in RIVALS.items() if isinstance(rival.build, CodedRival)]
        raise ConfigError(
            f"kind must be gradient-coding, fedavg or one of {', '.join(able)} for runtime 'replay'; got {kind!r}"
        )
    return build


def check_replay(config: ExperimentConfig) -> None:
    """Check an experiment whose runtime is "replay".

    Raises
    ------
    ConfigError
        If something in it takes messages.
    """
    if config.timing != "known":
        raise ConfigError(f"timing must be 'known' for runtime 'replay'; got {config.timing!r}")
    if config.task.name not in GRADIENT_TASKS:
        raise ConfigError(
            f"task.name must be one of {', '.join(GRADIENT_TASKS)} for runtime 'replay'; got {config.task.name!r}"
        )
    if config.task.shards < config.n_clients:
        raise ConfigError(
            f"task.shards must be at least fleet.clients = {config.n_clients} for runtime 'replay'; "
            f"got {config.task.shards}"
        )
    for index, strategy in enumerate(config.strategies):
        _check(strategy, f"strategies.{index}")


def _check(strategy: StrategyConfig, where: str) -> None:
    if isinstance(strategy, BlocksConfig):  # which this runtime alone knows
        return
    if not isinstance(strategy, GradientCodingConfig):
        try:
            replayed_rival(strategy.kind)
        except ConfigError as error:
            raise ConfigError(f"{where}.{error}") from None
        for key in SERVER_STEP:
            if (value := getattr(strategy, key)) is not None:
                raise ConfigError(f"{where}.{key} must be left out for runtime 'replay'; got {value!r}")
        return
    for key, field in type(strategy).model_fields.items():
        if key not in _HEEDED and (given := getattr(strategy, key)) != field.default:
            what = "left out" if field.default is None else repr(field.default)
            raise ConfigError(f"{where}.{key} must be {what} for runtime 'replay'; got {given!r}")
