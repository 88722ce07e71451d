"""The sections of a scenario that are one of several kinds: `model`, by its `kind`, and `data`, by its `source`."""

from __future__ import annotations

from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeAlias

from pydantic import BeforeValidator, Field, TypeAdapter

from fedmodel.kinds.model import Model
from fedmodel.kinds.models import MODELS
from fedmodel.kinds.source import Source
from fedmodel.kinds.sources import SOURCES

OWN: Final = "own"
"""The kind that a section is of which names code by `use`."""


def _own_by_use(key: str) -> BeforeValidator:
    """Return what takes a section that says `use`, and not of which kind it is, for one of the user's own."""

    def named(section: Any) -> Any:
        return {key: OWN, **section} if isinstance(section, dict) and "use" in section else section

    return BeforeValidator(named)


if TYPE_CHECKING:  # what a kind is asked; which there are is found when this is run
    ModelConfig: TypeAlias = Model
    DataConfig: TypeAlias = Source
else:
    ModelConfig = Annotated[reduce(or_, MODELS.values()), Field(discriminator="kind"), _own_by_use("kind")]
    DataConfig = Annotated[reduce(or_, SOURCES.values()), Field(discriminator="source"), _own_by_use("source")]

_DATA: Final[TypeAdapter[Source]] = TypeAdapter(DataConfig)


def data_from_json(text: str) -> Source:
    """Read back what a section `data` wrote as JSON."""
    return _DATA.validate_json(text)
