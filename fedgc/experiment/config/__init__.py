"""Configurations of experiments: sections and their keys, files, overrides, sweeps, and what is wrong in one line."""

from fedgc.experiment.config.block_coordinates import BlocksConfig
from fedgc.experiment.config.check import check_config, points_of
from fedgc.experiment.config.load import load_config
from fedgc.experiment.config.nodes import GraphConfig, NodesConfig
from fedgc.experiment.config.points import Point, base_label
from fedgc.experiment.config.sections import (
    ExperimentConfig,
    GradientCodingConfig,
    RivalConfig,
    ServedConfig,
    StrategyConfig,
    TuningConfig,
)
from fedgc.experiment.config.tasks import TaskConfig

__all__ = [
    "BlocksConfig",
    "ExperimentConfig",
    "GradientCodingConfig",
    "GraphConfig",
    "NodesConfig",
    "Point",
    "RivalConfig",
    "ServedConfig",
    "StrategyConfig",
    "TaskConfig",
    "TuningConfig",
    "base_label",
    "check_config",
    "load_config",
    "points_of",
]
