"""The sections of a scenario that are one of several kinds: `model`, by its `kind`, and `data`, by its `source`."""

from __future__ import annotations

from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeAlias

from pydantic import BeforeValidator, Field, TypeAdapter

from fedmodel.kinds.model import Model
from fedmodel.kinds.models import MODELS
from fedmodel.kinds.models.hf import PREFIX
from fedmodel.kinds.source import Source
from fedmodel.kinds.sources import SOURCES

OWN: Final = "own"
"""The kind that a section is of which names code by `use`."""
HF: Final = "hf"
"""The kind that a model is of which names a folder by `use = "hf:FOLDER"`."""


def _own_by_use(key: str) -> BeforeValidator:
    """Return what takes a section that says `use`, and not of which kind it is, for one of the user's own."""

    def named(section: Any) -> Any:
        if not isinstance(section, dict) or "use" not in section:
            return section
        return {key: HF if str(section["use"]).startswith(PREFIX) else OWN, **section}

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
