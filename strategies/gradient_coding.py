"""GradientCoding: a Flower strategy that does not wait for stragglers."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from fedgc.strategies.coded_run import CodedRun
from fedgc.strategies.nodes.limits import stated_for
from fedgc.strategies.nodes.shard_counts import ShardCounts
from fedgc.strategies.options import (
    as_checkpoints,
    as_code,
    as_constraints,
    as_deadline,
    as_decoder,
    as_failure_domains,
    as_quantiser,
    as_record_key,
    as_resume,
    as_second_moment,
    as_seconds,
    as_secure_sum,
    as_shards,
    as_sizes,
    as_strategy,
    as_timing,
    check_beside_in_a_row,
    check_flag,
    first_state,
    rounding_option,
)
from fedgc.strategies.reporting import Reporting, RoundReporter
from fedgc.strategies.reporting.report import RoundReport
from fedgc.strategies.resuming import Journal
from fedgc.strategies.rounds.secure_sum import SecureSum
from fedgc.strategies.shard_push import PushedShards
from fedgc.strategies.start import StartedStrategy
from flwr.serverapp.strategy import FedAvg, Strategy
from numpy.typing import NDArray

from fedgc.assignment import AssignmentConstraints
from fedgc.checkpoint import CheckpointFolder
from fedgc.coherence import CoherenceEstimate
from fedgc.deadline import DeadlineRule, Timing
from fedgc.decoders import Decoder, automatic_decoder
from fedgc.memory import MemoryStore
from fedgc.quantisers import BucketedNorm
from fedgc.reliability import OutagePosterior, ReliabilityPosterior
from fedgc.round import Planning, check_list_options
from fedgc.schemes import BALANCED_BLOCKS, BuildCode
from fedgc.validation import check_integer, check_positive


class GradientCoding(StartedStrategy):
    """Assign overlapping shards, take what comes by the deadline, decode it, and hand it to an inner strategy.

    Wraps a Flower strategy, as Flower's differential-privacy strategies do: the inner strategy samples the nodes and
    fills the config, this one adds the assignment to each message, and gives the decoded aggregate to the inner
    strategy as if one client had sent it. The ClientApp's train function must be decorated with
    :func:`fedgc.clients.gradient_coded`.

    Parameters
    ----------
    strategy : Strategy, optional
        The inner strategy; FedAvg by default. Its `weighted_by_key` must be "num-examples", which shards are weighed by
        (a ShardUpdate may count tokens, say, there). Its `train_metrics_aggr_fn` gets a record for each client that
        counts, with the metrics that all of these have as plain numbers, each a mean over the client's shards: neither
        arrays nor other records. What it raises ends the run, as in Flower. Flower's strategies for differential
        privacy are refused here, and go around this one: see :meth:`deadline_grid`. To FedAdam and FedYogi the noise of
        the decoding is a larger second moment; :class:`fedgc.strategies.VarianceAwareFedAdam` and VarianceAwareFedYogi
        are told of it.
    num_shards : int
        Number of data shards. Every client must be able to load any of them.
    deadline : float or DeadlineRule
        Seconds from sending a round's messages to decoding what has come, or a rule from :mod:`fedgc.deadline` that
        chooses them anew as clients become known.
    load : int or "auto"
        Copies of each shard: how many clients hold it; "auto", for work lists, as many as are predicted to reach the
        target soonest. With fewer nodes than that all of them do, which the log says. On work
        lists it is what lists are made for and no limit: clients that it leaves over are further holders, with load 1
        too, and so are others, in larger blocks of fewer clients' shares, where that is predicted to reach the target
        sooner. `constraints` limit what a client holds. Whole blocks are of equal size until completion times have been
        seen; blocks sized by speed may be fewer and larger, and clients that they leave over are further members.
    schedule : str
        "full": every holder computes all its shards and then replies, so that the load is also how many times the
        computation of training without stragglers is paid, as long as blocks are of equal size. "work-list": every
        client works down an ordered list until the deadline, its own share first and then what others hold too, so that
        backup work fills idle time.
    sums : str, optional
        What a client sends of its work list: one sum per "shard" (the default), per "share", or for the "whole": from
        the least residual error to the fewest bytes. For work lists only, as are `redraw` and `fetch_seconds`: given
        for the full schedule they are refused.
    redraw : bool, optional
        Whether the shards of a block change places in its work lists every round, so that none is always last and
        seldom done: see :func:`fedgc.codes.redraw_places`. If not given, they do unless fixed places are predicted to
        have less residual error, as where shards differ much in size and their updates point the same way.
    order : str
        Of work lists: "least-error", in which backups work from the far ends of each other's lists, or "worst-case", in
        which the most work that can be done while some shard is still missing is least, whoever is slow
        (:func:`fedgc.assignment.worst_case_lists`).
    in_a_row : bool
        Whether clients train on from shard to shard of their work lists, each from the model that the one before ended
        with, as FedAvg's clients do with all their data. By default each shard's update is from the global model, so
        that all holders of a shard compute the same, and a client that does more shards adds to the accuracy of a step
        and not to its length. In a row a client that does more goes further, and the decoded mean is multiplied by how
        many shards a client does in the mean, which a rule for the deadline counts. For clients made with
        :func:`fedgc.clients.coded_in_a_row`, whose reply is one model: by how far they have gone counts as often as the
        shards that they have done are to count in the mean. Shards change places every round, so that over places and
        arrivals together no shard of a block counts more than another of its size; that a shard's update depends on
        those before it is local training's own drift. Copies are not compared, and the server keeps a model for each
        reply until the round ends.
    early_end : bool
        Whether a round ends before its deadline once nothing more could be gained.
    code : str or callable
        "fractional-repetition", whose blocks are formed for the fleet, or a code of the literature to compare with: see
        :data:`fedgc.schemes.CODES`. Such a code has as many columns as there are nodes, each for a run of shards, and
        no constraints; as work lists it can be used if its coefficients are one ("uncoded", "erasure-head").
    decoder : str or Decoder
        "auto": "optimal-unbiased" (least residual error among the unbiased rules) or, with a memory, whole blocks and a
        fixed deadline, "least-squares" (what came counts once, and the bias fades with the changes), see
        :func:`fedgc.decoders.automatic_decoder`. Or "fixed" (weights settled before the round), another of
        ``fedgc.decoders.DECODERS``, or a decoder object. Of settled weights the first, from the prior alone, are too
        large for a fleet that never straggles: see :class:`fedgc.strategies.SecureSum`.
    max_weight : float, optional
        Largest weight of a coded update; larger ones are cut off, see :class:`fedgc.decoders.CappedDecoder`. By default
        none are. Meant for rarely seen shards without a backup, and together with `memory`: in
        ``experiments/planning/memory.py --tau 1.1`` (one holder per shard) a cap of 8 takes the rounds to the far
        target from 654 to 339 with a memory, and from 607 to 776 without one, since it then leaves a bias. Without a
        predicted residual error, which a cut-off rule has not, blocks stay as they were first formed.
    memory : bool or MemoryStore
        Whether the server remembers each block's or shard's last update and decodes only what has changed since, so
        that stragglers cost less and less as training converges; it takes a copy of the model for each block
        of the full schedule, and for each shard that is recovered by itself, and is therefore off by default. With
        unbiased weights it gains nothing clear (353 rounds to the far target without it and 360 with it for pairs in
        ``experiments/planning/memory.py``, tau 1.5; 440 and 388 for tau 1.1), with least squares much (685 and 406;
        never and 336), and so it does with `max_weight`. A
        :class:`fedgc.memory.MemoryStore` says where these are kept: in half precision, in files.
    shard_examples : sequence of int, optional
        Number of examples of each shard; a reply that says otherwise is left out. If not given, sizes are learnt from
        the replies, and a shard not seen yet counts as an average one.
    reliability : ReliabilityPosterior, optional
        Prior and forgetting of the straggle probabilities, or what an earlier run has learnt.
    reassignment_gain : float
        Blocks are formed anew, such that reliable clients back up unreliable ones, once that cuts the predicted
        residual error by more than this fraction; 1 never moves a shard while the same nodes take part. Once completion
        times have been seen, new blocks must reach the target sooner by what so much less error would be worth: longer
        rounds count against them, and waits for clients that do not come against the present ones. New work lists
        must cut the predicted time to target (mean seconds of a round x (1 + residual error), with the early ends of
        rounds), by more than 1 %, and besides either that or the residual error by more than this fraction. They are
        thought of after each of the first three rounds, then every fifth, and after rounds in which nothing came (or,
        with :class:`fedgc.deadline.AutomaticDeadline`, far more or fewer than expected).
    fetch_seconds : float, optional
        Seconds in which a client fetches a shard, for work lists: these then change only if moving the shards pays for
        itself over the rounds that are left, by the predicted time to target, in place of `reassignment_gain`.
    first_deadline : float, optional
        Deadline of the first round, if start-up takes long. Its arrivals and times say nothing about the usual rounds
        and are not learnt from.
    start_timeout : float, optional
        Seconds in which nodes may start before the first round, each by answering a message without work: it loads what
        a client needs, and tells the server the nodes' overheads and partitions, see
        :mod:`fedgc.strategies.nodes.warm_up`. Over once all have answered; 0 to begin at once. By default two minutes,
        and 0 in the embedded runtime, where nothing has to start.
    nodes_timeout : float
        Seconds for which a round waits until as many nodes are there as the inner strategy asks for; then training ends
        with :class:`fedgc.errors.TooFewNodesError`, as it does if as many are there, and nothing of use has come of any
        for longer than that and three rounds. An evaluation waits as long, and is then left out, which the log says,
        and training goes on. An hour by default.
    timing : Timing, optional
        What is known of the clients' completion times, in place of what is learnt: a fleet, in simulations. Client k
        is partition k, whoever is there, if any node tells a partition; else clients are in the order of the node ids
        at the start, and as many must be there.
    coherence : CoherenceEstimate, optional
        How far updates point the same way, to start from; :class:`fedgc.coherence.KnownCoherence` is not learnt, and is
        of updates before they are rounded.
    constraints : AssignmentConstraints, optional
        What clients can and may hold, by the same numbers, on either schedule. A node that tells no partition then, or
        one that they are not stated for, or one that another node is, is not asked, and the log says why. Limits that
        cannot be met end the run before the first round with :class:`fedgc.assignment.InfeasibleAssignmentError`, which
        names them; while nodes that could meet them are away, it waits for up to `nodes_timeout`. A client that no
        block has room for has no part in the rounds.
    failure_domains : sequence of hashable, optional
        Which clients go down together: a label for each, its site or its router say, by the same numbers; None for one
        that shares none, and a node that tells another partition shares none either. How often each domain is down as
        a whole is then learnt from round to round (``strategy.state.outages``), apart from what its clients miss by
        themselves, and the weights take the loss of blocks for as frequent as it is; without, blocks whose members are
        all at one site, by ``residency`` say, are lost more often than is thought, which leaves a bias. For whole
        blocks and the decoder "optimal-unbiased"; refused for others, for work lists and for codes that are given.
        Exact where a domain is within a block, or for up to 16 clients; of a domain that crosses the blocks of a larger
        fleet the clients count as independent, which the log says: copies at different sites, which `constraints` with
        the same ``domain`` see to, make outages cost little. What deadlines are chosen by takes clients as independent.
    outages : OutagePosterior, optional
        Prior and forgetting of the outages, or what an earlier run with the same `failure_domains` has learnt.
    shards : PushedShards, optional
        The shards' data, if clients have it from the server: each is sent what it lacks of its part and keeps it. The
        train function then needs a ``store``; see :func:`fedgc.clients.gradient_coded`.
    reporters : sequence of RoundReporter
        Where each round's report goes, beside the log: see :mod:`fedgc.strategies.reporting`.
    secure_sum : bool or SecureSum
        Whether the server uses only the sum of what arrives and who sent it, see
        :class:`fedgc.strategies.SecureSum`. Needs a decoder with settled weights ("fixed", say) and
        `shard_examples`. Neither coherence is learnt then nor copies compared, and clients' metrics are not sent: a
        `train_metrics_aggr_fn` of the inner strategy sees their "num-examples" only.
    bits : int, optional
        Bits per entry, from 1 to 16, to which clients round what they send: unbiased, and packed into one array of
        bytes per sum, so that 8 bits take a quarter of single precision. Counters and running statistics are sent as
        they are, in another one. All that send the same sum round it alike, so that copies stay equal and are decoded
        as they come; between sums the rounding is independent. Its noise is in the updates that the server sees, and so
        in the coherence that it learns and the weights that it decodes with; to a coherence that is given the noise is
        added that clients tell of their rounding, and before they do, that of normal numbers. By default nothing is
        rounded; 0 bits, which in ``fedgc.quantisers`` send nothing, are refused, since they would be those of all
        clients. Not under a strategy around this one, nor for clients' mods that change models: a reply holds none
        then.
    bit_budget : int, optional
        Bits per entry that all clients of a round send together, in place of `bits`: they are divided among them by how
        likely each comes and what its rounding costs (:func:`fedgc.quantisers.allocate_bits_to_blocks`), anew in every
        round, and each rounds for itself to the bits that it is given. Who is given none is not asked. How the variance
        depends on the bits is taken to be as of normal numbers, and then as clients tell. The decoder knows of each
        client's rounding: "optimal-unbiased" weighs copies by inverse variance, "fixed" settles the weights that go
        with the bits before the round; with all clients in one block, a `load` of as many as there are, that is the
        star code of Song & Choi, arXiv 2605.15890. For whole blocks, without a memory or failure domains; a block of
        more than 16 clients may have too many states for "optimal-unbiased". At least a bit for each block; of more
        than 16 for each client the rest is not used. Copies differ then, so that they are not compared, every one of
        them counts, no round ends before all have come or its deadline, and the optimal decoder keeps a model for each
        reply. Rules for the deadline leave the rounding out.
    quantiser : str
        What rounds them, one of ``fedgc.quantisers.QUANTISERS``: "bucketed-norm", "rotated-norm" where few entries are
        much larger than the rest, or "global-norm", as in the paper, to compare with.
    checkpoints : str, Path or CheckpointFolder, optional
        A folder in which everything that the next round depends on is written after every round, for :meth:`start`: the
        model, the inner strategy's state, all that has been learnt, results so far. One run at a time has a folder.
        What cannot be saved of the inner strategy is named in the log; a checkpoint that cannot be written is an error
        there, and training goes on. Under a strategy around this one, whose state it does not know, nothing is written,
        which the log says.
    resume : bool
        Whether to go on from the newest checkpoint in the folder that is whole and fits, if it holds any: with the same
        options and apps, and as many rounds in all. Newer ones are named in the log and renamed; if none fits the run
        ends before anything is sent. Without it a folder that holds checkpoints is refused, so that none is written
        over. Refused without `checkpoints`.
    seed : int
        Seed that clients derive the randomness of a shard's update from, so that all holders compute the same, and of
        the places that shards change to.
    arrayrecord_key, configrecord_key : str, optional
        Names of the records. By default those of the inner strategy, which writes the messages: others are refused.
        Clients are told theirs in :func:`fedgc.clients.gradient_coded`.

    Raises
    ------
    ValueError
        If an option is out of range.

    Notes
    -----
    The decoded aggregate estimates ``sum_j (N_j / N) update_j`` over all shards j with N_j examples each, which is what
    FedAvg computes when every client answers. It is unbiased over the arrivals if the straggle probabilities are right
    and the sizes of all shards are known: while sizes are still being learnt, the total that the sum is divided by
    depends on who came, which leaves a bias of a few percent until every shard has been seen once.
    A round in which nothing arrives leaves the model as it is. Inner strategies that compare clients with one another
    (Krum, medians, trimmed means) have nothing to compare in the one decoded reply that they get and pass on, which the
    log says; Bulyan, which makes nothing of one, is refused.

    Examples
    --------
    >>> strategy = GradientCoding(FedAvg(fraction_evaluate=0.0), num_shards=40, deadline=30.0, load=2)
    >>> strategy.decoder.name
    'optimal-unbiased'
    """

    def __init__(
        self,
        strategy: Strategy | None = None,
        *,
        num_shards: int,
        deadline: float | DeadlineRule,
        load: int | Literal["auto"] = 2,
        schedule: str = "full",
        sums: str | None = None,
        redraw: bool | None = None,
        order: str = "least-error",
        in_a_row: bool = False,
        early_end: bool = True,
        code: str | BuildCode = BALANCED_BLOCKS,
        decoder: str | Decoder = "auto",
        max_weight: float | None = None,
        memory: bool | MemoryStore = False,
        shard_examples: Sequence[int] | None = None,
        reliability: ReliabilityPosterior | None = None,
        reassignment_gain: float = 0.2,
        fetch_seconds: float | None = None,
        first_deadline: float | None = None,
        start_timeout: float | None = None,
        nodes_timeout: float = 3600.0,
        timing: Timing | None = None,
        coherence: CoherenceEstimate | None = None,
        constraints: AssignmentConstraints | None = None,
        failure_domains: Sequence[Hashable] | NDArray[np.generic] | None = None,
        outages: OutagePosterior | None = None,
        shards: PushedShards | None = None,
        reporters: Sequence[RoundReporter] = (),
        secure_sum: bool | SecureSum = False,
        bits: int | None = None,
        bit_budget: int | None = None,
        quantiser: str = BucketedNorm.name,
        checkpoints: str | Path | CheckpointFolder | None = None,
        resume: bool = False,
        seed: int = 0,
        arrayrecord_key: str | None = None,
        configrecord_key: str | None = None,
    ) -> None:
        super().__init__()
        self.strategy = as_strategy(strategy if strategy is not None else FedAvg())
        self.num_shards = check_integer("num_shards", num_shards, low=1)
        self.deadline = as_deadline(deadline)
        self.first_deadline = None if first_deadline is None else check_positive("first_deadline", first_deadline)
        self.start_timeout = as_seconds("start_timeout", start_timeout)
        self.nodes_timeout = as_seconds("nodes_timeout", nodes_timeout) or 0.0
        foreseen = schedule == "work-list" or self.deadline.changes
        automatic = automatic_decoder(memory=bool(memory), foreseen=foreseen)
        self.planning = Planning(
            load=load,
            decoder=as_decoder(decoder, max_weight, automatic),
            schedule=schedule,
            sums="shard" if sums is None else sums,
            deadline=self.deadline,
            reassignment_gain=reassignment_gain,
            fetch_seconds=fetch_seconds,
            redraw=redraw,
            seed=check_integer("seed", seed, low=0),
            timing=as_timing(timing),
            constraints=as_constraints(constraints),
            failure_domains=as_failure_domains(failure_domains),
            code=as_code(code, schedule),
            early_end=check_flag("early_end", early_end),
            order=order,
            in_a_row=in_a_row,
            bit_budget=bit_budget,
        )
        stated_for(self.planning)  # limits, domains and times of different clients are refused
        check_list_options(schedule, sums=sums, redraw=redraw, fetch_seconds=fetch_seconds)
        self.given_sizes = as_sizes(shard_examples, self.num_shards)
        self.state = first_state(self.given_sizes, reliability, coherence, memory, self.planning, outages)
        self.secure_sum = as_secure_sum(secure_sum, self.planning, memory=bool(memory), sizes=self.given_sizes)
        self.quantiser = as_quantiser(
            bits, quantiser, secure=self.secure_sum is not None, budget=bit_budget, memory=bool(memory)
        )
        self.second_moment = as_second_moment(
            self.strategy,
            schedule=schedule,
            memory=bool(memory),
            sum_only=self.secure_sum is not None,
            rounded_by=rounding_option(bits, bit_budget),
            domains=failure_domains is not None,
            in_a_row=in_a_row,
        )
        check_beside_in_a_row(
            in_a_row,
            memory=bool(memory),
            secure=self.secure_sum is not None,
            rounded_by=rounding_option(bits, bit_budget),
            pushed=shards is not None,
        )
        self.shards = as_shards(shards, self.num_shards)
        self.reporting = Reporting(reporters)
        self.checkpoints = as_checkpoints(checkpoints)
        self.resume = as_resume(resume, self.checkpoints)
        self.early_end = self.planning.early_end
        self.seed = seed
        self.arrayrecord_key = as_record_key("arrayrecord_key", arrayrecord_key, self.strategy, "arrays")
        self.configrecord_key = as_record_key("configrecord_key", configrecord_key, self.strategy, "config")
        self.nodes = {}
        self.history: list[RoundReport] = []
        self._run = CodedRun()
        self._journal = Journal()
        self._shard_counts = ShardCounts(self.num_shards)
        self._evaluates = False
