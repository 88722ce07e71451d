"""Forms that the sections share: an epsilon, a mechanism's name, the questions that a section answers."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from fedmodel.privacy.mechanisms import known_mechanism

Epsilon = Annotated[float | None, Field(description="an upper bound; null where none is computed")]
MechanismName = Annotated[str, AfterValidator(known_mechanism)]
Questions = tuple[str, ...]
