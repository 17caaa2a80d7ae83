"""What the log should say before the first round: what was asked for and will not be so."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fedgc.round import Planning, RoundPlan, first_load, taken_for_independent

#: So many times its length an aggregate may be if everyone comes, before the log says so.
_LONG = 1.5


def first_round_warnings(
    plan: RoundPlan,
    planning: Planning,
    *,
    nothing_learnt: bool,
    checkpoints_unused: bool = False,
    comparing: Sequence[str] = (),
) -> list[str]:
    """Return lines for the log, none if all is as it should be.

    Parameters
    ----------
    plan : RoundPlan
        The plan of the first round.
    planning : Planning
        How it was made.
    nothing_learnt : bool
        Whether it was made before any round.
    checkpoints_unused : bool
        Whether a folder for checkpoints was given, and another strategy drives the run.
    comparing : sequence of str
        Inner strategies that compare clients' replies with each other.

    Examples
    --------
    >>> from fedgc.decoders import FixedDecoder
    >>> from fedgc.round import RoundState, plan_round
    >>> planning = Planning(load=3, decoder=FixedDecoder())
    >>> plan = plan_round(RoundState(np.ones(4)), [7, 8], planning)
    >>> first_round_warnings(plan, planning, nothing_learnt=True)[0]
    'load is 3, but only 2 nodes are there: every shard has as many holders'
    """
    lines = []
    n_nodes = len(plan.everyone)
    if (load := first_load(planning.load)) > n_nodes:
        lines.append(f"load is {load}, but only {n_nodes} nodes are there: every shard has as many holders")
    if planning.decoder.weights_settled and nothing_learnt:
        everyone = plan.decoder.decode(np.ones(plan.code.n_rows, dtype=np.bool_))
        if (times := float(everyone.coverage.mean())) > _LONG:
            lines.append(
                "weights are settled while nothing is known of the clients: if all come, the aggregate is "
                f"{times:.1f} times as long as it should be, this once (reliability= of an earlier run prevents it)"
            )
    if plan.domain is not None and (apart := taken_for_independent(plan.code, plan.domain).size):
        n_domains = np.unique(plan.domain[plan.domain >= 0]).size
        lines.append(
            f"{apart} of {n_domains} failure domains have clients in several blocks, which count as independent"
        )
    if checkpoints_unused:
        lines.append("no checkpoints are written: only the start() of GradientCoding itself writes them")
    lines.extend(
        f"{name} compares clients, and gets one decoded aggregate that it passes on as it is: it protects from none"
        for name in comparing
    )
    return lines
