"""What silence says of a client, and what of its failure domain: neither is counted twice."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from fedgc.reliability import OutagePosterior
from fedgc.round.state import RoundPlan, RoundState


def apart_from_outages(
    state: RoundState, plan: RoundPlan, outcomes: Mapping[int, bool | float], replied: Collection[int]
) -> tuple[Mapping[int, bool | float], OutagePosterior | None]:
    """Return the clients' outcomes as far as they are their own, and what is known of outages after the round.

    Parameters
    ----------
    state : RoundState
        What the plan was made from.
    plan : RoundPlan
        The round's plan.
    outcomes : mapping of int to bool or float
        By node id who came, and how likely others would have that an early end has cut off; see
        :func:`fedgc.round.after.evidence.outcomes_seen`. Nodes that are left out have shown nothing.
    replied : collection of int
        Who has replied, by client index.

    Notes
    -----
    Let a be the probability of a client to come by the deadline while its domain is up, c the outcome it would be given
    without domains (0 for a miss, ``c = (a - a') / (1 - a')`` if the round ended when it would have come with
    probability a'). That it was silent has the probability ``1 - a' = (1 - a) / (1 - c)`` while the domain is up, and 1
    in an outage. With these :class:`fedgc.reliability.OutagePosterior` finds the probability r that a domain all of
    whose clients were silent was down, and the client would have come, had its domain been up, with probability

        r a + (1 - r) c,

    since an outage says nothing of it. Counted as that, a round moves the mean of the client's posterior as far as
    Bayes' rule does, whose posterior is a mixture: as it was with weight r, with one miss more with 1 - r. Of a domain
    of which one client replied all outcomes stand, and so do those of clients in none.

    A reply that comes after the round's end shows that a domain was up, and is not waited for; nor is an error that a
    client sends told from the news that it has gone. Sites that are often late altogether look down then, as long as
    their clients are thought punctual; what is predicted of their silence is right.
    """
    if state.outages is None or plan.domain is None:
        return outcomes, state.outages
    up = {int(plan.domain[client]) for client in replied}
    members: dict[int, list[int]] = {}
    for client, domain in enumerate(plan.domain.tolist()):
        if domain >= 0:
            members.setdefault(domain, []).append(plan.node_ids[client])
    down = sorted(set(members) - up)
    nodes = [node for domain in down for node in members[domain] if node in outcomes]
    come = dict(zip(nodes, (1.0 - state.reliability.straggle_prob(nodes)).tolist(), strict=True))
    silence: dict[int, float | None] = dict.fromkeys(sorted(set(members) & up))
    for domain in down:
        own = [(1.0 - come[node]) / (1.0 - outcomes[node]) for node in members[domain] if node in come]
        silence[domain] = float(np.minimum(np.prod(own), 1.0))
    known = state.outages.for_domains(max(members, default=-1) + 1).update(silence)
    seen = dict(outcomes)
    for domain in down:
        was_down = float(known.down[domain])
        for node in members[domain]:
            if node in come:
                seen[node] = was_down * come[node] + (1.0 - was_down) * float(outcomes[node])
    return seen, known
