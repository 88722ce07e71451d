"""Records that a function of a user's own returns: named here, called and checked by `fedmodel.data.own`.

A simulation's alone. A deployed silo reads what its own file says and nothing else, so that one source has one budget,
and who withdrew or was held out stays so; no program sees what a function reads.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field, field_validator, model_validator

from fedmodel.errors import ConfigError
from fedmodel.kinds.columns import RISING, ColumnName, Range, rises
from fedmodel.kinds.own_names import UseName
from fedmodel.kinds.own_section import Arguments
from fedmodel.kinds.partitions import PartitionConfig
from fedmodel.kinds.partitions.column import ByColumn
from fedmodel.kinds.partitions.dirichlet import Dirichlet
from fedmodel.kinds.section import DataName, Positive, Section
from fedmodel.kinds.shape import CLASSIFICATION, MULTI_LABEL, REGRESSION, ArrayShape, DataShape
from fedmodel.kinds.source import Source

Size = Annotated[tuple[Annotated[int, Field(ge=1, le=100_000_000)], ...], Field(strict=False, max_length=8)]
_NOT_DEPLOYED: Final = (
    "data.use names a function, and no program sees what a function reads: a deployed silo could not tell whether two"
    " budgets count one source, nor leave out who withdrew or was held out; simulate it, or give the silos tables or"
    " folders that silo.toml names"
)


PERSON: Final = "person"
"""By which a partition calls the column of persons, whatever that is called."""


TaskName = Literal["classification", "multi-label", "regression", "next-token", "sequence-labels"]


def _is_empty(value: object) -> bool:
    return not value


class ArrayConfig(Section):
    """What is public about one array of records.

    Attributes:
        size: Shape of one record's part of it.
        below: Values are whole numbers from 0 up to this; real numbers where it is not said.
    """

    size: Size
    below: int | None = Field(default=None, ge=2)

    @property
    def shape(self) -> ArrayShape:
        """As a model's shape has it."""
        return ArrayShape(self.size, self.below)


class OwnConfig(Source, Arguments):
    """What a function returns. Keys that are none of these are its arguments.

    Attributes:
        use: The function, `"package.module:function"`.
        name: What the data set is called in budgets and ledgers.
        label: The column or key to predict; "label" or "labels" where nothing is said.
        person: The column or key that says whose a record is.
        held_out: Share set aside for the server's evaluation, where the function gives no test part.
        partition: How records are dealt, where the function gives no list with a part for each silo.
        features: Shape of a record that is one array.
        below: Values of that array are whole numbers from 0 up to this.
        inputs: Arrays of a record that is several, by name.
        classes: Number of labels; of several labels at once, how many there are; of sequences, of tokens or labels.
        task: What is learnt: the name of a file in `fedmodel.learning.tasks`.
        target_range: Of a number: its public range, mapped onto [-1, 1], to which a record's is bounded. Without it
            numbers are taken as they are.
        target: Shape of a target that is more than one number.
        labels: Names of the classes, in order.
        feature_bound: Real numbers are bounded to it, plus and minus, and are not scaled. What is not said bounds
            nothing that a float32 of scaled data holds.
    """

    is_dealt = True

    source: Literal["own"]
    use: UseName
    name: DataName = "own"
    label: ColumnName | None = None
    person: ColumnName | None = None
    held_out: float | None = Field(default=None, gt=0, lt=1)
    partition: PartitionConfig = Dirichlet()
    features: Size | None = None
    below: int | None = Field(default=None, ge=2)
    inputs: dict[ColumnName, ArrayConfig] = Field(default={}, exclude_if=_is_empty)
    classes: int | None = Field(default=None, ge=2, le=1_000_000)
    task: TaskName = Field(default=CLASSIFICATION, exclude_if=lambda value: value == CLASSIFICATION)
    target_range: Range | None = Field(default=None, exclude_if=lambda value: value is None)
    target: Size = Field(default=(), exclude_if=_is_empty)
    labels: Annotated[tuple[ColumnName, ...], Field(strict=False, max_length=1_000, exclude_if=_is_empty)] = ()
    feature_bound: Positive = 1e9

    @field_validator("inputs")
    @classmethod
    def _names_are_words(cls, inputs: dict[str, ArrayConfig]) -> dict[str, ArrayConfig]:
        for name in inputs:
            if not name.isidentifier():
                raise ValueError(f"inputs names {name!r}, by which no model can be called; take a word of Python")
        return inputs

    @model_validator(mode="after")
    def _is_said_once(self) -> OwnConfig:
        from fedmodel.kinds.sources import names_taken  # which has this file among them

        if self.name in names_taken():
            raise ValueError(f"name = {self.name!r} is what a data set on board is called; take another")
        if self.features is not None and self.inputs:
            raise ValueError("give features, of one array, or inputs, of several, not both")
        if self.below is not None and self.inputs:
            raise ValueError("below is of records that are one array; each of inputs has its own")
        if self.labels and self.classes not in (None, len(self.labels)):
            raise ValueError(f"labels names {len(self.labels)} classes, and classes = {self.classes}; leave one out")
        if self.target_range is not None and (self.task != REGRESSION or not rises(self.target_range)):
            raise ValueError(f'target_range is given with task = "{REGRESSION}", and only then, and must {RISING}')
        if self.task != CLASSIFICATION and self.labels:
            raise ValueError(f'labels name classes, which task = "{self.task}" has not; leave labels out')
        return self

    @property
    def group(self) -> str | None:
        """The column or key by which records are dealt, where it is no word for whose they are."""
        by = self.partition.column if isinstance(self.partition, ByColumn) else PERSON
        return None if by == PERSON else by

    @property
    def data_set(self) -> str:
        """What the data set is called: by its own name."""
        return self.name

    @property
    def learnt(self) -> str:
        """As declared."""
        return self.task

    @property
    def is_settled(self) -> bool:
        """Whether its arrays and classes are declared, or were settled."""
        return self._classes is not None and (self.features is not None or bool(self.inputs))

    @property
    def _classes(self) -> int | None:
        """How many there are, None where nothing says."""
        return len(self.labels) or self.classes or (0 if self.task == REGRESSION else None)

    @property
    def shape(self) -> DataShape:
        """As declared, or as it was settled when a simulation was prepared."""
        classes = self._classes
        if not self.is_settled or classes is None:
            raise ConfigError(
                "data.features or data.inputs, and data.classes, say what is public about a record of data.use; only a"
                " simulation settles them from the records"
            )
        inputs = {name: one.shape for name, one in self.inputs.items()} or None
        targets = {
            CLASSIFICATION: None,
            REGRESSION: ArrayShape(self.target),
            MULTI_LABEL: ArrayShape((classes,), 2),
        }.get(self.task, ArrayShape(self.target, classes, ignores=True))
        return DataShape(
            self.features or (),
            classes,
            inputs=inputs,
            target=targets,
            labels=self.labels,
            task=self.task,
            below=self.below,
            target_range=self.target_range,
        )

    @property
    def predicted(self) -> str | None:
        """The label's column."""
        return self.label

    @property
    def described(self) -> str:
        """Whose they are."""
        return f"records that {self.use}, a function of the user's own, returned"

    def why_no_persons(self) -> str | None:
        """Return that no column says whose a record is, where none does."""
        return "it needs data.person, the column or key that says whose a record is" if self.person is None else None

    def why_not_deployed(self) -> str:
        """Return that nobody sees what a function reads."""
        return _NOT_DEPLOYED
