"""A soak's run over a bad network: between the server and half of the nodes it delays, loses, breaks, and is cut."""

from __future__ import annotations

from typing import Any

from bad_network import BadNetwork
from fleet import LoopbackFleet
from soak_runs import Run, on_the_fleet, print_rounds

#: What the network does beside being cut.
NETWORK = BadNetwork(delay=0.05, loss=0.02, broken=0.002)
#: The round in which the cut begins.
CUT_ROUND = 3


def nodes_behind(n_nodes: int) -> range:
    """Return the partitions of the nodes that are behind the network: the last half."""
    return range(n_nodes - n_nodes // 2, n_nodes)


def run_over_bad_network(
    fleet: LoopbackFleet, config: dict[str, Any], undisturbed: Run, seconds: float
) -> tuple[Run, dict[str, bool]]:
    """Run the app, print what became of every round; return that, and what must hold beside what all runs must keep.

    Parameters
    ----------
    fleet : LoopbackFleet
        A fleet with a link, as good as none until then, to the nodes that :func:`nodes_behind` tells.
    config : dict of str to object
        The app's run config.
    undisturbed : Run
        The same without the network.
    seconds : float
        How long the cut lasts.
    """
    link, behind = fleet.link, nodes_behind(len(fleet.nodes))
    assert link is not None
    link.network = NETWORK

    def cut(line: str) -> None:
        if f"[ROUND {CUT_ROUND}/" in line:
            link.cut(seconds)

    run = on_the_fleet(fleet, {**config, "deadline": undisturbed.next_deadline}, "network", on_line=cut)
    link.network = BadNetwork()

    left, told = seconds, dict[int, str]()
    for number, one in enumerate(run.rounds[CUT_ROUND - 1 :], start=CUT_ROUND):
        if left > 0.0:
            told[number] = f"{min(left, one.seconds):.0f} s"
            left -= one.seconds
    print_rounds(run, undisturbed, "cut", told)
    print(f"behind the bad network: nodes {', '.join(map(str, behind))}; {link.broken} connections broken")
    beyond = [value for node, value in run.straggle_prob.items() if node in behind]
    near = [value for node, value in run.straggle_prob.items() if node not in behind]
    return run, {
        "nobody who was cut off came in the first round of the cut": not set(behind)
        & set(run.rounds[CUT_ROUND - 1].came),
        "every node that was cut off counts as less reliable than every other": min(beyond) > max(near),
    }
