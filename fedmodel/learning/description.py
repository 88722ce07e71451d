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
from fedmodel.kinds.columns import inputs_of
from fedmodel.kinds.section import Hash, Positive, Probability, Section
from fedmodel.kinds.shape import DataShape
from fedmodel.learning.models import build_model
from fedmodel.learning.tasks import Objective, objective

DESCRIPTION: Final = "model.json"
THRESHOLD: Final = 0.5
"""Of two classes the second is predicted where its probability is over this: so a run's own figures are measured."""

_MOST_BYTES: Final = 100_000_000
_Names = Annotated[tuple[str, ...], Field(strict=False)]


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
        labels: Names of the classes, in order.
        threshold: Of two classes, the probability over which the second is predicted.
        loss: What it was trained on; decides how outputs become probabilities.
        model: Its kind and shape.
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
    threshold: Probability
    loss: str
    model: ModelConfig

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Description:
        names = tuple(name for column in self.columns for name in column.features)
        places = sum(len(column.features) for column in self.columns if not column.length)
        if self.columns and (names != self.features or math.prod(self.shape) != places):
            raise ValueError("features and shape are what columns become")
        if len(self.labels) < 2:
            raise ValueError("labels names the classes, two at least")
        try:
            _ = self.aim
        except ConfigError as error:
            raise ValueError(str(error)) from None
        return self

    @property
    def data(self) -> DataShape:
        """What a record looks like."""
        return DataShape(self.shape, len(self.labels), self.features, inputs_of(self.columns, self.shape))

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
    shape = scenario.data.shape
    return Description(
        scenario=scenario.name,
        summary=scenario.summary,
        scenario_hash=scenario_hash.hex(),
        source=scenario.data.data_set,
        shape=shape.features,
        columns=scenario.data.read_by(),
        features=shape.names,
        feature_bound=scenario.data.feature_bound,
        label=scenario.data.predicted,
        labels=shape.label_names,
        threshold=THRESHOLD,
        loss=scenario.training.loss,
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
