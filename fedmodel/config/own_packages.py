"""The section `packages` of a party's file: which installed packages of others a scenario may name code of."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from fedmodel.kinds.section import Hash, Section

PackageName = Annotated[str, Field(pattern=r"^[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?$")]
PackageVersion = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.!+_-]{0,62}$")]
Packages = dict[PackageName, PackageVersion]
"""Names in their one form, as "my-nets", with the very version that is approved."""


class StrategyPackage(Section):
    """A package of which a strategy of a user's own may be, at a server: no silo imports it.

    Attributes:
        version: The very version that is approved.
        sha256: Of its files (`fedmodel.system.packages.package_hash`).
    """

    version: PackageVersion
    sha256: Hash
