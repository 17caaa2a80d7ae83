"""The sections of an experiment's configuration, each key with what it may be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from fedgc.assignment import Schedule, Sums
from fedgc.coherence import CoherenceEstimate, KnownCoherence
from fedgc.deadline import DeadlineRule, build_deadline
from fedgc.decoders import AUTO, automatic_decoder
from fedgc.experiment.config.block_coordinates import BLOCK_COORDINATES, BlocksConfig
from fedgc.experiment.config.inner import FEDAVG, FEDAVGM, InnerConfig
from fedgc.experiment.config.keys import Count, Grid, Load, Momentum, Name, Positive, Section, Seeds
from fedgc.experiment.config.nodes import DECENTRALISED, GraphConfig, NodesConfig
from fedgc.experiment.config.tasks import DigitsConfig, TaskConfig
from fedgc.experiment.target import Target
from fedgc.quantisers import MOST_BITS, BucketedNorm
from fedgc.schemes import BALANCED_BLOCKS
from fedgc.strategies.rivals import RIVALS, SERVER_STEP


class RivalConfig(Section):
    """A method that others have published: one of :data:`fedgc.strategies.rivals.RIVALS`, by its name.

    `label` is the rival's title unless given. Which of the other keys a rival heeds is said there; those that it does
    not heed are refused. All heed `server_learning_rate` and `server_momentum`, what the server does with the
    aggregate. Clients of rivals that do not code train on their own shards as one data set. The deadline of FedBuff is
    the time after which a client that has not answered is sent the model anew; `travel_seconds`, whatever the unit of
    deadlines, how long before its deadline FedProx's clients stop.
    """

    kind: Name
    label: Name
    deadline: Positive | None = None
    load: Count | None = None
    over_selection: Annotated[float, Field(ge=1, allow_inf_nan=False, strict=True)] | None = None
    buffer_size: Count | None = None
    server_learning_rate: Positive | None = None
    server_momentum: Momentum | None = None
    proximal_mu: Annotated[float, Field(ge=0, allow_inf_nan=False, strict=True)] | None = None
    travel_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False, strict=True)] | None = None
    grid: Grid = Field(default_factory=dict)

    @property
    def own(self) -> dict[str, Any]:
        """The options of rivals' own that are given, also such as this one does not heed."""
        names = dict.fromkeys([*(name for rival in RIVALS.values() for name in rival.own), *SERVER_STEP])
        return {name: value for name in names if (value := getattr(self, name)) is not None}

    @property
    def plain_average(self) -> bool:
        """Whether the aggregate is the step."""
        own_step = (self.server_learning_rate or 1.0) != 1.0 or (self.server_momentum or 0.0) != 0.0
        return self.kind != "fedbuff" and not own_step

    @model_validator(mode="before")
    @classmethod
    def _title_is_the_label(cls, given: object) -> object:
        if isinstance(given, Mapping) and "label" not in given and given.get("kind") in RIVALS:
            return {**given, "label": RIVALS[given["kind"]].title}
        return given


class GradientCodingConfig(InnerConfig):
    """fedgc's GradientCoding around FedAvg, or around another strategy for the server's step.

    With a rule for the deadline, `deadline` is that of the first round; `deadline_share` belongs to the rule "quantile"
    alone, `deadline_cover` (whether every round is to last until the fleet can have done every shard once) and
    `noise_sensitivity` (what residual error costs; learnt by default) to "auto".
    With `secure_sum` the server uses only the sum of what arrives, in fixed point with so many `fractional_bits`; the
    decoder must then be one whose weights are settled before the round: "fixed", say. A `coherence` that is given is
    not learnt. With `bits` clients round what they send to so many per entry, from 1 to 16, by the `quantiser`; not for
    secure sums. With `bit_budget` so many bits in all are divided among the clients, each of which has its own.
    With `pieces` each of the task's shards is divided at random into so many, which together take the time of one. With
    `in_a_row` clients train on from piece to piece, without going back to the global model.
    With `failure_domains` the strategy knows the fleet's sites, whose clients go down together, and learns how often;
    with `residency` each shard stays at a site, so that all its holders do.
    """

    kind: Literal["gradient-coding"]
    label: Name
    deadline: Positive
    deadline_rule: Literal["fixed", "quantile", "auto"] = "fixed"
    deadline_share: Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False, strict=True)] = 0.8
    deadline_cover: Annotated[bool, Field(strict=True)] = False
    noise_sensitivity: Annotated[float | None, Field(ge=0, allow_inf_nan=False, strict=True)] = None
    load: Load = 2
    pieces: Count = 1
    schedule: Schedule = "full"
    sums: Sums | None = None
    redraw: Annotated[bool | None, Field(strict=True)] = None
    order: Literal["least-error", "worst-case"] = "least-error"
    in_a_row: Annotated[bool, Field(strict=True)] = False
    early_end: Annotated[bool, Field(strict=True)] = True
    code: str = BALANCED_BLOCKS
    decoder: str = AUTO
    max_weight: Positive | None = None
    memory: Annotated[bool, Field(strict=True)] = False
    coherence: Annotated[float | None, Field(ge=0, lt=1, allow_inf_nan=False, strict=True)] = None
    secure_sum: Annotated[bool, Field(strict=True)] = False
    fractional_bits: Annotated[int, Field(ge=8, le=48, strict=True)] = 32
    bits: Annotated[int | None, Field(ge=1, le=MOST_BITS, strict=True)] = None
    bit_budget: Count | None = None
    quantiser: str = BucketedNorm.name
    failure_domains: Literal["site"] | None = None
    residency: Literal["site"] | None = None
    grid: Grid = Field(default_factory=dict)

    @property
    def plain_average(self) -> bool:
        """Whether the aggregate is the step."""
        own_step = (self.server_learning_rate or 1.0) != 1.0 or (self.server_momentum or 0.0) != 0.0
        return not self.in_a_row and (self.inner == FEDAVG or (self.inner == FEDAVGM and not own_step))

    @property
    def rounded(self) -> bool:
        """Whether clients round what they send."""
        return self.bits is not None or self.bit_budget is not None

    @property
    def decoder_name(self) -> str:
        """The decoder, by the name that it has in ``fedgc.decoders.DECODERS``."""
        foreseen = self.schedule == "work-list" or self.deadline_rule != "fixed"
        return automatic_decoder(memory=self.memory, foreseen=foreseen) if self.decoder == AUTO else self.decoder

    def build_coherence(self) -> CoherenceEstimate | None:
        """Return the coherence between shards that is given, None if it is to be learnt."""
        return None if self.coherence is None else KnownCoherence(energy=1.0, overlap=self.coherence)

    def build_deadline(self) -> DeadlineRule:
        """Return the rule for the deadline, or raise ValueError if the first one is beyond the rule's longest."""
        if self.deadline_rule == "fixed":
            return build_deadline(self.deadline)
        own: dict[str, dict[str, Any]] = {
            "quantile": {"share": self.deadline_share},
            "auto": {"cover": self.deadline_cover, "noise_sensitivity": self.noise_sensitivity},
        }
        options = own[self.deadline_rule]
        return build_deadline({"rule": self.deadline_rule, "initial": self.deadline, **options})


#: What is no rival.
GRADIENT_CODING = "gradient-coding"
#: Every kind of strategy.
KINDS = (GRADIENT_CODING, *RIVALS, DECENTRALISED, BLOCK_COORDINATES)


def _family_of(given: object) -> str | None:
    kind = given.get("kind") if isinstance(given, Mapping) else getattr(given, "kind", None)
    return kind if kind in (GRADIENT_CODING, DECENTRALISED, BLOCK_COORDINATES) else "rival" if kind in RIVALS else None


#: What sends Flower's messages.
ServedConfig = RivalConfig | GradientCodingConfig

StrategyConfig = Annotated[
    Annotated[RivalConfig, Tag("rival")]
    | Annotated[GradientCodingConfig, Tag(GRADIENT_CODING)]
    | Annotated[NodesConfig, Tag(DECENTRALISED)]
    | Annotated[BlocksConfig, Tag(BLOCK_COORDINATES)],
    Discriminator(_family_of),
]


class TuningConfig(Section):
    """How strategies are tuned: every choice is run on `seeds`, and the best one then on the experiment's.

    Attributes
    ----------
    seeds : list of int
        Seeds that choices are compared on, none of them the experiment's.
    by : {"seconds", "rounds"}
        The way to the target in which the best choice is the shortest.
    keys : list of str
        Swept keys whose value every strategy may choose, beside those of its own grid.
    """

    seeds: Seeds
    by: Literal["seconds", "rounds"] = "seconds"
    keys: list[Name] = Field(default=["task.learning_rate"])


class SweepTitle(Section):
    """How reports call the values of a swept key: by another name, where the value that is set says little.

    Attributes
    ----------
    name : str
        In place of the key.
    values : mapping of str to str
        What stands in place of a value, by that value as text. A value that is missing keeps its key and itself.
    """

    name: Name
    values: dict[Name, Name]


class ExperimentConfig(Section):
    """A whole experiment.

    Attributes
    ----------
    name : str
        Title of tables and figures.
    rounds : int
        Rounds per run.
    seeds : list of int
        One run per strategy and seed. A seed fixes shards, initial model, fleet and draws.
    target_accuracy : float
        Test accuracy whose first attainment is reported.
    target_loss : float or None
        Loss whose first attainment is reported in its place, as the task's ``evaluate`` measures it. Only one of the
        two may be given.
    stop_at_target : bool
        Whether a run ends with the round that reaches the target, or whose loss is not finite or above 50 times that
        at the start.
    record_every : int
        Only every so many rounds are kept as rows, beside round 0, the first one at the target and the last one. What
        is averaged over rounds is then averaged over these.
    runtime : str
        "virtual": Flower's strategies and clients exchange messages in virtual time. "replay": the same rounds without
        messages, for tasks of one gradient step per shard, whole blocks, and rivals that are a code and a decoder
        (:mod:`fedgc.replay`); and for block-coordinate gradient coding. "decentralised": clients are nodes on a graph,
        without a server (:mod:`fedgc.decentralised`), for logistic regression and strategies of that kind.
    timing : str
        "learnt": strategies learn how reliable and fast clients are. "known": those that use it are told.
    deadline_unit : str
        "second", or "cover": the time in which the fleet can do every shard once, see
        :func:`fedgc.experiment.deadlines.in_seconds`.
    time_limit : float or None
        Virtual seconds, or covers if that is the unit of deadlines, after which a run ends with the round that is
        under way; None for all rounds.
    tensorboard : str or None
        Folder for TensorBoard's curves; each strategy and seed gets a folder in it.
    sweep : mapping of str to list
        Dotted keys of task or fleet, or rounds, timing, target_accuracy or target_loss, and the values that each
        takes: the experiment is run for every combination. A strategy's `grid` is the same for keys of its own.
    sweep_titles : mapping of str to SweepTitle
        By dotted key, how reports call what a sweep sets.
    tuning : TuningConfig or None
        How the best choice of each strategy is found before it is measured; None to measure all of them.
    decentralised : GraphConfig or None
        The graph of the runtime "decentralised".
    task, fleet, strategies
        What is trained, by whom, and how. The task's `name` says which section it is. The fleet is a table as in
        :func:`fedgc.fleets.build_fleet`.
    """

    name: Name
    rounds: Count
    seeds: Seeds
    target_accuracy: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False, strict=True)] = 0.9
    target_loss: Positive | None = None
    stop_at_target: Annotated[bool, Field(strict=True)] = False
    record_every: Count = 1
    runtime: Literal["virtual", "replay", "decentralised"] = "virtual"
    timing: Literal["learnt", "known"] = "learnt"
    deadline_unit: Literal["second", "cover"] = "second"
    time_limit: Positive | None = None
    tensorboard: Name | None = None
    sweep: Grid = Field(default_factory=dict)
    sweep_titles: dict[Name, SweepTitle] = Field(default_factory=dict)
    tuning: TuningConfig | None = None
    decentralised: GraphConfig | None = None
    task: TaskConfig = DigitsConfig()
    fleet: dict[str, Any]
    strategies: Annotated[list[StrategyConfig], Field(min_length=1)]

    @property
    def target(self) -> Target:
        """What a run is to reach."""
        if self.target_loss is not None:
            return Target("loss", self.target_loss)
        return Target("accuracy", self.target_accuracy)

    @property
    def n_clients(self) -> int:
        """Number of clients in the fleet."""
        return int(self.fleet["clients"])
