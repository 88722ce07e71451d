"""Forms that the sections share: an epsilon, and the questions that a section answers."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

Epsilon = Annotated[float | None, Field(description="an upper bound; null where none is computed")]
Questions = tuple[str, ...]
