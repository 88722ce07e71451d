"""A silo's own file, `silo.toml`: its law, which no message changes."""

from __future__ import annotations

from itertools import combinations
from typing import Annotated, Literal, get_args

from pydantic import Field, field_validator, model_validator

from fedmodel.config.encryption import AggregationMode, EncryptionConfig
from fedmodel.config.figures import Delta, Epsilon, MechanismName, NoiseMultiplier, records_are_said
from fedmodel.config.own_bases import Bases
from fedmodel.config.own_packages import Packages
from fedmodel.config.purpose import ControllerConfig
from fedmodel.config.same_source import same_by_text, two_budgets
from fedmodel.config.silos import LEAST_EFFECTIVE
from fedmodel.config.tables import TableSource
from fedmodel.kinds.section import Address, DataName, Device, Hash, Positive, Section, SiloName
from fedmodel.kinds.sources import SOURCES
from fedmodel.privacy.events import EXPERIMENT, MOST_RECORDS, NoiseSourceName, UnitName

MOST_PROCESSES = 64
"""That one silo trains in, on one machine."""

Clock = Annotated[str, Field(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$")]
Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]


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
        records_are_said(self.unit, self.max_records)
        return self


class HoursConfig(Section):
    """When a silo joins and trains, by its own clock: past midnight where `end` is before `start`, all day if alike."""

    days: Annotated[tuple[Day, ...], Field(strict=False, min_length=1)] = get_args(Day)
    start: Clock = "00:00"
    end: Clock = "00:00"


class SiloEncryptionConfig(EncryptionConfig):
    """How a silo hides its updates; required unless its own file says otherwise."""

    secure_aggregation: AggregationMode = "on"


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
        mechanisms: What it may release by. One that is not named is never charged, and each that is holds its own
            events to the limits below.
        noise_sources: Where noise may be drawn from.
        least_noise_multiplier: Least noise over the clip.
        largest_clip: Largest clip of a gradient.
        smallest_cohort: Least silos that are asked in a round.
        smallest_threshold: Least shares that bring a secret of secure aggregation back.
        min_silos: Least silos in a sum.
        least_effective_silos: As how many equal silos the weights of a sum count at least.
        largest_roster: Most silos in a federation that it takes part in.
        metrics: What may leave besides updates. There is nothing to name: no metric leaves.
        hours: When it joins and trains; at any time where it is not said.
        budgets: By data set, or of several together. A data set without one is not trained on.
        tables: Where this silo's own data sets lie, by the names that scenarios call them.
        encryption: Secure aggregation or nothing, and how.
        connection: Where its server is; a simulated silo has none.
        device: Where it trains.
        processes: In how many processes it trains, on one card each where there are as many.
        controller: Who answers for its records; a report repeats it.
        packages: Installed packages of others, by name and version, whose code a scenario may name. Their files are in
            the hash of the code, and run with all the rights of this silo.
        bases: Models that were trained before, which a scenario may be built on: by the hash of each, its folder.
    """

    name: SiloName
    servers: Annotated[tuple[Hash, ...], Field(strict=False)] = ()
    post_quantum_servers: Annotated[tuple[Hash, ...], Field(strict=False)] = ()
    scenarios: Annotated[tuple[Hash, ...], Field(strict=False)] = ()
    code: Annotated[tuple[Hash, ...], Field(strict=False)] = ()
    mechanisms: Annotated[tuple[MechanismName, ...], Field(strict=False)] = ("dp-sgd",)
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
    processes: int = Field(default=1, ge=1, le=MOST_PROCESSES, exclude_if=lambda said: said == 1)
    controller: ControllerConfig | None = Field(default=None, exclude_if=lambda said: said is None)
    packages: Packages = Field(default={}, exclude_if=lambda listed: not listed)
    bases: Bases = Field(default={}, exclude_if=lambda listed: not listed)

    @model_validator(mode="after")
    def _noise_of_experiments_is_simulated(self) -> SiloFile:
        if EXPERIMENT in self.noise_sources and self.connection is not None:
            raise ValueError(
                'noise_sources names "experiment", which protects nobody and is a simulation\'s alone: this silo has a'
                " [connection]; take it out"
            )
        return self

    @model_validator(mode="after")
    def _tables_have_names_of_their_own(self) -> SiloFile:
        for name in self.tables:
            if name in SOURCES:
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
                f"metrics names {value[0]!r}: no metric leaves a silo, since none of them is"
                " differentially private; leave it empty"
            )
        return value
