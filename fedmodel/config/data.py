"""The section `data`: where records come from, how they are scaled, held out and, in a simulation, dealt."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field, field_validator, model_validator

from fedmodel.kinds.columns import RISING, ColumnConfig, ColumnName, Person, Range, check_table, rises
from fedmodel.kinds.section import DataName, Positive, Section, SiloName
from fedmodel.kinds.spelling import CsvForm, Later
from fedmodel.privacy.events import MOST_RECORDS

DataSource = Literal["breast-cancer", "digits", "synthetic", "table"]
_OF_DEALT_DATA = ("held_out", "reference_range", "reference_ranges", "records", "features", "records_per_person",
                  "partition")  # fmt: skip
_OF_TABLES = ("name", "label", "labels", "unknown_label", "columns", "person", "folder", "csv")
_MOST_VALUES = 100_000_000  # of synthetic data; its generator holds them several times over


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
