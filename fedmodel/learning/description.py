"""What others need to use a model, in a file beside it: how a record is read, what is built, what it answers.

`model.json` follows from the scenario alone, so that all of it is as public as that, and nothing of it was counted from
records. It names the scenario by the hash that silos signed for, which stands in the model's own file too.

Does NOT show that a model beside it is of that scenario: whoever makes up one file makes up the other. `report verify`
holds both to the silos' ledgers.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field, ValidationError, model_validator
from torch import nn

from fedmodel.config import ColumnConfig, ModelConfig, Scenario
from fedmodel.errors import ConfigError
from fedmodel.kinds.columns import Range, inputs_of, rises
from fedmodel.kinds.pictures import Framed
from fedmodel.kinds.scattering import scattered_shape
from fedmodel.kinds.section import Hash, Positive, Probability, Section
from fedmodel.kinds.shape import SURVIVAL, ArrayShape, DataShape
from fedmodel.kinds.sources.table import TableConfig
from fedmodel.learning.models import build_model
from fedmodel.learning.tasks import Objective, objective

DESCRIPTION: Final = "model.json"
THRESHOLD: Final = 0.5
"""Of two classes the second is predicted where its probability is over this: so a run's own figures are measured."""

_MOST_BYTES: Final = 100_000_000
_Names = Annotated[tuple[str, ...], Field(strict=False)]


class Target(Section):
    """What a target looks like (`fedmodel.kinds.shape.ArrayShape`)."""

    size: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(strict=False)] = ()
    below: Annotated[int, Field(ge=2)] | None = None
    ignores: bool = False


class Description(Section):
    """A model, described.

    Attributes:
        format: Of this file.
        scenario: The scenario's name.
        summary: Its line for people.
        scenario_hash: SHA-256 of all its keys, in hexadecimal.
        source: The data set that it was trained on.
        shape: Of one record.
        columns: What is read of a table, in order; none where records are no rows of one.
        features: Names of what the columns become, in order.
        feature_bound: What a scaled feature is bounded by, plus and minus.
        label: The column that is predicted, where it has a name.
        labels: Names of the classes, or of several labels at once, in order; of survival, what stands for no event and
            for one where these are no truths; none of numbers or of tokens.
        threshold: Of two classes, the probability over which the second is predicted; of several labels at once, over
            which each is said to be there.
        loss: What it was trained on; decides how outputs become probabilities.
        model: Its kind and shape.
        task: What is learnt of a record.
        label_range: Of a number that is predicted: the public range in its own units that outputs from -1 to 1 are.
        target: What a target looks like, where it is no label.
        inputs: The arrays of a record, where they are several and no columns become them.
        below: Values of records that are one array are whole numbers from 0 up to this; real numbers where None.
        scattering_of: Channels, height and width of the picture, with pixels from -1 to 1, whose scattering features a
            record is (`fedmodel.data.scattering`); None where it is none of these.
        decorrelated: Whether these features are decorrelated.
        ends: Of survival: when each interval ends, in order, which is what an answer is for.
        time_unit: Of survival: what `ends` are counted in.
        time: Of survival: the column of times, beside the label that says whether the event ended them.
    """

    format: Literal["fedmodel/v1/model"] = "fedmodel/v1/model"
    scenario: str
    summary: str
    scenario_hash: Hash
    source: str
    shape: Annotated[tuple[int, ...], Field(strict=False)]
    columns: Annotated[tuple[ColumnConfig, ...], Field(strict=False)]
    features: _Names
    feature_bound: Positive
    label: str | None = None
    labels: _Names
    threshold: Probability | None = None
    loss: str
    model: ModelConfig
    # Left out of a classifier's, whose description is as before there were others.
    task: str = Field(default="classification", exclude_if=lambda task: task == "classification")
    label_range: Range | None = Field(default=None, exclude_if=lambda value: value is None)
    target: Target | None = Field(default=None, exclude_if=lambda value: value is None)
    inputs: dict[str, Target] | None = Field(default=None, exclude_if=lambda value: value is None)
    below: int | None = Field(default=None, ge=1, exclude_if=lambda value: value is None)
    scattering_of: Annotated[tuple[int, int, int], Field(strict=False)] | None = Field(
        default=None, exclude_if=lambda value: value is None
    )
    decorrelated: bool = Field(default=False, exclude_if=lambda value: not value)
    ends: Annotated[tuple[float, ...], Field(strict=False)] = Field(default=(), exclude_if=lambda value: value == ())
    time_unit: str = Field(default="", exclude_if=lambda value: value == "")
    time: str | None = Field(default=None, exclude_if=lambda value: value is None)

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Description:
        names = tuple(name for column in self.columns for name in column.features)
        places = sum(len(column.features) for column in self.columns if not column.length)
        there = math.prod(self.shape) if self.shape else 0  # of a text alone, which is no row of features
        if self.columns and (names != self.features or there != places):
            raise ValueError("features and shape are what columns become")
        if len(self.labels) < 2 and self.task == "classification":
            raise ValueError("labels names the classes, two at least")
        plain = self.task == "classification"
        if plain != (self.target is None) or (self.label_range is not None and (plain or not rises(self.label_range))):
            raise ValueError("task, target and label_range do not go together")
        if self.scattering_of is not None and self.shape != scattered_shape(self.scattering_of):
            raise ValueError("shape is not that of the features of pictures of scattering_of")
        if self.decorrelated and self.scattering_of is None:
            raise ValueError("decorrelated is said of scattering features, and scattering_of says that there are none")
        self._ends_are_the_targets()
        try:
            _ = self.aim
        except ConfigError as error:
            raise ValueError(str(error)) from None
        return self

    def _ends_are_the_targets(self) -> None:
        """Refuse survival without ends, or with others than its targets count; and ends of any other task."""
        if (self.task == SURVIVAL) != bool(self.ends) or bool(self.ends) != bool(self.time_unit):
            raise ValueError(f'ends and time_unit are given with task = "{SURVIVAL}", and only then')
        if self.time is not None and (not self.ends or self.label is None or len(self.labels) not in (0, 2)):
            raise ValueError(f'time is given with task = "{SURVIVAL}", a label, and two labels or none')
        if self.ends and (self.target is None or self.target.below != 2 * len(self.ends) + 1):
            raise ValueError(f"target is of other intervals than the {len(self.ends)} that ends has")

    @property
    def data(self) -> DataShape:
        """What a record looks like."""
        stated = {name: ArrayShape(one.size, one.below) for name, one in (self.inputs or {}).items()}
        inputs = stated or inputs_of(self.columns, self.shape)
        if self.target is None:
            return DataShape(self.shape, len(self.labels), self.features, inputs, below=self.below)
        return DataShape(
            self.shape,
            len(self.ends) or len(self.labels) or self.target.below or 0,
            self.features,
            inputs,
            ArrayShape(self.target.size, self.target.below, self.target.ignores),
            () if self.ends else self.labels,
            self.task,
            self.below,
            self.label_range,
            self.ends,
            self.time_unit,
        )

    @property
    def record(self) -> str:
        """What a record is, in a few words."""
        if self.data.inputs is not None:
            return f"several arrays, {', '.join(self.data.inputs)}"
        numbers = "numbers" if self.below is None else "whole numbers"
        if self.scattering_of is not None:
            pixels = "x".join(map(str, self.scattering_of))
            made = "scattered(..., decorrelated=True)" if self.decorrelated else "scattered"
            numbers = f"scattering features of a picture of {pixels} pixels from -1 to 1, as `{made}` makes them"
            numbers += f", each bounded to plus and minus {self.feature_bound:g}"
        return f"{'x'.join(map(str, self.shape)) or 'single'} {numbers}"

    @property
    def aim(self) -> Objective:
        """The task and the loss, which decide how outputs become answers."""
        return objective(self.data, self.loss)

    def built(self) -> nn.Module:
        """Return the model that is described, with parameters that mean nothing yet."""
        return build_model(self.model, self.data, seed=0)

    def written(self) -> bytes:
        """Return it as a file."""
        told = self.model_dump(mode="json", exclude_none=True, exclude={"model": {"init", "init_value"}})
        return (json.dumps(told, indent=1, ensure_ascii=False) + "\n").encode()


def describe(scenario: Scenario, scenario_hash: bytes) -> Description:
    """Return what others need to use a scenario's model.

    Args:
        scenario: What was done.
        scenario_hash: Its hash, 32 bytes (`fedmodel.provision.scenario_hash`).
    """
    shape, columns = scenario.data.shape, scenario.data.read_by()
    timed = scenario.data if isinstance(scenario.data, TableConfig) and scenario.data.time is not None else None
    return Description(
        scenario=scenario.name,
        summary=scenario.summary,
        scenario_hash=scenario_hash.hex(),
        source=scenario.data.data_set,
        shape=shape.features,
        columns=columns,
        features=tuple(name for column in columns for name in column.features) or shape.names,
        feature_bound=scenario.data.feature_bound,
        label=scenario.data.predicted,
        labels=timed.labels
        if timed is not None
        else shape.label_names
        if shape.task in ("classification", "multi-label")
        else shape.labels,
        threshold=THRESHOLD if shape.task in ("classification", "multi-label") else None,
        loss=scenario.training.loss,
        task=shape.task,
        label_range=shape.target_range,
        inputs=None
        if shape.inputs is None or columns
        else {name: Target(size=one.size, below=one.below) for name, one in shape.inputs.items()},
        below=shape.below,
        scattering_of=scenario.data.scattering_of if isinstance(scenario.data, Framed) else None,
        decorrelated=isinstance(scenario.data, Framed) and scenario.data.are_decorrelated,
        target=None
        if shape.target is None
        else Target(size=shape.target.size, below=shape.target.below, ignores=shape.target.ignores),
        ends=shape.ends,
        time_unit=shape.time_unit,
        time=None if timed is None else timed.time,
        # Where it began from is no matter of whoever uses it.
        model=scenario.model.model_copy(update={"init": "random", "init_value": None}),
    )


def read_description(path: Path) -> Description:
    """Read a description back.

    Raises:
        ConfigError: When it is none.
    """
    try:
        data = path.read_bytes()
        if len(data) > _MOST_BYTES:
            raise ConfigError(f"{path}: has {len(data)} bytes, more than a description of a model")
        document: Any = json.loads(data)
        return Description.model_validate(document)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "it"
        raise ConfigError(f"{path}: does not describe a model: {where}: {first['msg']}") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: is no JSON ({type(error).__name__})") from None
