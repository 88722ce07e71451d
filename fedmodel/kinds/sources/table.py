"""A table of which every silo has its own: declared here, read by `fedmodel.data` where each silo says it lies."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field, model_validator

from fedmodel.kinds.columns import ColumnConfig, ColumnName, Person, Range, check_table, inputs_of
from fedmodel.kinds.first_sources import FirstSource
from fedmodel.kinds.section import DataName, SiloName, known_silos
from fedmodel.kinds.shape import ArrayShape, DataShape
from fedmodel.kinds.source import Source
from fedmodel.kinds.spelling import CsvForm
from fedmodel.kinds.survival import Ends, survival_shape

HELD_OUT: Final = "held-out"
Labels = Annotated[tuple[ColumnName, ...], Field(strict=False, max_length=1_000)]
FeatureShape = Annotated[
    tuple[Annotated[int, Field(ge=1, le=10_000)], ...], Field(strict=False, min_length=1, max_length=4)
]


class TableConfig(FirstSource, Source):
    """What a record is. `folder` and `csv` are a simulation's alone: no server says which of a silo's files are read.

    Attributes:
        name: What the data set is called, in a silo's file and in ledgers.
        label: The column to predict; or several, each true or false; of survival, whether the event ended the time.
        labels: Of one column, its classes, in order. Of survival, what stands for no event and for one, where these are
            no truths.
        label_range: Of one column of numbers instead: its public range, to which a record's number is bounded.
        time: Of survival: the column that says for how long each was looked at.
        ends: Of survival: when each interval ends, in order (`fedmodel.kinds.survival`).
        time_unit: Of survival: what `time` and `ends` are counted in, as a word in the plural.
        columns: The features, in order.
        person: The column that says whose a record is.
        folder: Holds every simulated silo's table, and the server's.
        unknown_label: What becomes of a label that is none of `labels`.
        other_columns: A column that is not declared refuses the table, or is not looked at.
        csv: By party, how its file in the folder is written.
        feature_shape: Shape into which a record's features are put, in their order: `(channels, height, width)` of an
            image whose pixels are columns. As it comes, a row, where nothing is said.
    """

    is_own = True

    source: Literal["table"]
    name: DataName | None = None
    label: ColumnName | Labels | None = None
    labels: Labels = ()
    columns: Annotated[tuple[ColumnConfig, ...], Field(strict=False, max_length=10_000)] = ()
    person: Person | None = None
    folder: str | None = Field(default=None, min_length=1)
    # Left out of a document, and so of a scenario's hash, where they are not said: they came later.
    unknown_label: Literal["refuse", "drop"] = Field(default="refuse", exclude_if=lambda value: value == "refuse")
    other_columns: Literal["refuse", "ignore"] = Field(default="refuse", exclude_if=lambda value: value == "refuse")
    csv: dict[SiloName, CsvForm] = Field(default={}, exclude_if=lambda value: value == {})
    label_range: Range | None = Field(default=None, exclude_if=lambda value: value is None)
    feature_shape: FeatureShape | None = Field(default=None, exclude_if=lambda value: value is None)
    time: ColumnName | None = Field(default=None, exclude_if=lambda value: value is None)
    ends: Ends = Field(default=(), exclude_if=lambda value: value == ())
    time_unit: ColumnName | None = Field(default=None, exclude_if=lambda value: value is None)

    @model_validator(mode="after")
    def _is_declared(self) -> TableConfig:
        from fedmodel.kinds.sources import names_taken  # which has this file among them

        if self.name is None or self.name in names_taken():
            raise ValueError(
                'source = "table" needs name, by which silo.toml calls the data set under [budgets] and [tables], and'
                f" none of {', '.join(sorted(names_taken()))}"
            )
        check_table(self.columns, self.label, self.labels, self.label_range, self.person, self.time)
        if not (self.time is None) == (not self.ends) == (self.time_unit is None):
            raise ValueError(
                "time, the column of how long each was looked at, ends and time_unit are given together: when each"
                ' interval ends, in public and rising numbers, and what they are counted in, as "months"'
            )
        if self.unknown_label != "refuse" and not self.labels:
            raise ValueError("unknown_label is given with labels, and only then; a record without a label is refused")
        texts = [column.name for column in self.columns if column.length]
        if len(texts) > 1:
            raise ValueError(f"columns {texts[0]!r} and {texts[1]!r} are text; a table has one column of text at most")
        count = sum(len(column.features) for column in self.columns if not column.length)
        if self.feature_shape is not None and math.prod(self.feature_shape) != count:
            raise ValueError(
                f"feature_shape = {list(self.feature_shape)} has {math.prod(self.feature_shape)} places, and the"
                f" columns become {count} features; a category is one for each of its choices"
            )
        return self

    @property
    def data_set(self) -> str:
        """What the data set is called: by its own name."""
        return str(self.name)

    @property
    def shape(self) -> DataShape:
        """The features that its columns become."""
        names = tuple(name for column in self.columns for name in column.features)
        if self.label_range is not None:
            number, range_ = ArrayShape(()), self.label_range
            return DataShape(self.features, 0, names, self.inputs, number, task="regression", target_range=range_)
        if self.time is not None:
            return survival_shape(self.features, names, self.ends, str(self.time_unit), self.inputs)
        if isinstance(self.label, tuple):
            target = ArrayShape((len(self.label),), 2)
            return DataShape(self.features, len(self.label), names, self.inputs, target, self.label, task="multi-label")
        return DataShape(self.features, len(self.labels), names, inputs=self.inputs, labels=self.labels)

    @property
    def features(self) -> tuple[int, ...]:
        """Shape of what all columns but a text become."""
        return self.feature_shape or (sum(len(column.features) for column in self.columns if not column.length),)

    @property
    def inputs(self) -> dict[str, ArrayShape] | None:
        """The arrays of a record with a text: its tokens, which of them stand, and what other columns become."""
        return inputs_of(self.columns, self.features)

    @property
    def predicted_as(self) -> dict[str, str]:
        """As what each column that is predicted is read: mostly one; of survival whether it was the event, and when."""
        if isinstance(self.label, tuple):
            return dict.fromkeys(self.label, "boolean")
        if self.time is not None:
            return {str(self.label): "category" if self.labels else "boolean", self.time: "time"}
        return {str(self.label): "category" if self.label_range is None else "float"}

    @property
    def predicted(self) -> str | None:
        """The label's column, where it is one."""
        return None if isinstance(self.label, tuple) else self.label

    def read_by(self) -> tuple[ColumnConfig, ...]:
        """The declared columns."""
        return self.columns

    @property
    def described(self) -> str:
        """Whose it is."""
        return "each silo's own table"

    def why_no_persons(self) -> str | None:
        """Return that no column says whose a record is, where none does."""
        return "it needs data.person, the column that says whose a record is" if self.person is None else None

    def check_silos(self, silos: tuple[str, ...]) -> None:
        """Refuse the form of a file that no party has, and a silo that is called as the server's own table."""
        known_silos(self.csv, (*silos, HELD_OUT), "data.csv")
        if HELD_OUT in silos:
            raise ValueError(f"a silo cannot be called {HELD_OUT!r}: that is the name of the server's own table")

    def under(self, folder: Path) -> TableConfig:
        """Return the same, with the tables' folder beginning at another."""
        return self if self.folder is None else self.model_copy(update={"folder": str(folder / self.folder)})
