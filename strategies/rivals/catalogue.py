"""The rivals by name: what each is made of, so that all run on the same clients, data and clock."""

from __future__ import annotations

from dataclasses import dataclass

from fedgc.strategies.gradient_coding import GradientCoding
from fedgc.strategies.rivals.fedbuff import FedBuff
from fedgc.strategies.rivals.fedprox import PartialFedProx
from fedgc.strategies.rivals.over_selection import OverSelection
from fedgc.strategies.rivals.rival import UNCODED, Rival, RivalOptions
from flwr.serverapp.strategy import FedAvgM, Strategy

from fedgc.deadline import WAIT_FOR_EVERYONE, DeadlineRule


@dataclass(frozen=True)
class CodedRival:
    """A rival that is a code and a decoder, perhaps with a memory: :class:`GradientCoding` around FedAvgM.

    Attributes
    ----------
    code, decoder : str
        Their names in ``fedgc.schemes.CODES`` and ``fedgc.decoders.DECODERS``.
    memory : bool
        Whether each client's last update is kept, and changes are decoded.
    """

    code: str
    decoder: str
    memory: bool = False

    def __call__(self, options: RivalOptions) -> Strategy:
        """Return the strategy."""
        return GradientCoding(
            FedAvgM(**options.averaging),
            num_shards=options.num_shards,
            deadline=WAIT_FOR_EVERYONE if options.deadline is None else options.deadline,
            load=options.load,
            shard_examples=options.shard_examples,
            timing=options.timing,
            seed=options.seed,
            code=self.code,
            decoder=self.decoder,
            memory=self.memory,
        )


def _fedavg(options: RivalOptions) -> Strategy:
    return FedAvgM(**options.averaging)


def _fedbuff(options: RivalOptions) -> Strategy:
    """Return FedBuff; its deadline is the time after which a client that has not answered is sent the model anew."""
    deadline = options.deadline
    if isinstance(deadline, DeadlineRule):
        raise ValueError(f"deadline must be a number for rival 'fedbuff'; got {deadline!r:.80}")
    return FedBuff(client_timeout=deadline, **options.averaging, **options.others)


_BITAR = "R. Bitar, M. Wootters, S. El Rouayheb, IEEE JSAIT 2020"
_SONG = "H. Song, J. Choi, arXiv 2510.22539"
_CHARLES = "Z. Charles, D. Papailiopoulos, J. Ellenberg, arXiv 1711.06771"
_WANG = "H. Wang, Z. Charles, D. Papailiopoulos, arXiv 1901.09671"
_FEDAVG = "B. McMahan et al., AISTATS 2017"

#: Every rival by name, in the order in which tables show them. Where authors' code differs from the fair form of their
#: method there is an entry for each, the former with "-authors" in its name.
RIVALS: dict[str, Rival] = {
    rival.name: rival
    for rival in (
        Rival(
            "fedavg",
            "FedAvg, waits for all",
            _FEDAVG,
            _fedavg,
            needs_deadline=False,
        ),
        Rival("fedavg-deadline", "FedAvg, cut off", _FEDAVG, _fedavg),
        Rival(
            "over-selection",
            "FedAvg, over-selection",
            "K. Bonawitz et al., MLSys 2019; 1.3 clients for each one needed unless told otherwise",
            lambda options: OverSelection(**options.averaging, **options.others),
            own=("over_selection",),
            needs_deadline=False,
        ),
        Rival(
            "inverse-probability",
            "FedAvg, inverse probability",
            f"{_FEDAVG}, weighted by 1 / P(arrives), which is learnt",
            CodedRival(UNCODED, "inverse-probability"),
        ),
        Rival(
            "fedprox",
            "FedProx, partial work",
            "T. Li et al., MLSys 2020; proximal weight 0 unless told otherwise",
            lambda options: PartialFedProx(**options.averaging, **options.others),
            own=("proximal_mu", "travel_seconds"),
        ),
        Rival(
            "mifa",
            "MIFA",
            "X. Gu et al., NeurIPS 2021; a client that has never come counts as zero",
            CodedRival(UNCODED, "sum", memory=True),
        ),
        Rival(
            "fedvarp",
            "FedVARP",
            "D. Jhunjhunwala et al., UAI 2022; the mean of those who came",
            CodedRival(UNCODED, "scaled-mean", memory=True),
        ),
        Rival(
            "fedvarp-unbiased",
            "FedVARP, unbiased",
            "D. Jhunjhunwala et al., UAI 2022; changes weighted by 1 / P(arrives), which is learnt",
            CodedRival(UNCODED, "inverse-probability", memory=True),
        ),
        Rival(
            "fedbuff",
            "FedBuff",
            "J. Nguyen et al., AISTATS 2022; a buffer of 10 unless told otherwise",
            _fedbuff,
            own=("buffer_size",),
            needs_deadline=False,
        ),
        Rival(
            "is-sgd", "IS-SGD", f"ignore stragglers, divide by who came: {_BITAR}", CodedRival(UNCODED, "scaled-mean")
        ),
        Rival("is-sgd-authors", "IS-SGD, plain sum", f"ignore stragglers: code of {_SONG}", CodedRival(UNCODED, "sum")),
        Rival("scheme-I", "Scheme I", _SONG, CodedRival("scheme-I", "inverse-probability")),
        Rival("scheme-II", "Scheme II", _SONG, CodedRival("scheme-II", "inverse-probability")),
        Rival("sgc", "SGC", _BITAR, CodedRival("sgc", "inverse-probability"), coded=True),
        Rival(
            "sgc-authors",
            "SGC, random copies",
            f"{_BITAR}, as in the code of {_SONG}",
            CodedRival("sgc-authors", "inverse-probability"),
            coded=True,
        ),
        Rival(
            "bgc",
            "BGC",
            f"{_CHARLES}, divided by the mean coefficient",
            CodedRival("bernoulli", "normalised-sum"),
            coded=True,
        ),
        Rival("bgc-authors", "BGC, plain sum", _CHARLES, CodedRival("bernoulli", "sum"), coded=True),
        Rival("erasure-head", "ErasureHead", _WANG, CodedRival("erasure-head", "first-arrival"), coded=True),
        Rival(
            "erasure-head-authors",
            "ErasureHead, all copies",
            f"{_WANG}, as in the code of {_SONG}",
            CodedRival("erasure-head", "sum"),
            coded=True,
        ),
        Rival(
            "od",
            "Optimal decoding",
            "M. Glasgow, M. Wootters, IEEE JSAIT 2021; random regular graph",
            CodedRival("random-regular", "least-squares"),
            coded=True,
        ),
        Rival(
            "exact",
            "Exact gradient code",
            "R. Tandon et al., ICML 2017; waits until all is recovered, unless cut off",
            CodedRival("cyclic-repetition", "least-squares"),
            coded=True,
            needs_deadline=False,
        ),
    )
}
