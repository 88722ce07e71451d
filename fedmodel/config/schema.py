"""The frozen models behind a scenario's TOML: every key, its type, its range, its rule.

A scenario is public: it goes to the server and to every silo. Nothing in it may be computed from records that nobody
paid for; in particular sample rates, expected batch sizes, silo weights and reference ranges are declared,
never counted.

Privacy has no silent default. Unit, clip, delta, sample rate, expected batch size and one of noise multiplier or
epsilon are said or the scenario is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import combinations
from typing import Annotated, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    field_validator,
    model_validator,
)

from fedmodel.config.same_source import same_by_text, two_budgets
from fedmodel.config.spelling import CsvForm, Later
from fedmodel.config.tables import (
    RISING,
    ColumnConfig,
    ColumnName,
    DataName,
    Person,
    Range,
    TableSource,
    check_table,
    rises,
)
from fedmodel.privacy.events import (
    LEAST_DELTA,
    LEAST_NOISE,
    LEAST_RATE,
    MOST_NOISE,
    MOST_RECORDS,
    MOST_STEPS,
    Baseline,
    NoiseSourceName,
    UnitName,
)
from fedmodel.system.inert import inert

SiloName = Annotated[str, Field(pattern=r"^[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?$")]
Widths = Annotated[tuple[Annotated[int, Field(ge=1, le=65_536)], ...], Field(strict=False)]
DataSource = Literal["breast-cancer", "digits", "synthetic", "table"]
Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Clock = Annotated[str, Field(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$")]
Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
AgeRecipient = Annotated[str, Field(pattern=r"^age1[02-9ac-hj-np-z]{58}$")]
Device = Literal["auto", "cpu", "cuda"]
Probability = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0, le=1e9)]

_OF_DEALT_DATA = ("held_out", "reference_range", "reference_ranges", "records", "features", "records_per_person",
                  "partition")  # fmt: skip
_OF_TABLES = ("name", "label", "labels", "unknown_label", "columns", "person", "folder", "csv")
# Of a class. At a noise multiplier of 1 the clip is 2^30 steps of the fine grid (`fedmodel.privacy.grid`) or more: at
# the least weight, 2^10 of them are left of a gradient as long as the clip, so that no class is cut away unsaid. At the
# most, 2^20 times the largest feature of 10^9 is under 2^50 of the 2^128 that a float32 holds.
LEAST_WEIGHT = 2.0**-20
MOST_WEIGHT = 2.0**20
_MOST_VALUES = 100_000_000  # of synthetic data; its generator holds them several times over

LARGEST_TARGET = 100


def _is_some_noise(value: object) -> object:
    """Refuse a noise multiplier of 0, and say how a run without noise is asked for."""
    if value == 0 and not isinstance(value, bool):
        raise ValueError(f"found 0, which is no noise and protects nobody; the least is {LEAST_NOISE}. {_BASELINE}")
    return value


def _is_a_target(value: object) -> object:
    """Refuse an epsilon that is no target worth a run, and say how a run without noise is asked for."""
    if isinstance(value, int | float) and not isinstance(value, bool) and value > LARGEST_TARGET:
        raise ValueError(f"found {value:g}, which promises nothing; the largest is {LARGEST_TARGET}. {_BASELINE}")
    return value


_BASELINE = (
    "To see what privacy costs, simulate the same scenario without noise, which protects nobody: privacy.baseline ="
    ' "no-noise" (or "no-noise-no-clip")'
)
NoiseMultiplier = Annotated[float, Field(ge=LEAST_NOISE, le=MOST_NOISE), BeforeValidator(_is_some_noise)]
TargetEpsilon = Annotated[float, Field(gt=0, le=LARGEST_TARGET), BeforeValidator(_is_a_target)]
SampleRate = Annotated[float, Field(ge=LEAST_RATE, le=1)]
MOST_EPSILON = 1_000
LEAST_EFFECTIVE = 2.0
Epsilon = Annotated[float, Field(gt=0, le=MOST_EPSILON)]
Delta = Annotated[float, Field(ge=LEAST_DELTA, lt=1)]


def _is_inert(value: str) -> str:
    """Refuse a text with a character that acts on whoever shows it, or that nobody sees."""
    if inert(value) != value:
        raise ValueError(f"a character in it acts on whoever shows it, or is not seen; it is {inert(value)!r}")
    return value


def _is_address(value: str) -> str:
    """Refuse what is no "host:port"; an address of IPv6 stands in brackets."""
    host, _, port = value.rpartition(":")
    if not re.fullmatch(r"\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?", host):
        raise ValueError(f'{value!r} is no address; write "host:port", as in "fl.example.org:9443" or "[::1]:9443"')
    if not re.fullmatch(r"[1-9][0-9]{0,4}", port) or int(port) > 65_535:
        raise ValueError(f"{value!r} has no port from 1 to 65535 behind the colon")
    return value


Address = Annotated[str, AfterValidator(_is_address)]


class Section(BaseModel):
    """Base of every section: immutable, strict about types, no unknown keys, no NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class PartitionConfig(Section):
    """How a simulation deals one data set out to silos: Dirichlet over sizes and over labels.

    Smaller concentrations are less even (sizes) and less alike (labels); 100 is nearly uniform.
    """

    size_concentration: Positive = 10.0
    label_concentration: Positive = 10.0
    min_records: int = Field(default=1, ge=1)


class DataConfig(Section, Later):
    """Where records come from and how features are scaled, by public ranges only.

    A built-in data set is dealt out from here. A table is only described here: where it lies is each silo's to say.
    `folder` and `csv` are a simulation's alone.
    """

    LATER = ("unknown_label", "csv")

    source: DataSource
    held_out: float | None = Field(default=None, gt=0, lt=1)
    reference_range: Range | None = None
    reference_ranges: dict[str, Range] = {}
    feature_bound: Positive = 3.0
    records: int = Field(default=100, ge=10, le=1_000_000)
    features: int = Field(default=10, ge=2, le=10_000)
    records_per_person: int = Field(default=1, ge=1, le=MOST_RECORDS)
    partition: PartitionConfig = PartitionConfig()
    name: DataName | None = None
    label: ColumnName | None = None
    labels: Annotated[tuple[ColumnName, ...], Field(strict=False, max_length=1_000)] = ()
    columns: Annotated[tuple[ColumnConfig, ...], Field(strict=False, max_length=10_000)] = ()
    person: Person | None = None
    folder: str | None = Field(default=None, min_length=1)
    unknown_label: Literal["refuse", "drop"] = "refuse"
    csv: dict[SiloName, CsvForm] = {}

    @field_validator("reference_range", "reference_ranges")
    @classmethod
    def _ranges_rise(
        cls, value: tuple[float, float] | dict[str, tuple[float, float]] | None
    ) -> tuple[float, float] | dict[str, tuple[float, float]] | None:
        pairs = value.values() if isinstance(value, dict) else [] if value is None else [value]
        for pair in pairs:
            if not rises(pair):
                raise ValueError(f"a reference range must {RISING}, found {list(pair)}")
        return value

    @model_validator(mode="after")
    def _one_kind_of_range(self) -> DataConfig:
        if self.reference_range is not None and self.reference_ranges:
            raise ValueError("give reference_range for all features or reference_ranges for each, not both")
        if self.records_per_person > 1 and self.source != "synthetic":
            raise ValueError(f'records_per_person belongs to source = "synthetic", found {self.source!r}')
        if self.records * self.features > _MOST_VALUES:
            raise ValueError(f"{self.records} records of {self.features} features are more than {_MOST_VALUES} values")
        return self

    @model_validator(mode="after")
    def _is_a_table_or_none(self) -> DataConfig:
        given = [key for key in sorted(self.model_fields_set) if getattr(self, key) is not None]
        foreign = _OF_DEALT_DATA if self.source == "table" else _OF_TABLES
        for key in given:
            # A resolved scenario says defaults too.
            if key in foreign and getattr(self, key) != type(self).model_fields[key].default:
                raise ValueError(f"{key} does not belong to source = {self.source!r}; leave it out")
        if self.source != "table":
            if self.held_out is None:
                raise ValueError("held_out is missing; add it")
            return self
        if self.name is None or self.name in get_args(DataSource):
            raise ValueError(
                'source = "table" needs name, by which silo.toml calls the data set under [budgets] and [tables], and'
                f" none of {', '.join(get_args(DataSource))}"
            )
        check_table(self.columns, self.label, self.labels, self.person)
        return self

    @property
    def data_set(self) -> str:
        """What the data set is called, in budgets and ledgers too."""
        return self.name or self.source


class FederationConfig(Section):
    """Who takes part. Weights are public and never the number of records."""

    silos: Annotated[tuple[SiloName, ...], Field(strict=False, min_length=1, max_length=10_000)]
    cohort: int | None = Field(default=None, ge=1)
    min_silos: int = Field(default=2, ge=1)
    weights: dict[str, Positive] = {}
    round_timeout_s: float = Field(default=600.0, gt=0, le=86_400)
    tolerated_failures: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _names_and_counts(self) -> FederationConfig:
        repeated = sorted({name for name in self.silos if self.silos.count(name) > 1})
        if repeated:
            raise ValueError(f"silo {repeated[0]!r} is named twice; every silo needs its own name")
        if self.cohort_size > len(self.silos):
            raise ValueError(f"cohort = {self.cohort} is more than the {len(self.silos)} silos named")
        if self.min_silos > self.cohort_size:
            raise ValueError(
                f"min_silos = {self.min_silos} is more than the cohort of {self.cohort_size}, so no round could count"
            )
        _known_silos(self.weights, self.silos, "federation.weights")
        return self

    @property
    def cohort_size(self) -> int:
        """How many silos are asked to train each round."""
        return len(self.silos) if self.cohort is None else self.cohort

    def weight(self, silo: str) -> float:
        """Return the silo's public weight in the average, 1 unless declared."""
        return self.weights.get(silo, 1.0)

    def relative_weight(self, silo: str) -> float:
        """Return the silo's weight over the largest, so that a bound on updates bounds weighted ones too."""
        return self.weight(silo) / max(self.weight(other) for other in self.silos)


class EncryptionConfig(Section):
    """Whether updates are hidden in a sum, and how; what of it is a silo's own law, its `silo.toml` repeats."""

    secure_aggregation: Literal["off", "simulated", "on"] = "off"
    bound: Positive | None = None
    ring_bits: Literal[16, 32] = 32
    colluding: int | None = Field(default=None, ge=0)
    dropping: int | None = Field(default=None, ge=0)
    secrecy_bits: int = Field(default=80, ge=1, le=256)
    window: int = Field(default=8, ge=1, le=256)
    post_quantum: bool = False
    consistency: Literal["commit", "quorum"] = "commit"

    @model_validator(mode="after")
    def _bound_is_said(self) -> EncryptionConfig:
        if self.secure_aggregation != "off" and self.bound is None:
            raise ValueError(
                "secure aggregation needs bound, the largest magnitude of an update's coordinate, since sums are of"
                " integers; larger ones are clipped to it"
            )
        return self


class FaultsConfig(Section):
    """A rehearsal: how often a silo's answer to a stage is lost, half of them before the silo was asked at all."""

    share: Probability = 0.0
    train: Probability = 0.0
    commit: Probability = 0.0
    reveal: Probability = 0.0


class AuditConfig(Section):
    """Canaries in a simulated run, which an audit looks for in what the run releases; see `fedmodel.audit`.

    Attributes:
        canaries: "probe", written into a block of parameters of their own, or "loss", made-up records that the model
            itself learns.
        count: Of every silo, from 4; a fair coin decides of each whether it is in the silo's data.
    """

    canaries: Literal["probe", "loss"] = "probe"
    count: int = Field(ge=4, le=10_000)


class StartConfig(Section):
    """A file of parameters that a run begins from.

    As a person writes it, it says where the file lies and what it was trained on. Resolved
    (`fedmodel.learning.starts`), it says which file it is, by a hash, and which run made it. Where it lies is in no
    document that is made from a scenario, so that a scenario's hash is the same wherever it is read, and no silo is
    told a path.

    Attributes:
        file: A `.safetensors` file or a run's folder, from the folder of the scenario's file.
        identity: The age key file that opens it, where it is sealed.
        trained_on: "public", which is the author's word that no private record is in it; or "run", one of `fedmodel`.
        sha256: Of what is in the file, opened.
        scenario: Of a run: the hash of its scenario, as the file, or a ledger that goes on, says.
        run: Its number, where ledgers go on from it, as in a simulation.
        silos: Those whose ledgers do.
    """

    file: str = Field(default="start.safetensors", min_length=1, exclude=True)
    identity: str | None = Field(default=None, min_length=1, exclude=True)
    trained_on: Literal["public", "run"] | None = None
    sha256: Hash | None = None
    scenario: Hash | None = None
    run: Annotated[str, Field(pattern=r"^[1-9][0-9]{0,19}$")] | None = None
    silos: Annotated[tuple[SiloName, ...], Field(strict=False, max_length=10_000)] = ()

    @model_validator(mode="after")
    def _only_a_run_has_one(self) -> StartConfig:
        if self.trained_on == "public" and (self.scenario or self.run or self.silos):
            raise ValueError(
                'trained_on = "public" is of no run, and scenario, run and silos are of one; leave them out'
            )
        if bool(self.run) != bool(self.silos):
            raise ValueError("run and silos are written together, when a simulation goes on from a run's ledgers")
        return self


InitName = Literal["random", "zero", "constant"]


def _path_alone(value: object) -> object:
    """Take a path for the file that it names: none of the words looks like one."""
    return {"file": value} if isinstance(value, str) and re.search(r"[./\\]", value) else value


def _kind_of_start(value: object) -> str:
    return "file" if isinstance(value, dict | StartConfig) else "word"


Init = Annotated[
    Annotated[InitName, Tag("word")] | Annotated[StartConfig, Tag("file")],
    Discriminator(_kind_of_start),
    BeforeValidator(_path_alone),
]


class _ModelBase(Section):
    init: Init = "random"
    init_value: float | None = Field(default=None, ge=-1e6, le=1e6)

    @model_validator(mode="after")
    def _constant_has_value(self) -> _ModelBase:
        if (self.init == "constant") != (self.init_value is not None):
            raise ValueError('init_value is given with init = "constant", and only then')
        return self


class MlpConfig(_ModelBase):
    """Fully connected layers; `hidden = []` is a linear model."""

    kind: Literal["mlp"]
    hidden: Widths = ()
    activation: Literal["relu", "tanh"] = "relu"
    dropout: float = Field(default=0.0, ge=0, lt=1)


class CnnConfig(_ModelBase):
    """Convolutions of 3x3 with GroupNorm, each followed by 2x2 max pooling, then one linear layer."""

    kind: Literal["cnn"]
    channels: Widths = (16, 32)
    groups: int = Field(default=4, ge=1)
    activation: Literal["relu", "tanh"] = "relu"
    dropout: float = Field(default=0.0, ge=0, lt=1)

    @model_validator(mode="after")
    def _groups_divide(self) -> CnnConfig:
        if not self.channels:
            raise ValueError("a cnn needs at least one entry in channels")
        for width in self.channels:
            if width % self.groups:
                raise ValueError(f"groups = {self.groups} does not divide channels of {width}, as GroupNorm needs")
        return self


ModelConfig = Annotated[MlpConfig | CnnConfig, Field(discriminator="kind")]


class TrainingConfig(Section):
    """How a silo trains between two exchanges with the server.

    Attributes:
        class_weights: What the loss of a record is multiplied with, by its label: a weight for each class, in the order
            of labels. Public constants, never counted from records. They go in before the clip, so that a record moves
            a sum by at most the clip whatever its weight, and nothing is divided by a sum of them.
    """

    loss: Literal["cross-entropy", "mse"]
    optimizer: Literal["sgd", "adam", "adagrad"]
    learning_rate: float = Field(gt=0, le=1e6)
    momentum: float = Field(default=0.0, ge=0, lt=1)
    local_steps: int | None = Field(default=None, ge=1, le=MOST_STEPS)
    local_epochs: int | None = Field(default=None, ge=1, le=10_000)
    keep_optimizer_state: bool = False
    max_physical_batch: int = Field(default=512, ge=1, le=1_000_000)
    # Left out of what is hashed where it is not said: scenarios from before it keep the hash that silos admit.
    class_weights: Annotated[tuple[float, ...], Field(strict=False, max_length=1_000)] | None = Field(
        default=None, exclude_if=lambda weights: weights is None
    )

    @field_validator("class_weights")
    @classmethod
    def _weights_are_bounded(cls, value: tuple[float, ...] | None) -> tuple[float, ...] | None:
        for place, weight in enumerate(value or ()):
            if not LEAST_WEIGHT <= weight <= MOST_WEIGHT:
                raise ValueError(
                    f"the weight of class {place} is {weight:g}, and has to be from 2^-20 to 2^20, some 0.000001 to"
                    " 1000000; only how it compares to the others matters much"
                )
        return value

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> TrainingConfig:
        if self.class_weights is not None and self.loss != "cross-entropy":
            raise ValueError(f'class_weights belongs to loss = "cross-entropy", found {self.loss!r}; leave it out')
        if (self.local_steps is None) == (self.local_epochs is None):
            raise ValueError("give exactly one of local_steps and local_epochs")
        if self.momentum and self.optimizer != "sgd":
            raise ValueError(f'momentum belongs to optimizer = "sgd", found {self.optimizer!r}')
        return self

    def noise_step(self, noise: float) -> float:
        """Return how far noise moves a coordinate in one step, at least.

        Args:
            noise: Of a noised gradient's coordinate, one standard deviation.
        """
        return self.learning_rate * (noise if self.optimizer == "sgd" else min(1.0, noise))

    def steps_per_round(self, sample_rate: float) -> int:
        """Return the DP-SGD steps of one round: the single source for the plan and for the loop.

        An epoch of lots drawn at rate q is 1/q steps, rounded to nearest. Truncating instead, as `int(1 / q)` does,
        plans n - 1 steps where n are run for 312 of the rates 1/n with n up to 5,000.

        >>> config = TrainingConfig(loss="mse", optimizer="sgd", learning_rate=1.0, local_epochs=1)
        >>> config.steps_per_round(1 / 49)
        49
        """
        if self.local_steps is not None:
            return self.local_steps
        return max(1, round((self.local_epochs or 1) / sample_rate))


class SiloPrivacyConfig(Section):
    """What one silo declares differently from the rest."""

    sample_rate: SampleRate | None = None
    expected_batch_size: int | None = Field(default=None, ge=1)
    delta: Delta | None = None
    epsilon: TargetEpsilon | None = None
    noise_multiplier: NoiseMultiplier | None = None

    @model_validator(mode="after")
    def _not_both(self) -> SiloPrivacyConfig:
        if self.epsilon is not None and self.noise_multiplier is not None:
            raise ValueError("give one of epsilon and noise_multiplier, not both")
        return self


class PrivacyConfig(Section):
    """The claim each silo will make, and the public figures it rests on.

    With `baseline` a simulation runs the same pipeline without noise, and perhaps without the clip: nothing is claimed
    then. The other figures stay those of the private run that it is compared with.
    """

    unit: UnitName
    max_records: int | None = Field(default=None, ge=1, le=MOST_RECORDS)
    max_grad_norm: Positive
    delta: Delta
    epsilon: TargetEpsilon | None = None
    noise_multiplier: NoiseMultiplier | None = None
    sample_rate: SampleRate
    expected_batch_size: int = Field(ge=1)
    noise: NoiseSourceName = "os"
    # Left out of a document, and so of a scenario's hash, where it is not said: older kits name hashes without it.
    baseline: Baseline | None = Field(default=None, exclude_if=lambda value: value is None)
    silo: dict[str, SiloPrivacyConfig] = {}

    @property
    def noise_name(self) -> str:
        """Where noise comes from, as every file of a run names it: "none-unsafe" where none is added."""
        return self.noise if self.baseline is None else "none-unsafe"

    @model_validator(mode="after")
    def _one_of_noise_and_epsilon(self) -> PrivacyConfig:
        if (self.epsilon is None) == (self.noise_multiplier is None):
            found = "neither" if self.epsilon is None else "both"
            raise ValueError(f"give exactly one of epsilon and noise_multiplier, found {found}; nothing is guessed")
        _records_are_said(self.unit, self.max_records)
        return self


@dataclass(frozen=True)
class SiloPlan:
    """What one silo is asked to do over a whole run: the figures its claim is calibrated from.

    Attributes:
        silo: The silo's name.
        data: The data set.
        unit: The privacy unit; neighbours differ by adding or removing one of these.
        max_records: Most records of one unit that are trained on.
        delta: The delta of the claim.
        epsilon: The target, or None where the noise multiplier is given.
        noise_multiplier: The noise's standard deviation over the clip, or None where a target is given.
        max_grad_norm: The clip C, in the L2 norm of one record's gradient.
        sample_rate: The Poisson rate q of every lot, public.
        expected_batch_size: The public denominator of every step.
        steps_per_round: DP-SGD steps in one round.
        rounds: Rounds in the run, at most.
        noise: Where lots and noise are drawn from.
        baseline: What is left out of the run, which then protects nobody; None where nothing is.
    """

    silo: str
    data: str
    unit: UnitName
    max_records: int
    delta: float
    epsilon: float | None
    noise_multiplier: float | None
    max_grad_norm: float
    sample_rate: float
    expected_batch_size: int
    steps_per_round: int
    rounds: int
    noise: NoiseSourceName
    baseline: Baseline | None = None

    @property
    def target_epsilon(self) -> float | None:
        """The target that a run aims at: a baseline, whose `epsilon` is of the run that it is beside, has none."""
        return self.epsilon if self.baseline is None else None

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        return self.steps_per_round * self.rounds


class Scenario(Section):
    """One federation, from data to claim."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,39}$")]
    summary: Annotated[str, Field(min_length=1, max_length=100), AfterValidator(_is_inert)]
    rounds: int = Field(ge=1, le=100_000)
    stop_below_loss: Positive | None = None
    seed: int | None = Field(default=None, ge=0, lt=2**63)
    data: DataConfig
    federation: FederationConfig
    model: ModelConfig
    training: TrainingConfig
    privacy: PrivacyConfig
    encryption: EncryptionConfig = EncryptionConfig()
    faults: FaultsConfig | None = None
    budgets: dict[str, Epsilon] = {}
    audit: AuditConfig | None = None

    @model_validator(mode="after")
    def _parts_fit(self) -> Scenario:
        _known_silos(self.privacy.silo, self.federation.silos, "privacy.silo")
        _known_silos(self.budgets, self.federation.silos, "budgets")
        _known_silos(self.data.csv, (*self.federation.silos, "held-out"), "data.csv")
        if self.privacy.unit == "person" and self.data.source == "digits":
            raise ValueError('privacy.unit = "person": the digits do not say who wrote them; take another unit')
        if self.privacy.unit == "person" and self.data.source == "table" and self.data.person is None:
            raise ValueError('privacy.unit = "person" needs data.person, the column that says whose a record is')
        if self.data.source == "table" and "held-out" in self.federation.silos:
            raise ValueError("a silo cannot be called 'held-out': that is the name of the server's own table")
        if self.privacy.baseline is not None and self.audit is not None:
            raise ValueError("privacy.baseline claims nothing that an audit could refute; leave one of the two out")
        if self.privacy.noise == "seeded-unsafe" and self.seed is None:
            raise ValueError('privacy.noise = "seeded-unsafe" needs a seed')
        for silo in self.federation.silos:
            plan = self.plan(silo)
            if plan.steps > MOST_STEPS:
                raise ValueError(
                    f"silo {silo!r} would take {plan.steps} steps in {self.rounds} rounds, more than {MOST_STEPS}"
                )
        return self

    @property
    def start(self) -> StartConfig | None:
        """The file that the run begins from, None where it begins from none."""
        return self.model.init if isinstance(self.model.init, StartConfig) else None

    @property
    def goes_on(self) -> bool:
        """Whether the run begins from a run's model, so that what it releases tells of both."""
        return self.start is not None and self.start.trained_on == "run"

    def begun(self, start: StartConfig) -> Scenario:
        """Return the scenario with another start."""
        return self.model_copy(update={"model": self.model.model_copy(update={"init": start})})

    @property
    def carries_state(self) -> bool:
        """Whether silos carry anything from one round into the next besides the model."""
        return self.training.keep_optimizer_state

    def plan(self, silo: str) -> SiloPlan:
        """Return what the silo is asked to do, its own declarations laid over the shared ones."""
        shared = self.privacy
        own = shared.silo.get(silo, SiloPrivacyConfig())
        target_is_own = own.epsilon is not None or own.noise_multiplier is not None
        sample_rate = shared.sample_rate if own.sample_rate is None else own.sample_rate
        batch = shared.expected_batch_size if own.expected_batch_size is None else own.expected_batch_size
        return SiloPlan(
            silo=silo,
            data=self.data.data_set,
            unit=shared.unit,
            max_records=shared.max_records or 1,
            delta=shared.delta if own.delta is None else own.delta,
            epsilon=own.epsilon if target_is_own else shared.epsilon,
            noise_multiplier=own.noise_multiplier if target_is_own else shared.noise_multiplier,
            max_grad_norm=shared.max_grad_norm,
            sample_rate=sample_rate,
            expected_batch_size=batch,
            steps_per_round=self.training.steps_per_round(sample_rate),
            rounds=self.rounds,
            noise=shared.noise,
            baseline=shared.baseline,
        )


class BudgetConfig(Section):
    """What may be spent on one data set, ever, or on several together.

    Attributes:
        covers: The data sets that it counts, as one; by default the one that it is named after.
        unit: Whose presence is hidden.
        max_records: Most records of one unit that are trained on, for any unit but a record.
        adjacency: How neighbours differ; nothing else is accounted for.
        delta: Of the claim.
        epsilon: The cap.
        order: Of the Rényi filter; by default the one that admits most at this cap. Fixed when the ledger is made.
        partial_runs: Whether to take part in a run that the budget does not pay to its end.
    """

    covers: Annotated[tuple[DataName, ...], Field(strict=False, min_length=1)] | None = None
    unit: UnitName
    max_records: int | None = Field(default=None, ge=1, le=MOST_RECORDS)
    adjacency: Literal["add-or-remove-one"] = "add-or-remove-one"
    delta: Delta
    epsilon: Epsilon
    order: int | None = Field(default=None, ge=2, le=256)
    partial_runs: bool = False

    @field_validator("adjacency", mode="before")
    @classmethod
    def _is_accounted_for(cls, value: object) -> object:
        if value != "add-or-remove-one":
            raise ValueError(
                f"{value!r} is not accounted for; only add-or-remove-one is: to replace a record moves a sum by up to"
                " twice the clip, which the accountants at hand understate under sampling"
            )
        return value

    @model_validator(mode="after")
    def _records(self) -> BudgetConfig:
        _records_are_said(self.unit, self.max_records)
        return self


class HoursConfig(Section):
    """When a silo joins and trains, by its own clock: past midnight where `end` is before `start`, all day if alike."""

    days: Annotated[tuple[Day, ...], Field(strict=False, min_length=1)] = get_args(Day)
    start: Clock = "00:00"
    end: Clock = "00:00"


class SiloEncryptionConfig(EncryptionConfig):
    """How a silo hides its updates; required unless its own file says otherwise."""

    secure_aggregation: Literal["off", "simulated", "on"] = "on"


class ConnectionConfig(Section):
    """Where a deployed silo finds its server.

    Attributes:
        address: As "host:port", or "[address]:port" of IPv6. The host is a name in the server's certificate.
    """

    address: Address


class SiloFile(Section):
    """A silo's own law, `silo.toml`: what no server can loosen. Defaults are the strict ones.

    Attributes:
        name: The silo's.
        servers: Public keys of the servers that may ask anything, Ed25519 in hexadecimal.
        post_quantum_servers: Hashes of their ML-DSA keys; where there are any, one signs all that is asked, too.
        scenarios: Hashes of the scenarios that it takes part in, model and all. Whoever could send another could divide
            the other silos' updates out of a sum, by their weights or denominators, or ask for noise that is known.
        code: Hashes of the code that it trains with.
        mechanisms: Kinds of event that may be charged.
        noise_sources: Where noise may be drawn from.
        least_noise_multiplier: Least noise over the clip.
        largest_clip: Largest clip of a gradient.
        smallest_cohort: Least silos that are asked in a round.
        smallest_threshold: Least shares that bring a secret of secure aggregation back.
        min_silos: Least silos in a sum.
        least_effective_silos: As how many equal silos the weights of a sum count at least.
        largest_roster: Most silos in a federation that it takes part in.
        metrics: What may leave besides updates. There is nothing to name: no figure computed from records leaves.
        hours: When it joins and trains; at any time where it is not said.
        budgets: By data set, or of several together. A data set without one is not trained on.
        tables: Where this silo's own data sets lie, by the names that scenarios call them.
        encryption: Secure aggregation or nothing, and how.
        connection: Where its server is; a simulated silo has none.
        device: Where it trains.
    """

    name: SiloName
    servers: Annotated[tuple[Hash, ...], Field(strict=False)] = ()
    post_quantum_servers: Annotated[tuple[Hash, ...], Field(strict=False)] = ()
    scenarios: Annotated[tuple[Hash, ...], Field(strict=False)] = ()
    code: Annotated[tuple[Hash, ...], Field(strict=False)] = ()
    mechanisms: Annotated[tuple[Literal["dp-sgd"], ...], Field(strict=False)] = ("dp-sgd",)
    noise_sources: Annotated[tuple[NoiseSourceName, ...], Field(strict=False)] = ("os",)
    least_noise_multiplier: NoiseMultiplier = 1.0
    largest_clip: Positive = 1.0
    smallest_cohort: int = Field(default=3, ge=1)
    smallest_threshold: int = Field(default=2, ge=1)
    min_silos: int = Field(default=3, ge=1)
    least_effective_silos: float = Field(default=LEAST_EFFECTIVE, gt=0, le=100_000)
    largest_roster: int = Field(default=100, ge=1, le=100_000)
    metrics: Annotated[tuple[str, ...], Field(strict=False)] = ()
    hours: HoursConfig | None = None
    budgets: dict[DataName, BudgetConfig]
    tables: dict[DataName, TableSource] = {}
    encryption: SiloEncryptionConfig
    connection: ConnectionConfig | None = None
    device: Device = "auto"

    @model_validator(mode="after")
    def _tables_have_names_of_their_own(self) -> SiloFile:
        for name in self.tables:
            if name in get_args(DataSource):
                raise ValueError(f"tables.{name}: {name!r} is a data set on board; call the table something else")
        return self

    @model_validator(mode="after")
    def _a_budget_is_of_data(self) -> SiloFile:
        counted = [data for name, budget in self.budgets.items() for data in budget.covers or (name,)]
        for data in counted:
            if counted.count(data) > 1:
                raise ValueError(f"data set {data!r} is counted by two budgets, or twice by one; let one count it")
        tables = [name for name in self.tables if name in counted]
        for one, other in combinations(tables, 2):
            way = same_by_text(self.tables[one], self.tables[other])
            if way is not None and self.budget_name(one) != self.budget_name(other):
                raise ValueError(two_budgets(one, other, way))
        return self

    def budget_name(self, data: str) -> str | None:
        """Return the name of the budget that counts a data set, as in the ledger; None where none does."""
        return next((name for name, budget in self.budgets.items() if data in (budget.covers or (name,))), None)

    def budget_of(self, data: str) -> BudgetConfig | None:
        """Return the budget that counts a data set, None where none does."""
        name = self.budget_name(data)
        return None if name is None else self.budgets[name]

    @model_validator(mode="after")
    def _a_sum_can_be_enough(self) -> SiloFile:
        if self.encryption.secure_aggregation == "on" and self.least_effective_silos > self.min_silos:
            raise ValueError(
                f"least_effective_silos = {self.least_effective_silos:g} is more than min_silos = {self.min_silos}, and"
                " no sum of as many could be worth that; raise min_silos, or lower it"
            )
        return self

    @field_validator("metrics")
    @classmethod
    def _no_metric_leaves(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if value:
            raise ValueError(
                f"metrics names {value[0]!r}: no figure computed from records leaves a silo, since none of them is"
                " differentially private; leave it empty"
            )
        return value


def _records_are_said(unit: UnitName, max_records: int | None) -> None:
    """Refuse a unit of several records without a cap, and a cap on a record."""
    if (unit == "record") == (max_records is not None):
        raise ValueError(
            'max_records, the most records of one unit that are trained on, is given with unit = "person" or "client",'
            f" and only then; found unit = {unit!r} with {'none' if max_records is None else max_records}"
        )


def _known_silos(named: Iterable[str], silos: tuple[str, ...], where: str) -> None:
    """Refuse a name that no silo bears."""
    for name in named:
        if name not in silos:
            near = get_close_matches(name, silos, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(silos)}"
            raise ValueError(f"{where} names {name!r}, which is no silo of this federation{hint}")
