"""The rivals by name: what each is made of, so that all run on the same clients, data and clock."""

from __future__ import annotations

from dataclasses import dataclass

from fedgc.strategies.baselines.fedbuff import FedBuff
from fedgc.strategies.baselines.over_selection import OverSelection
from fedgc.strategies.baselines.rival import Rival, RivalOptions
from fedgc.strategies.gradient_coding import GradientCoding
from flwr.serverapp.strategy import FedAvg, FedProx, Strategy

from fedgc.deadline import WAIT_FOR_EVERYONE


@dataclass(frozen=True)
class CodedRival:
    """A rival that is a code and a decoder, perhaps with a memory: :class:`GradientCoding` around FedAvg.

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
            FedAvg(**options.inner),
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


def _fedprox(options: RivalOptions) -> Strategy:
    """Return FedProx whose clients reply by the deadline with the part of their work that is done."""
    inner = FedProx(proximal_mu=options.own.get("proximal_mu", 0.0), **options.inner)
    return GradientCoding(
        inner,
        num_shards=options.num_shards,
        deadline=WAIT_FOR_EVERYONE if options.deadline is None else options.deadline,
        load=1,
        shard_examples=options.shard_examples,
        seed=options.seed,
        code="uncoded",
        schedule="work-list",
        sums="whole",
        redraw=True,
        decoder="partial-mean",
    )


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
            "fedavg", "FedAvg, waits for all", _FEDAVG, lambda options: FedAvg(**options.inner), needs_deadline=False
        ),
        Rival("fedavg-deadline", "FedAvg, cut off", _FEDAVG, lambda options: FedAvg(**options.inner)),
        Rival(
            "over-selection",
            "FedAvg, over-selection",
            "K. Bonawitz et al., MLSys 2019; 1.3 clients for each one needed unless told otherwise",
            lambda options: OverSelection(**options.inner, **options.own),
            own=("over_selection",),
            needs_deadline=False,
        ),
        Rival(
            "inverse-probability",
            "FedAvg, inverse probability",
            f"{_FEDAVG}, weighted by 1 / P(arrives), which is learnt",
            CodedRival("uncoded", "inverse-probability"),
        ),
        Rival(
            "fedprox",
            "FedProx, partial work",
            "T. Li et al., MLSys 2020; proximal weight 0 unless told otherwise",
            _fedprox,
            own=("proximal_mu",),
        ),
        Rival(
            "mifa",
            "MIFA",
            "X. Gu et al., NeurIPS 2021; a client that has never come counts as zero",
            CodedRival("uncoded", "sum", memory=True),
        ),
        Rival(
            "fedvarp",
            "FedVARP",
            "D. Jhunjhunwala et al., UAI 2022; the mean of those who came",
            CodedRival("uncoded", "scaled-mean", memory=True),
        ),
        Rival(
            "fedvarp-unbiased",
            "FedVARP, unbiased",
            "D. Jhunjhunwala et al., UAI 2022; changes weighted by 1 / P(arrives), which is learnt",
            CodedRival("uncoded", "inverse-probability", memory=True),
        ),
        Rival(
            "fedbuff",
            "FedBuff",
            "J. Nguyen et al., AISTATS 2022; a buffer of 10 unless told otherwise",
            lambda options: FedBuff(**options.inner, **options.own),
            own=("buffer_size", "server_learning_rate"),
            needs_deadline=False,
        ),
        Rival(
            "is-sgd", "IS-SGD", f"ignore stragglers, divide by who came: {_BITAR}", CodedRival("uncoded", "scaled-mean")
        ),
        Rival(
            "is-sgd-authors", "IS-SGD, plain sum", f"ignore stragglers: code of {_SONG}", CodedRival("uncoded", "sum")
        ),
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
