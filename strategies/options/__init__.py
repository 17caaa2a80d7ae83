"""What is asked of a strategy, checked before anything runs: a function for each option, which returns what is meant.

``by_itself.py`` has what an option must be whatever the others are, ``together.py`` what it must be beside others,
``inner_strategy.py`` what the strategy within must be, ``first_state.py`` what a run starts from. How rounds are
planned is checked where the package that does it needs no Flower: each option in :class:`fedgc.round.Planning`, and
what it goes with in :mod:`fedgc.round.before.option_checks`, which files of experiments are checked by too.
"""

from fedgc.strategies.options.by_itself import (
    as_checkpoints,
    as_code,
    as_constraints,
    as_deadline,
    as_decoder,
    as_failure_domains,
    as_seconds,
    as_shards,
    as_sizes,
    as_timing,
    check_flag,
)
from fedgc.strategies.options.first_state import first_state
from fedgc.strategies.options.inner_strategy import as_record_key, as_strategy, comparing
from fedgc.strategies.options.together import (
    as_quantiser,
    as_resume,
    as_second_moment,
    as_secure_sum,
    check_beside_in_a_row,
    rounding_option,
)

__all__ = [
    "as_checkpoints",
    "as_code",
    "as_constraints",
    "as_deadline",
    "as_decoder",
    "as_failure_domains",
    "as_quantiser",
    "as_record_key",
    "as_resume",
    "as_second_moment",
    "as_seconds",
    "as_secure_sum",
    "as_shards",
    "as_sizes",
    "as_strategy",
    "as_timing",
    "check_beside_in_a_row",
    "check_flag",
    "comparing",
    "first_state",
    "rounding_option",
]
