"""The section `bases` of a party's file: where models lie on its machine that scenarios are built on, by their hash."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from fedmodel.kinds.section import Hash

Bases = dict[Hash, Annotated[str, Field(min_length=1, max_length=4_096)]]
"""The very base that is approved (`fedmodel.kinds.bases`), and its folder; a relative path begins at the kit."""
