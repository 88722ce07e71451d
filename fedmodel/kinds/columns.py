"""What a table's columns are, and which says whose a record is: declared by a scenario, so all of it is public.

A column has its public range, its plausible limits, and a rule for a missing value.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, Field, model_serializer, model_validator

from fedmodel.kinds.section import Section
from fedmodel.kinds.shape import ArrayShape
from fedmodel.kinds.spelling import Later, choice_form
from fedmodel.kinds.tokens import Length, TokenizerConfig, text_inputs

Range = Annotated[tuple[float, float], Field(strict=False)]
RISING: Final = "rise from low to high, by 1e-100 at least and within plus and minus 1e100"
_FARTHEST: Final = 1e100
PersonForm = Literal["text", "caseless", "digits"]
# Of any alphabet, but on one line: names stand in errors and in documents.
ColumnName = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]{1,100}$")]
Choices = Annotated[tuple[ColumnName, ...], Field(strict=False, max_length=1_000)]


def rises(pair: tuple[float, float]) -> bool:
    """Return whether a range's middle and width are numbers that one can divide by.

    >>> [rises(pair) for pair in ((0.0, 1.0), (1.0, 1.0), (0.0, 5e-324), (-1.7e308, 1.7e308))]
    [True, False, False, False]
    """
    low, high = pair
    return high - low >= 1 / _FARTHEST and max(abs(low), abs(high)) <= _FARTHEST


class ColumnConfig(Section, Later):
    """A column of a table.

    Attributes:
        name: As it stands in the source.
        type: What its values are.
        range: Public reference range of a number, mapped onto [-1, 1]; never computed from records.
        limits: What a number must lie within, or the table is refused.
        categories: What a category can be, in the order of the features that it becomes.
        missing: A missing value refuses the table, drops its record, or is filled in. Each looks at one record alone.
        fill: The public constant that is filled in; never a figure of the records.
        unknown: Of a category, a value that is none of them refuses the table, drops its record, or counts as `other`.
            Each looks at one record alone, so that neighbours still differ by one record at most.
        other: The category, one of those declared, that stands for all that are not.
        length: Of text, how many tokens are read: bytes of its UTF-8 (`fedmodel.data.tokens`) without a tokenizer.
        tokenizer: Of text, whose tokens it becomes.
    """

    LATER = ("unknown", "other", "length", "tokenizer")

    name: ColumnName
    type: Literal["float", "integer", "boolean", "category", "text"]
    range: Range | None = None
    limits: Range | None = None
    categories: Choices = ()
    missing: Literal["refuse", "drop", "fill"] = "refuse"
    fill: bool | int | float | str | None = None
    unknown: Literal["refuse", "drop", "other"] = "refuse"
    other: ColumnName | None = None
    length: Length | None = None
    tokenizer: TokenizerConfig | None = None

    @model_validator(mode="after")
    def _fits_its_type(self) -> ColumnConfig:
        numeric = self.type in ("float", "integer")
        if numeric != (self.range is not None):
            raise ValueError(
                f"column {self.name!r}: range, a public reference range, is given with a float or an integer, and only"
                f" then; found type = {self.type!r}"
            )
        if not numeric and self.limits is not None:
            raise ValueError(f"column {self.name!r}: limits are given with a float or an integer, and only then")
        if self.limits is not None and not self.limits[0] < self.limits[1]:
            raise ValueError(f"column {self.name!r}: limits must rise from low to high, found {list(self.limits)}")
        if self.range is not None and not rises(self.range):
            raise ValueError(f"column {self.name!r}: range must {RISING}, found {list(self.range)}")
        if (self.type == "category") != bool(self.categories):
            raise ValueError(f"column {self.name!r}: categories are given with a category, and only then")
        if (self.type == "text") != (self.length is not None):
            raise ValueError(f"column {self.name!r}: length, of how many tokens, is given with a text, and only then")
        if self.tokenizer is not None and self.type != "text":
            raise ValueError(f"column {self.name!r}: tokenizer is given with a text, and only then")
        _choices_differ(self.categories, f"column {self.name!r}: category")
        self._fill_is_said()
        self._unknown_is_said()
        return self

    def _unknown_is_said(self) -> None:
        """Refuse a rule for unknown categories of what has none, and an "other" that is not declared."""
        if self.unknown != "refuse" and self.type != "category":
            raise ValueError(f"column {self.name!r}: unknown is given with a category, and only then")
        if (self.unknown == "other") != (self.other is not None):
            raise ValueError(f'column {self.name!r}: other, a category, is given with unknown = "other", and only then')
        if self.other is not None and self.other not in self.categories:
            raise ValueError(f"column {self.name!r}: other = {self.other!r} is none of its categories; add it to them")

    def _fill_is_said(self) -> None:
        """Refuse a constant that is not asked for, and one that the column could not hold."""
        if (self.missing == "fill") != (self.fill is not None):
            raise ValueError(
                f'column {self.name!r}: fill, a public constant, is given with missing = "fill", and only then'
            )
        if self.fill is None:
            return
        number = isinstance(self.fill, int | float) and not isinstance(self.fill, bool)
        fits = {
            "float": number,
            "integer": number and isinstance(self.fill, int),
            "boolean": isinstance(self.fill, bool),
            "category": self.fill in self.categories,
            "text": isinstance(self.fill, str),
        }[self.type]
        if not fits:
            raise ValueError(f"column {self.name!r}: fill = {self.fill!r} is no {self.type} of it")
        if self.limits is not None and not self.limits[0] <= float(self.fill) <= self.limits[1]:
            raise ValueError(f"column {self.name!r}: fill = {self.fill!r} is outside its limits {list(self.limits)}")

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the features that it becomes."""
        if self.length is not None:
            return tuple(f"{self.name}[{place}]" for place in range(self.length))
        return tuple(f"{self.name}={choice}" for choice in self.categories) or (self.name,)

    @property
    def read_as(self) -> str:
        """As what its values are read: text as the codes of a category are, whole numbers and truths too."""
        return "category" if self.type == "text" else self.type


class PersonColumn(Section):
    """Which column says whose a record is, and when two of its ids are one person's (`fedmodel.data.persons`).

    `"patient_id"` is short for `{column = "patient_id", form = "text"}`, and is how it is written back.

    Attributes:
        column: As it stands in the source.
        form: "text", "caseless" where case does not count, "digits" where ids are whole numbers.
    """

    column: ColumnName
    form: PersonForm = "text"

    @model_serializer
    def _as_short_as_can_be(self) -> str | dict[str, str]:
        # A scenario's hash stays what it was before there were forms.
        return self.column if self.form == "text" else {"column": self.column, "form": self.form}


def _spelled_out(value: object) -> object:
    return {"column": value} if isinstance(value, str) else value


Person = Annotated[PersonColumn, BeforeValidator(_spelled_out, json_schema_input_type=ColumnName | PersonColumn)]


def _differ(names: tuple[str, ...], what: str) -> None:
    """Refuse a name that is given twice."""
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{what} {name!r} is named twice")


def _choices_differ(choices: tuple[str, ...], what: str) -> None:
    """Refuse a choice that is given twice, and two that a gap would make one, as "1" and "1.0"."""
    _differ(choices, what)
    forms: dict[str, str] = {}
    for choice in choices:
        if (other := forms.setdefault(choice_form(choice), choice)) != choice:
            raise ValueError(f"{what} {choice!r} and {other!r} are read as one; take names that differ more")


def text_column(columns: Iterable[ColumnConfig]) -> ColumnConfig | None:
    """Return the column of text, of which there is one at most."""
    return next((column for column in columns if column.length), None)


def inputs_of(columns: tuple[ColumnConfig, ...], features: tuple[int, ...]) -> dict[str, ArrayShape] | None:
    """Return the arrays of a table's record that has a text, None of one that has none and so is one array.

    Args:
        columns: As they are declared.
        features: Shape of what all of them but the text become.
    """
    said = text_column(columns)
    if said is None or said.length is None:
        return None
    text = text_inputs(said.length, said.tokenizer)
    return text if len(columns) == 1 else text | {"features": ArrayShape(features)}


def check_table(
    columns: tuple[ColumnConfig, ...],
    label: str | tuple[str, ...] | None,
    labels: tuple[str, ...],
    label_range: tuple[float, float] | None,
    person: PersonColumn | None,
    time: str | None,
) -> None:
    """Refuse a table that could not be read one way only.

    Raises:
        ValueError: Which rule it breaks.
    """
    several = isinstance(label, tuple)
    timed = time is not None and not labels
    if label is None or not columns or not (several or len(labels) > 1 or label_range is not None or timed):
        raise ValueError(
            'source = "table" needs label, the column to predict; labels, its classes in order and at least two,'
            " label_range, the public range of a number, or time, the column of times until an event; and at least one"
            " [[data.columns]]"
        )
    if bool(labels) + (label_range is not None) + several > 1:
        raise ValueError(
            "labels are of one column of classes, label_range is of one column of numbers, and a list of labels is of"
            " columns that are true or false; leave the others out"
        )
    if label_range is not None and not rises(label_range):
        raise ValueError(f"label_range must {RISING}, found {list(label_range)}")
    if time is not None and (several or label_range is not None or len(labels) not in (0, 2)):
        raise ValueError(
            "with time, label is the one column of whether the event ended it; labels are two, what stands there for no"
            " event and for one, and left out where that is false or true; no other key says what is predicted"
        )
    predicted = (*(label if isinstance(label, tuple) else (label,)), *([] if time is None else [time]))
    if several and len(predicted) < 2:
        raise ValueError(
            'label = [...] names two columns at least; of one that is true or false, say labels = ["false", "true"]'
        )
    _choices_differ(labels, "label")
    for column in columns:
        if column.name in predicted:
            raise ValueError(
                f"column {column.name!r} is the label, and a feature too, so that a model would be given what it is to"
                " predict; take it out of [[data.columns]]"
            )
    _differ((*(column.name for column in columns), *predicted, *([] if person is None else [person.column])), "column")
