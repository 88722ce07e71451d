"""The section `packages` of a party's file: which installed packages of others a scenario may name code of."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

PackageName = Annotated[str, Field(pattern=r"^[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?$")]
PackageVersion = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.!+_-]{0,62}$")]
Packages = dict[PackageName, PackageVersion]
"""Names in their one form, as "my-nets", with the very version that is approved."""
