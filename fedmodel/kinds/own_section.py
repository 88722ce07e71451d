"""A section that names a function of a user's own: what stands beside `use` is what the function is called with."""

from __future__ import annotations

from typing import Any, Self

from pydantic import ConfigDict, model_validator

from fedmodel.kinds.own_calls import check_plain
from fedmodel.kinds.section import Section


class Arguments(Section):
    """Keys that the section does not know are arguments: values that TOML and JSON both write, and the same way.

    `use` is declared by each section itself, since a document has its keys in the order in which they are declared.
    """

    model_config = ConfigDict(extra="allow")

    @model_validator(mode="after")
    def _plain(self) -> Self:
        for key, value in self.arguments.items():
            check_plain(key, value)
        return self

    @property
    def arguments(self) -> dict[str, Any]:
        """What the function is called with, by name."""
        return dict(self.model_extra or {})
