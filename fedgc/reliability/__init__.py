"""Reliability: what past rounds say about the probability that a client misses the next deadline.

:mod:`~fedgc.reliability.posterior` is what others use. It keeps discounted :mod:`~fedgc.reliability.counts` of each
client's outcomes, fills in what a client has not shown from the fleet (:mod:`~fedgc.reliability.fleet_prior`) and from
its rounds after the other outcome (:mod:`~fedgc.reliability.persistence`), leaves its past in part while it may have
shifted
(:mod:`~fedgc.reliability.shift`), drops the past when it must have changed (:mod:`~fedgc.reliability.change`), and can
be stored (:mod:`~fedgc.reliability.storage`). How often clients of one domain are down together stands beside it, in
:mod:`~fedgc.reliability.outages`.
"""

from fedgc.reliability.clients import ClientReliability
from fedgc.reliability.outages import OutagePosterior
from fedgc.reliability.posterior import ReliabilityPosterior

__all__ = ["ClientReliability", "OutagePosterior", "ReliabilityPosterior"]
